"""Why a request to the store failed: an outage that passes, or a refusal; in plain words, with what to do."""

import errno
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

import requests
import sqlalchemy.exc
import urllib3.exceptions
from mlflow.exceptions import MlflowException, RestException

from pipeline.files import FULL_DISK
from pipeline.redact import redact

AWAY_STATUSES = (408, 425, 429)  # HTTP; with all from 500
# As a server says them: it answers HTTP 500 for INTERNAL_ERROR, which is read from the status.
BUSY_CODES = ("DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "TEMPORARILY_UNAVAILABLE")
AWAY_FOLDER = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT)  # of a folder in the network
# MLflow keeps the status of an error page in its text only; the third form is in its list of failed downloads.
HTTP_STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses|(\d{3}) \w+ Error: ")
BAD_ADDRESS = re.compile(r"(?:invalid|unsupported|parse)\b.{0,40}\bur[il]\b", re.IGNORECASE)
DATABASE_ERROR = re.compile(r"\((?:\w+\.)+(?P<name>\w+Error)\)")  # as SQLAlchemy writes it

CHECK_ADDRESS = "check MLFLOW_TRACKING_URI"
CHECK_INPUT = "check MLFLOW_TRACKING_URI and your input"
RUN_AGAIN = "run again when it works"
ASK_ADMINISTRATOR = "ask its administrator"


@dataclass(frozen=True)
class Failure:
    """Why a request to the store failed.

    Attributes
    ----------
    is_outage : whether the store may take the same request later.
    reason : in plain words, without secrets, in one line.
    advice : what to do.
    """

    is_outage: bool
    reason: str
    advice: str


