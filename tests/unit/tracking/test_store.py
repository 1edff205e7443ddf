import os
import re
import socket
from pathlib import Path

import mlflow
import pytest
import requests
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, UNAUTHENTICATED

from pipeline.errors import UserError
from pipeline.tracking import sqlite_file
from pipeline.tracking import store as tracking_store
from pipeline.tracking.failures import StoreAway
from pipeline.tracking.sqlite_file import sqlite_init_lock
from pipeline.tracking.store import connect, get_client, limit_requests, retry_on_conflict
from support.outages import FailingRequest, lock_database, run_http_server
from support.servers import find_free_port

# --- connect --------------------------------------------------------------------------------------------------------


def test_connecting_creates_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with connect(creates=True) as address:
        assert [experiment.name for experiment in get_client().search_experiments()] == ["Default"]
    assert address == "sqlite:///mlflow.db"
    assert (tmp_path / "mlflow.db").is_file()


@pytest.mark.parametrize("scheme", ["http", "mysql+pymysql", "postgresql"])
def test_silent_port_is_named_without_password(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = find_free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:secret@127.0.0.1:{port}/x")
    address = re.escape(f"{scheme}://127.0.0.1:{port}")
    with pytest.raises(UserError, match=f"nothing answers at {address}") as error, connect():
        pass
    assert "secret" not in str(error.value)


def test_silent_server_is_given_up_within_fifteen_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_store.FIRST_REQUEST_TIMEOUT < 15  # seconds, which the docstring promises
    monkeypatch.setattr(tracking_store, "FIRST_REQUEST_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        with (
            pytest.raises(UserError, match=f"http://127.0.0.1:{port}: the store does not answer in time") as error,
            connect(),
        ):
            pass
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("path", ["absent/mlflow.db", "folder"])
def test_unusable_database_path_is_named(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{path}")
    with pytest.raises(UserError, match=str(tmp_path / path)), connect(creates=True):
        pass


def test_locked_database_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "TIMEOUT", 0.1)
    expected = (
        r"mlflow\.db: the database of the store is locked by another process; run again when that process is done"
    )
    with lock_database(store), pytest.raises(UserError, match=expected), connect():
        pass


def test_starting_server_gets_a_few_more_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_http_server(503, 502, 200) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with connect() as address:
            assert address == uri


def test_server_that_stays_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "FIRST_REQUEST_TIMEOUT", 1)
    with run_http_server(503) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError, match=f"{uri}: the store answers HTTP 503; run again when it works"), connect():
            pass


def test_file_that_is_no_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="file is not a database"), connect(creates=True):
        pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MlflowException("no", PERMISSION_DENIED), "your account may not do this; ask its administrator"),
        (MlflowException("no", UNAUTHENTICATED), "does not accept your name and password; check MLFLOW_TRACKING_USER"),
        (MlflowException("x (Caused by SSLError('wrong'))"), r"no secure connection: SSLError\('wrong; check the addr"),
        (MlflowException("name too long\ndetails"), "name too long; check MLFLOW_TRACKING_URI and your input"),
        (requests.ConnectionError("(Query-invoked)"), "the connection to the store broke off; run again when it works"),
        (StoreAway(300, "the store answers HTTP 503"), "it did not work for 5 minutes: the store answers HTTP 503"),
    ],
)
def test_failure_of_the_store_becomes_one_line(store: Path, error: Exception, text: str) -> None:
    with pytest.raises(UserError, match=text), connect():
        raise error


def test_database_locked_later_is_one_line(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = "the database of the store is locked by another process"
    with pytest.raises(UserError, match=expected), connect(), lock_database(store):
        get_client().search_experiments()
    assert capfd.readouterr().err == ""


def test_missing_file_of_a_script_stays_an_error(store: Path) -> None:
    with pytest.raises(FileNotFoundError), connect():
        Path("absent").read_text()


# --- one process at a time makes the tables -------------------------------------------------------------------------


def test_tables_wait_for_the_process_that_creates_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "INIT_LOCK_TIMEOUT", 0.1)
    file = tmp_path / "mlflow.db"
    other_process = FileLock(tmp_path / "mlflow.db.lock")
    held = pytest.raises(UserError, match=r"another process has held .*mlflow\.db\.lock")
    with other_process, held, sqlite_init_lock(file):
        pass
    with sqlite_init_lock(file):
        assert (tmp_path / "mlflow.db.lock").exists()


def test_read_only_directory_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock) -> None:
        raise PermissionError(lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with sqlite_init_lock(tmp_path / "mlflow.db"):
        pass
    assert not list(tmp_path.iterdir())


# --- requests -------------------------------------------------------------------------------------------------------


def test_request_limits_end_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with limit_requests(retries=0, timeout=5):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("not yet", PERMISSION_DENIED),
        MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed"),
        MlflowException("Model Version creation error (name=x). Giving up after 3 attempts."),
    ],
)
def test_conflicts_are_retried(error: MlflowException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "RETRY_PAUSES", (0, 0))
    request = FailingRequest(error, error)
    assert retry_on_conflict(request) == "done"
    assert request.count == 3


def test_a_lasting_conflict_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "RETRY_PAUSES", (0, 0))
    request = FailingRequest(*[MlflowException("never", PERMISSION_DENIED)] * 3)
    with pytest.raises(MlflowException, match="never"):
        retry_on_conflict(request)


def test_other_errors_are_not_retried() -> None:
    request = FailingRequest(MlflowException("bad", INVALID_PARAMETER_VALUE))
    with pytest.raises(MlflowException, match="bad"):
        retry_on_conflict(request)
    assert request.count == 1


# --- settings -------------------------------------------------------------------------------------------------------


def test_requests_end_within_minutes() -> None:
    variables = mlflow.environment_variables
    assert variables.MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 15
    assert variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 5
    assert not variables.MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.get()


def test_mlflow_reports_nothing_and_loads_no_pickle() -> None:
    assert mlflow.environment_variables.MLFLOW_DISABLE_TELEMETRY.get()
    assert not mlflow.environment_variables.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get()
