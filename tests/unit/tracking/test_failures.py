"""What requests to the store really raise."""

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import IntegrityError, OperationalError

from pipeline.tracking.failures import describe_failure, explain_failure, is_outage, is_timeout
from pipeline.tracking.store import get_client, limit_requests
from support.outages import lock_database, run_http_server
from support.servers import find_free_port

ARTIFACT = "mlflow-artifacts:/0/1/artifacts"


def catch(request: Callable[[], object]) -> Exception:
    """Return what the request raises."""
    with pytest.raises(Exception) as caught, limit_requests(retries=0, timeout=1):
        request()
    return caught.value


def ask(uri: str, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """Return what a request to the server raises."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    return catch(get_client().search_experiments)


# --- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507])
def test_server_that_fails_is_an_outage(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_http_server(status) as uri:
        error = ask(uri, monkeypatch)
    assert is_outage(error)
    assert describe_failure(error) in (f"the store answers HTTP {status}", "the store cannot do it now")


@pytest.mark.parametrize("status", [400, 403, 404, 413])
def test_server_that_refuses_is_no_outage(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_http_server(status) as uri:
        assert not is_outage(ask(uri, monkeypatch))


def test_closed_port_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ask(f"http://127.0.0.1:{find_free_port()}", monkeypatch)
    assert is_outage(error)
    assert describe_failure(error) == "nothing answers at the address of the store"


def test_silent_server_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        error = ask(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
    assert is_outage(error)
    assert is_timeout(error)
    assert describe_failure(error) == "the store does not answer in time"


def test_server_of_another_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_http_server(200) as uri:
        error = ask(uri.replace("http:", "https:"), monkeypatch)
    assert not is_outage(error)
    assert describe_failure(error).startswith("no secure connection: SSLError")


@pytest.mark.parametrize(
    ("status", "outage", "reason"),
    [
        (413, False, "the server, or a proxy before it, refuses files of this size (HTTP 413)"),
        (503, True, "the store answers HTTP 503"),
        (401, False, "it does not accept your name and password"),
        (403, False, "a proxy or a firewall before the store refuses it (HTTP 403)"),
    ],
)
def test_refused_upload_is_described(status: int, outage: bool, reason: str, tmp_path: Path) -> None:
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    file = tmp_path / "model.pt2"
    file.write_text("weights")
    with run_http_server(status) as uri:
        repository = HttpArtifactRepository(f"{uri}/api/2.0/mlflow-artifacts/artifacts/1")
        error = catch(lambda: repository.log_artifact(str(file)))
    assert (is_outage(error), describe_failure(error)) == (outage, reason)


@pytest.mark.parametrize(
    ("code", "outage"),
    [
        ("TEMPORARILY_UNAVAILABLE", True),
        ("RESOURCE_EXHAUSTED", True),
        ("PERMISSION_DENIED", False),
        ("INVALID_PARAMETER_VALUE", False),
        ("RESOURCE_DOES_NOT_EXIST", False),
    ],
)
def test_code_of_the_server_tells_an_outage(code: str, outage: bool) -> None:
    assert is_outage(RestException({"error_code": code, "message": "no"})) == outage


# --- databases ------------------------------------------------------------------------------------------------------


def test_locked_database_is_an_outage(store: Path) -> None:
    get_client().search_experiments()
    with lock_database(store):
        error = catch(get_client().search_experiments)
    assert is_outage(error)
    assert describe_failure(error) == "the database of the store is locked by another process"


@pytest.mark.parametrize(
    ("message", "outage", "reason"),
    [
        ("database or disk is full", True, "the disk of the store is full"),
        ("attempt to write a readonly database", False, "the database of the store cannot be written"),
        ("unable to open database file", False, "the file of the store's database cannot be opened"),
        ("no such table: runs", False, "the database of the store has other tables (no such table: runs)"),
        ("(2013, 'Lost connection')", True, "the database of the store does not work ((2013, 'Lost connection'))"),
        ("(1045, 'Access denied')", False, "the database of the store refuses your account ((1045, 'Access denied'))"),
    ],
)
def test_failure_of_a_database_is_described(message: str, outage: bool, reason: str) -> None:
    error = MlflowException("Query-invoked autoflush")
    error.__cause__ = OperationalError("INSERT", {}, Exception(message))
    assert (is_outage(error), describe_failure(error)) == (outage, reason)


def test_message_of_a_library_is_not_repeated() -> None:
    texts = (
        "(raised as a result of Query-invoked autoflush) (sqlite3.OperationalError) database is locked",
        "API request to http://host/api failed with exception HTTPConnectionPool(host='host'): Max retries exceeded",
    )
    assert describe_failure(MlflowException(texts[0])) == "the database of the store does not work"
    assert describe_failure(MlflowException(texts[1])) == "the store does not answer"


def test_conflict_in_the_database_is_no_outage() -> None:
    assert not is_outage(IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed")))


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "outage", "reason"),
    [
        (errno.ENOSPC, True, "the disk of the store is full a/b"),
        (errno.ESTALE, True, "the folder of the store does not answer a/b (Stale file handle)"),
        (errno.ECONNRESET, True, "the store does not answer (Connection reset by peer)"),
        (errno.EACCES, False, "the store cannot use its file a/b (Permission denied)"),
    ],
)
def test_failure_of_a_folder_is_described(number: int, outage: bool, reason: str) -> None:
    import os

    error = OSError(number, os.strerror(number), "a/b")
    assert (is_outage(error), describe_failure(error)) == (outage, reason)


# --- words ----------------------------------------------------------------------------------------------------------


def test_message_of_mlflow_loses_its_code() -> None:
    error = RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid name.\nMore."})
    assert describe_failure(error) == "Invalid name"


def test_reason_has_no_password() -> None:
    error = requests.exceptions.SSLError("SSLError: https://me:secret@host")
    assert "secret" not in describe_failure(error)


def test_other_errors_say_what_they_say() -> None:
    failure = explain_failure(ValueError("too few images\nat line 3"))
    assert (failure.is_outage, failure.reason) == (False, "too few images")
    assert describe_failure(ValueError()) == "ValueError"
