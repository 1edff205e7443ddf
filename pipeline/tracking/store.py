"""Connect to the MLflow store: is it reachable, how long to wait for it, what to do if two processes cross."""

import logging
import os
import random
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.redact import redact

logging.getLogger("mlflow").setLevel(logging.WARNING)  # the setting MLFLOW_LOGGING_LEVEL reaches only a part of it

DEFAULT_URI = "sqlite:///mlflow.db"
RETRY_PAUSES = (0.25, 0.5, 1, 2, 4, 8)  # seconds
INIT_LOCK_TIMEOUT = 300  # seconds
FIRST_REQUEST_TIMEOUT = 13  # seconds
T = TypeVar("T")
StoreError = MlflowException  # what the store refuses, for the packages that do not import MLflow


@contextmanager
def connect() -> Iterator[str]:
    """Connect to ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``, and yield its address without credentials.

    Raises
    ------
    UserError
        Nothing answers there (known within 15 seconds), or MLflow refuses something inside the ``with`` block.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    mlflow.set_tracking_uri(uri)
    check_reachable(uri)
    try:
        with limit_requests(retries=0, timeout=FIRST_REQUEST_TIMEOUT), sqlite_init_lock(uri):
            get_client().search_experiments(max_results=1)
        yield redact(uri)
    except MlflowException as error:
        _raise_user_error(redact(uri), error)


def _raise_user_error(address: str, error: MlflowException) -> NoReturn:
    """Say in one line what MLflow refused, and what to check."""
    reason = redact(error.message.splitlines()[0])
    if error.error_code == "PERMISSION_DENIED":
        raise UserError(f"{address}: your account may not do this; ask its administrator") from None
    if error.error_code == "UNAUTHENTICATED":
        reason = "it does not accept your name and password"
        advice = "MLFLOW_TRACKING_USERNAME and _PASSWORD"
    elif "SSLError" in reason:
        detail = reason[reason.index("SSLError") :].rstrip(")'")
        reason = f"no secure connection: {detail}"
        advice = "the address, the certificate, or MLFLOW_TRACKING_SERVER_CERT_PATH"
    else:
        advice = "MLFLOW_TRACKING_URI and your input"
    raise UserError(f"{address}: {reason}; check {advice}") from None


def get_client() -> mlflow.MlflowClient:
    """Return a client of the store."""
    return mlflow.MlflowClient()


def check_reachable(uri: str) -> None:
    """Check that something answers at ``uri``: MLflow itself would try again for minutes.

    Raises
    ------
    UserError
        Nothing answers.
    """
    scheme = urlsplit(uri).scheme
    try:
        if scheme == "sqlite":
            _check_sqlite(uri)
        elif scheme in ("http", "https"):
            _check_http(uri)
        elif scheme.partition("+")[0] in ("mysql", "postgresql", "mssql"):
            _check_database(uri)
    except (OSError, ValueError, sqlite3.Error) as error:
        raise UserError(f"nothing answers at {redact(uri)} ({error}); start it or change MLFLOW_TRACKING_URI") from None


def _check_sqlite(uri: str) -> None:
    path = Path(unquote(uri.removeprefix("sqlite:///")))
    if not path.parent.is_dir():
        raise UserError(f"{redact(uri)}: there is no directory {path.parent}; create it or change MLFLOW_TRACKING_URI")
    with sqlite3.connect(path, timeout=10) as database:
        database.execute("PRAGMA schema_version")
    database.close()


def _check_http(uri: str) -> None:
    parts = urlsplit(uri)
    if not parts.hostname:
        return
    default_port = 443 if parts.scheme == "https" else 80
    socket.create_connection((parts.hostname, parts.port or default_port), timeout=5).close()


def _check_database(uri: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        create_engine(uri).connect().close()
    except (SQLAlchemyError, ImportError) as error:  # the driver may be missing
        raise OSError(redact(str(error).splitlines()[0])) from None


@contextmanager
def sqlite_init_lock(uri: str) -> Iterator[None]:
    """Let one process at a time open a SQLite file: the first one creates its tables.

    Raises
    ------
    UserError
        Another process has held the lock for five minutes.
    """
    if not uri.startswith("sqlite:///"):
        yield
        return
    from filelock import FileLock, Timeout

    path, _, _ = unquote(uri.removeprefix("sqlite:///")).partition("?")
    lock = FileLock(f"{path}.lock", timeout=INIT_LOCK_TIMEOUT)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process has held {lock.lock_file} for 5 minutes; stop it and run again") from None
    except OSError:  # a directory that cannot be written needs no new tables
        pass
    try:
        yield
    finally:
        lock.release()


@contextmanager
def limit_requests(*, retries: int, timeout: int) -> Iterator[None]:
    """Limit MLflow's HTTP retries and the seconds of a request inside the ``with`` block.

    MLflow's default of 7 retries outlasts a restart of the server during a training.
    """
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout)}
    previous = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def retry_on_conflict(request: Callable[[], T]) -> T:
    """Return what ``request`` returns; if another process does the same at the same time, retry for some 15 seconds.

    MLflow fails with an IntegrityError if two processes are the first to log the same data set or alias, and gives up
    on the number of a version if many register at once. An account that creates an experiment or a model gets the
    permission to change it only a moment later: other processes with the same account are refused until then.
    """
    for pause in RETRY_PAUSES:
        try:
            return request()
        except MlflowException as error:
            if not _is_conflict(error):
                raise
        time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - so that they do not meet again
    return request()


def _is_conflict(error: MlflowException) -> bool:
    if error.error_code == "PERMISSION_DENIED":
        return True
    return "IntegrityError" in error.message or "Giving up after" in error.message
