"""Why a request to the store failed: an outage that passes, or a refusal; in plain words, with what to do."""

import errno
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException, RestException

from pipeline.files import FULL_DISK
from pipeline.redact import redact
from pipeline.tracking.artifact_failures import ArtifactError
from pipeline.tracking.failure_types import (
    ASK_ADMINISTRATOR,
    CHECK_ADDRESS,
    Failure,
    StoreAway,
    format_seconds,
    outage,
    refusal,
)
from pipeline.tracking.http_failures import (
    explain_connection_error,
    explain_login,
    explain_permission,
    explain_ssl_error,
    explain_status,
    explain_web_page,
    is_web_page,
    read_body,
    read_status,
)
from pipeline.tracking.http_failures import is_timeout as is_request_timeout

# As a server says them: it answers HTTP 500 for INTERNAL_ERROR, which is read from the status.
BUSY_CODES = ("DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "TEMPORARILY_UNAVAILABLE")
AWAY_FOLDER = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT)  # of a folder in the network
BAD_ADDRESS = re.compile(r"(?:invalid|unsupported|parse)\b.{0,40}\bur[il]\b", re.IGNORECASE)
DATABASE_ERROR = re.compile(r"\((?:\w+\.)+(?P<name>\w+Error)\)")  # as SQLAlchemy writes it

__all__ = [
    "Failure",
    "StoreAway",
    "describe_failure",
    "describe_problem",
    "explain_failure",
    "explain_os_error",
    "format_seconds",
    "is_outage",
    "is_timeout",
]


def is_outage(error: BaseException) -> bool:
    """Return whether the store did not answer or could not work, and may answer later.

    A refusal, such as a missing permission, a bad value, or a file that is too large, is none.
    """
    return explain_failure(error).is_outage


def describe_failure(error: BaseException) -> str:
    """Return why a request to the store failed, in plain words, in one line, without secrets."""
    return explain_failure(error).reason


def describe_problem(error: BaseException) -> str:
    """Return why a request to the store failed, and, if waiting does not help, what to do; in one line."""
    failure = explain_failure(error)
    return failure.reason if failure.is_outage else f"{failure.reason} ({failure.advice})"


def explain_failure(error: BaseException) -> Failure:
    """Return why a request to the store failed, as the first of the errors says that tells."""
    for cause in _iterate_causes(error):
        failure = _explain(cause)
        if failure is not None:
            return replace(failure, reason=redact(failure.reason))
    failure = _explain_text(error)
    return replace(failure, reason=redact(failure.reason))


def is_timeout(error: BaseException) -> bool:
    """Return whether the store has perhaps got the request, and had not answered in time."""
    for cause in _iterate_causes(error):
        if isinstance(cause, requests.RequestException):
            return is_request_timeout(cause)
    return False


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it came from, also those that ``raise ... from None`` keeps from people."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _explain(error: BaseException) -> Failure | None:
    """Return what this one error tells; None if it tells nothing."""
    if isinstance(error, StoreAway):
        return outage(str(error))
    if isinstance(error, ArtifactError):
        return error.failure
    if isinstance(error, RestException):  # MLflow's server has answered
        return _explain_code(error)
    status = read_status(error)
    if status is not None:
        return explain_status(status, read_body(error))
    if isinstance(error, requests.RequestException):
        return explain_connection_error(error)
    if isinstance(error, sqlalchemy.exc.SQLAlchemyError | sqlite3.Error):
        return _explain_database_error(error)
    if isinstance(error, OSError):
        return explain_os_error(error)
    return None


# --- databases ------------------------------------------------------------------------------------------------------


def _explain_database_error(error: Exception) -> Failure:
    """Return what a database, or its driver, says: SQLAlchemy has it as ``orig``."""
    original = getattr(error, "orig", None)
    lines = str(error if original is None else original).splitlines()
    detail = lines[0] if lines else type(error).__name__
    text = detail.lower()
    if "database is locked" in text or "table is locked" in text:
        advice = "run again when that process is done, or stop it"
        return outage("the database of the store is locked by another process", advice)
    if re.search(r"\bfull\b|no space", text):
        return outage("the disk of the store is full", "free some space, then run again")
    if "readonly" in text or "read-only" in text:
        return refusal("the database of the store cannot be written", "make it writable for you")
    if "unable to open database file" in text:
        return refusal("the file of the store's database cannot be opened", "check that you may read and write it")
    if re.search("access denied|authentication failed|permission denied|command denied", text):
        return refusal(f"the database of the store refuses your account ({detail})", ASK_ADMINISTRATOR)
    if re.search("no such (table|column)|unknown column|doesn't exist|does not exist", text):
        return refusal(f"the database of the store has other tables ({detail})", "see mlflow db upgrade --help")
    outages = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)
    if isinstance(error, (*outages, sqlite3.OperationalError)):
        return outage(f"the database of the store does not work ({detail})")
    return refusal(f"the database of the store refuses it ({detail})")


# --- files ----------------------------------------------------------------------------------------------------------


def explain_os_error(error: OSError) -> Failure:
    """Return why a file of the store, or a connection to it, cannot be used."""
    where = f" {error.filename}" if error.filename else ""
    detail = error.strerror or str(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return outage(f"the store does not answer ({detail})")
    if error.errno in FULL_DISK:
        return outage(f"the disk of the store is full{where}", "free some space, then run again")
    if error.errno in AWAY_FOLDER:
        return outage(f"the folder of the store does not answer{where} ({detail})")
    return refusal(f"the store cannot use its file{where} ({detail})", "check that you may read and write it")


# --- what MLflow says -----------------------------------------------------------------------------------------------


def _explain_code(error: MlflowException) -> Failure:
    """Return what the code of MLflow's error tells, else its text."""
    code = error.error_code
    if code == "PERMISSION_DENIED":
        return explain_permission()
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return explain_login()
    if code in BUSY_CODES and isinstance(error, RestException):
        return outage("the store cannot do it now")
    if "not in a valid JSON format" in error.message:
        body = read_body(error)
        is_page = is_web_page(body)
        return explain_web_page(body) if is_page else refusal("what answers there is no MLflow server", CHECK_ADDRESS)
    text = error.message.splitlines()[0] if error.message else code
    return _explain_message(text.removeprefix(f"{code}: ").rstrip("."))


def _explain_text(error: BaseException) -> Failure:
    """Return what an error tells that has no cause which is known."""
    if isinstance(error, MlflowException):
        return _explain_code(error)
    lines = str(error).splitlines()
    return refusal(lines[0] if lines else type(error).__name__)


def _explain_message(text: str) -> Failure:
    """Return what MLflow's message tells: as it is, unless it repeats what a library has said."""
    if BAD_ADDRESS.search(text):  # the message repeats it, with the password
        return refusal("the address of the store is wrong", CHECK_ADDRESS)
    if "SSLError" in text:
        return explain_ssl_error(text)
    if "failed with exception" in text or "failed with timeout exception" in text:
        return outage("the store does not answer")
    if "Failed to download artifacts" in text:  # MLflow does not keep why
        return refusal("a file is missing, or the store does not hand it out", "look in mlflow ui whether it exists")
    if text.startswith("Response: "):
        return refusal("what answers there is no MLflow server", CHECK_ADDRESS)
    database_error = DATABASE_ERROR.search(text)
    if database_error:
        if database_error["name"] == "OperationalError":
            return outage("the database of the store does not work")
        return refusal(f"the database of the store refuses it ({database_error['name']})")
    return refusal(text)
