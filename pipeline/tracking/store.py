"""Connect to the MLflow store: is it reachable, how long to wait for it, what to do if two processes cross."""

import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import mlflow
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _SERVER_ARTIFACT_ROOT_ENV_VAR
from requests import RequestException
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from pipeline.documents import parse_count
from pipeline.errors import UserError
from pipeline.redact import redact_address
from pipeline.tracking.client import RedactingClient
from pipeline.tracking.environment import check_environment
from pipeline.tracking.failures import StoreAway, explain_failure, is_outage
from pipeline.tracking.reachability import check_reachable
from pipeline.tracking.server import check_server
from pipeline.tracking.sqlite_file import absolute_uri, current_uri, find_sqlite_file
from pipeline.tracking.unity_catalog import UnityCatalogClient, is_unity_catalog

logging.getLogger("mlflow").setLevel(logging.WARNING)  # the setting MLFLOW_LOGGING_LEVEL reaches only a part of it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs a traceback of what it raises, too
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # logs each attempt; the last one is raised

DATABASES = ("mysql", "postgresql", "mssql")
RETRY_PAUSES = (0.25, 0.5, 1, 2, 4, 8)  # seconds
NUMBER_SETTINGS = {  # and the highest number that makes sense
    "MLFLOW_HTTP_REQUEST_TIMEOUT": 86_400,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": 100,
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": 86_400,
}
PROJECT = Path(__file__).resolve().parents[2]
FIRST_REQUEST_TIMEOUT = 13  # seconds, with all attempts
FIRST_REQUEST_PAUSE = 0.25  # seconds, which doubles
T = TypeVar("T")
logger = logging.getLogger(__name__)
StoreError = MlflowException  # what the store refuses, for the packages that do not import MLflow


@contextmanager
def connect(*, creates: bool = False, writes: bool = False) -> Iterator[str]:
    """Connect to ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``, and yield its address without credentials.

    If ``creates``, a SQLite store that is missing is created, and an older one is upgraded after a copy. If ``writes``
    or ``creates``, one that was copied or moved is refused, as files would go to the wrong place.

    Raises
    ------
    UserError
        Nothing answers there (known within 15 seconds); there is no store, or one that this MLflow cannot use; or
        inside the ``with`` block the store refuses something, or does not answer.
    """
    uri = current_uri()
    _check_settings()
    check_environment(uri)
    try:
        file = find_sqlite_file(uri)
        if file is None:
            _connect_to_server(uri, creates=creates)
        else:
            _connect_to_file(uri, file, creates=creates, writes=creates or writes)
        yield redact_address(uri)
    except (MlflowException, RequestException, SQLAlchemyError, StoreAway) as error:
        failure = explain_failure(error)
        raise UserError(f"{redact_address(uri)}: {failure.reason}; {failure.advice}") from None


def _connect_to_server(uri: str, *, creates: bool) -> None:
    """Connect to an MLflow server, or to a database of its own."""
    mlflow.set_tracking_uri(uri)
    check_reachable(uri)
    if uri.partition(":")[0].partition("+")[0] in DATABASES:
        _check_database_schema(uri, creates=creates)
    _open_store()


def _check_database_schema(uri: str, *, creates: bool) -> None:
    """Check that the tables of a database are those of this MLflow, which would bring older ones to its own version."""
    from pipeline.tracking.schema import SchemaState, check_schema, read_schema

    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            schema = read_schema(connection)
    finally:
        engine.dispose()
    if schema.state is not SchemaState.EMPTY or not creates:
        check_schema(schema, redact_address(uri), "back it up, then run: mlflow db upgrade with its address")


def _connect_to_file(uri: str, file: Path, *, creates: bool, writes: bool) -> None:
    """Connect to a SQLite store, whose artifacts are beside it wherever this process was started."""
    from pipeline.tracking.locations import artifact_root
    from pipeline.tracking.sqlite_store import prepared_sqlite_store

    mlflow.set_tracking_uri(absolute_uri(uri, file))
    with prepared_sqlite_store(file, creates=creates, writes=writes), _default_artifact_root(artifact_root(file)):
        _open_store()
    if not creates:  # a training says it when it begins
        log_store_elsewhere()


def log_store_elsewhere() -> None:
    """Say which file the store is, if its address depends on the directory, and that is not the project's."""
    uri = current_uri()
    file = find_sqlite_file(uri)
    if file is not None and str(file) not in uri and file.parent != PROJECT:
        logger.info("the store is %s", file)


@contextmanager
def _default_artifact_root(root: Path) -> Iterator[None]:
    """Let MLflow's new experiments in a store that is opened inside the block have their files in ``root``.

    MLflow takes ``./mlruns``, wherever that is, unless this variable is set; it has no other setting for it.
    """
    os.environ[_SERVER_ARTIFACT_ROOT_ENV_VAR] = str(root)
    try:
        yield
    finally:
        del os.environ[_SERVER_ARTIFACT_ROOT_ENV_VAR]  # it also says that this process is a server


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
                check_server()
            return
        except MlflowException as error:
            if not is_outage(error) or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause *= 2


def get_client() -> RedactingClient:
    """Return a client of the store, to which no secret goes."""
    return UnityCatalogClient() if is_unity_catalog() else RedactingClient()


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
