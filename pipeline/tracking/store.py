"""Connect to the MLflow store: is it reachable, how long to wait for it, what to do if two processes cross."""

import logging
import math
import os
import random
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.documents import parse_count
from pipeline.errors import UserError
from pipeline.redact import redact, redact_address
from pipeline.tracking.client import RedactingClient
from pipeline.tracking.failures import StoreAway, explain_failure, is_outage

logging.getLogger("mlflow").setLevel(logging.WARNING)  # the setting MLFLOW_LOGGING_LEVEL reaches only a part of it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs a traceback of what it raises, too
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # logs each attempt; the last one is raised

# user:password@ with a character that ends the part of an address where it stands; digits alone are a port.
BARE_PASSWORD = re.compile(r"[\w+.-]+://[^\s/@:?#\[]*:(?!\d+[/?#])[^@]*(?:[\s/?#][^@]*@|@.*@)")
DEFAULT_URI = "sqlite:///mlflow.db"
RETRY_PAUSES = (0.25, 0.5, 1, 2, 4, 8)  # seconds
INIT_LOCK_TIMEOUT = 300  # seconds
SQLITE_TIMEOUT = 10  # seconds, for which another process may lock the file
NUMBER_SETTINGS = {  # and the highest number that makes sense
    "MLFLOW_HTTP_REQUEST_TIMEOUT": 86_400,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": 100,
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": 86_400,
}
FIRST_REQUEST_TIMEOUT = 13  # seconds, with all attempts
FIRST_REQUEST_PAUSE = 0.25  # seconds, which doubles
T = TypeVar("T")
StoreError = MlflowException  # what the store refuses, for the packages that do not import MLflow


@contextmanager
def connect() -> Iterator[str]:
    """Connect to ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``, and yield its address without credentials.

    Raises
    ------
    UserError
        Nothing answers there (known within 15 seconds); or inside the ``with`` block the store refuses something, or
        does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    _check_settings()
    mlflow.set_tracking_uri(uri)
    check_reachable(uri)
    try:
        with sqlite_init_lock(uri):
            _open_store()
        yield redact_address(uri)
    except (MlflowException, RequestException, SQLAlchemyError, StoreAway) as error:
        failure = explain_failure(error)
        raise UserError(f"{redact_address(uri)}: {failure.reason}; {failure.advice}") from None


def _check_settings() -> None:
    """Check the numbers in the environment that MLflow reads at each request."""
    for name, limit in NUMBER_SETTINGS.items():
        text = os.environ.get(name, "0")
        number = parse_count(text)
        if number is None or number > limit:
            raise UserError(f"the variable {name} is no whole number from 0 to {limit:,}; correct or unset it")


def _open_store() -> None:
    """Ask for anything; an address that MLflow and SQLAlchemy cannot use is what the caller can fix."""
    try:
        _send_first_request()
    except (ValueError, TypeError):  # their messages may have the address
        raise UserError("MLFLOW_TRACKING_URI is no address of a store; correct it") from None


def _send_first_request() -> None:
    """Ask for anything; try again for some seconds, as a server that is about to start needs."""
    deadline = time.monotonic() + FIRST_REQUEST_TIMEOUT
    pause = FIRST_REQUEST_PAUSE
    while True:
        left = math.ceil(deadline - time.monotonic())
        try:
            with limit_requests(retries=0, timeout=min(left, MLFLOW_HTTP_REQUEST_TIMEOUT.get())):
                get_client().search_experiments(max_results=1)
            return
        except MlflowException as error:
            if not is_outage(error) or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause *= 2


def get_client() -> RedactingClient:
    """Return a client of the store, to which no secret goes."""
    return RedactingClient()


def check_reachable(uri: str) -> None:
    """Check that something answers at ``uri``: MLflow itself would try again for minutes.

    Raises
    ------
    UserError
        Nothing answers.
    """
    try:
        if BARE_PASSWORD.match(uri):  # a parser would take a part of it for the host, and say so
            raise ValueError("malformed")
        scheme = urlsplit(uri).scheme
        if scheme == "sqlite":
            _check_sqlite(uri)
        elif scheme in ("http", "https"):
            _check_http(uri)
        elif scheme.partition("+")[0] in ("mysql", "postgresql", "mssql"):
            _check_database(uri)
    except ValueError:  # its message may have the password
        raise UserError(
            f"{redact_address(uri)}: the address is malformed; check MLFLOW_TRACKING_URI (special characters of a "
            "password are written as %40 for @, %2F for /)"
        ) from None
    except OSError as error:
        detail = error.strerror or redact(str(error)) or type(error).__name__
        raise UserError(
            f"nothing answers at {redact_address(uri)} ({detail}); start it or change MLFLOW_TRACKING_URI"
        ) from None
    except sqlite3.Error as error:
        failure = explain_failure(error)
        raise UserError(f"{redact_address(uri)}: {failure.reason}; {failure.advice}") from None


def _check_sqlite(uri: str) -> None:
    path = Path(unquote(uri.removeprefix("sqlite:///")))
    if not path.parent.is_dir():
        address = redact_address(uri)
        raise UserError(f"{address}: there is no directory {path.parent}; create it or change MLFLOW_TRACKING_URI")
    with sqlite3.connect(path, timeout=SQLITE_TIMEOUT) as database:
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
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        create_engine(uri).connect().close()
    except ArgumentError:
        raise ValueError("malformed") from None
    except (SQLAlchemyError, ImportError) as error:  # the driver may be missing
        raise OSError(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return redact(lines[0]) if lines else type(error).__name__


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
def limit_requests(*, retries: int, timeout: int | None = None) -> Iterator[None]:
    """Limit MLflow's HTTP retries, and the seconds of a request if not None, inside the ``with`` block."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    if timeout is not None:
        settings["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout)
    previous = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
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