class StoreAway(Exception):  # noqa: N818 - it is a state of the store
    """The store did not answer for as long as there was patience.

    Attributes
    ----------
    seconds : that were spent on waiting.
    reason : why the last request failed, in plain words.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(f"it did not work for {format_seconds(seconds)}: {reason}")
        self.seconds = seconds
        self.reason = reason


def is_outage(error: BaseException) -> bool:
    """Return whether the store did not answer or could not work, and may answer later.

    A refusal, such as a missing permission, a bad value, or a file that is too large, is none.
    """
    return explain_failure(error).is_outage


def describe_failure(error: BaseException) -> str:
    """Return why a request to the store failed, in plain words, in one line, without secrets."""
    return explain_failure(error).reason


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
            return _is_timeout(cause)
    return False


def format_seconds(seconds: float) -> str:
    """Return a duration for people, such as "5 minutes" or "12 seconds"."""
    count, unit = (seconds, "second") if seconds < 90 else (seconds / 60, "minute")
    return f"{count:.0f} {unit}" if round(count) == 1 else f"{count:.0f} {unit}s"


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it came from, also those that ``raise ... from None`` keeps from people."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _explain(error: BaseException) -> Failure | None:
    """Return what this one error tells; None if it tells nothing."""
    if isinstance(error, StoreAway):
        return _outage(str(error))
    if isinstance(error, RestException):  # MLflow's server has answered
        return _explain_code(error)
    status = _read_status(error)
    if status is not None:
        return _explain_status(status)
    if isinstance(error, requests.RequestException):
        return _explain_connection_error(error)
    if isinstance(error, sqlalchemy.exc.SQLAlchemyError | sqlite3.Error):
        return _explain_database_error(error)
    if isinstance(error, OSError):
        return _explain_os_error(error)
    return None


def _outage(reason: str, advice: str = RUN_AGAIN) -> Failure:
    return Failure(is_outage=True, reason=reason, advice=advice)


def _refusal(reason: str, advice: str = CHECK_INPUT) -> Failure:
    return Failure(is_outage=False, reason=reason, advice=advice)


# --- servers --------------------------------------------------------------------------------------------------------


def _read_status(error: BaseException) -> int | None:
    """Return the HTTP status that the error is about, or None."""
    response = getattr(error, "response", None)
    if isinstance(error, requests.HTTPError) and response is not None:
        return int(response.status_code)
    if isinstance(error, MlflowException | requests.exceptions.RetryError):
        match = HTTP_STATUS.search(str(error))
        if match:
            return int(match[1] or match[2] or match[3])
    return None


def _explain_status(status: int) -> Failure:
    if status == 401:
        return _explain_login()
    if status == 403:
        return _explain_permission()
    if status == 413:
        reason = "the server, or a proxy before it, refuses files of this size (HTTP 413)"
        return _refusal(reason, "let its administrator raise the limit, such as nginx's client_max_body_size")
    if status in AWAY_STATUSES or status >= 500:
        return _outage(f"the store answers HTTP {status}")
    return _refusal(f"the store answers HTTP {status}", CHECK_ADDRESS)


def _explain_login() -> Failure:
    advice = "check MLFLOW_TRACKING_USERNAME and _PASSWORD"
    return _refusal("it does not accept your name and password", advice)


def _explain_permission() -> Failure:
    return _refusal("your account may not do this", ASK_ADMINISTRATOR)


def _explain_connection_error(error: requests.RequestException) -> Failure:
    reason = _read_reason(error)
    if isinstance(error, requests.exceptions.SSLError):
        return _explain_ssl_error(str(error))
    if isinstance(error, ValueError | requests.TooManyRedirects):
        return _refusal("the address of the store is wrong", CHECK_ADDRESS)
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return _outage("the host of the store is not found", f"{RUN_AGAIN}, or {CHECK_ADDRESS}")
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return _outage("nothing answers at the address of the store")
    if _is_timeout(error):
        return _outage("the store does not answer in time")
    return _outage("the connection to the store broke off")


def _is_timeout(error: requests.RequestException) -> bool:
    return isinstance(error, requests.Timeout) or isinstance(_read_reason(error), urllib3.exceptions.ReadTimeoutError)


def _read_reason(error: requests.RequestException) -> object:
    """Return the last of the errors that urllib3 counted before it gave up, or None."""
    first = error.args[0] if error.args else None
    return getattr(first, "reason", first)


def _explain_ssl_error(text: str) -> Failure:
    """Return why there is no secure connection: a certificate stays wrong, a connection that broke off does not."""
    start = max(text.find("SSLError"), text.find("SSLCertVerificationError"), 0)
    detail = text[start:].rstrip(")'\"")
    advice = "check the address, the certificate, or MLFLOW_TRACKING_SERVER_CERT_PATH"
    explain = _outage if "EOF" in text else _refusal
    return explain(f"no secure connection: {detail}", advice)


# --- databases ------------------------------------------------------------------------------------------------------


def _explain_database_error(error: Exception) -> Failure:
    """Return what a database, or its driver, says: SQLAlchemy has it as ``orig``."""
    original = getattr(error, "orig", None)
    lines = str(error if original is None else original).splitlines()
    detail = lines[0] if lines else type(error).__name__
    text = detail.lower()
    if "database is locked" in text or "table is locked" in text:
        advice = "run again when that process is done, or stop it"
        return _outage("the database of the store is locked by another process", advice)
    if re.search(r"\bfull\b|no space", text):
        return _outage("the disk of the store is full", "free some space, then run again")
    if "readonly" in text or "read-only" in text:
        return _refusal("the database of the store cannot be written", "make it writable for you")
    if "unable to open database file" in text:
        return _refusal("the file of the store's database cannot be opened", "check that you may read and write it")
    if re.search("access denied|authentication failed|permission denied|command denied", text):
        return _refusal(f"the database of the store refuses your account ({detail})", ASK_ADMINISTRATOR)
    if re.search("no such (table|column)|unknown column|doesn't exist|does not exist", text):
        return _refusal(f"the database of the store has other tables ({detail})", "see mlflow db upgrade --help")
    outages = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)
    if isinstance(error, (*outages, sqlite3.OperationalError)):
        return _outage(f"the database of the store does not work ({detail})")
    return _refusal(f"the database of the store refuses it ({detail})")


# --- files ----------------------------------------------------------------------------------------------------------


def _explain_os_error(error: OSError) -> Failure:
    where = f" {error.filename}" if error.filename else ""
    detail = error.strerror or str(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return _outage(f"the store does not answer ({detail})")
    if error.errno in FULL_DISK:
        return _outage(f"the disk of the store is full{where}", "free some space, then run again")
    if error.errno in AWAY_FOLDER:
        return _outage(f"the folder of the store does not answer{where} ({detail})")
    return _refusal(f"the store cannot use its file{where} ({detail})", "check that you may read and write it")


# --- what MLflow says -----------------------------------------------------------------------------------------------


def _explain_code(error: MlflowException) -> Failure:
    """Return what the code of MLflow's error tells, else its text."""
    code = error.error_code
    if code == "PERMISSION_DENIED":
        return _explain_permission()
    if code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return _explain_login()
    if code in BUSY_CODES and isinstance(error, RestException):
        return _outage("the store cannot do it now")
    text = error.message.splitlines()[0] if error.message else code
    return _explain_message(text.removeprefix(f"{code}: ").rstrip("."))


def _explain_text(error: BaseException) -> Failure:
    """Return what an error tells that has no cause which is known."""
    if isinstance(error, MlflowException):
        return _explain_code(error)
    lines = str(error).splitlines()
    return _refusal(lines[0] if lines else type(error).__name__)


def _explain_message(text: str) -> Failure:
    """Return what MLflow's message tells: as it is, unless it repeats what a library has said."""
    if BAD_ADDRESS.search(text):  # the message repeats it, with the password
        return _refusal("the address of the store is wrong", CHECK_ADDRESS)
    if "SSLError" in text:
        return _explain_ssl_error(text)
    if "failed with exception" in text or "failed with timeout exception" in text:
        return _outage("the store does not answer")
    if "Failed to download artifacts" in text:  # MLflow does not keep why
        return _refusal("a file is missing, or the store does not hand it out", "look in mlflow ui whether it exists")
    if "not in a valid JSON format" in text or text.startswith("Response: "):
        return _refusal("what answers there is no MLflow server", CHECK_ADDRESS)
    database_error = DATABASE_ERROR.search(text)
    if database_error:
        if database_error["name"] == "OperationalError":
            return _outage("the database of the store does not work")
        return _refusal(f"the database of the store refuses it ({database_error['name']})")
    return _refusal(text)
