import os
import re
import socket
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, UNAUTHENTICATED

from pipeline.errors import UserError
from pipeline.tracking import store as tracking_store
from pipeline.tracking.store import connect, get_client, limit_requests, retry_on_conflict, sqlite_init_lock
from support.servers import find_free_port

# --- connect --------------------------------------------------------------------------------------------------------


def test_connecting_creates_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with connect() as address:
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


def test_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_store.FIRST_REQUEST_TIMEOUT < 15  # seconds, which the docstring promises
    monkeypatch.setattr(tracking_store, "FIRST_REQUEST_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        with pytest.raises(UserError, match=f"http://127.0.0.1:{port}: .*timed out") as error, connect():
            pass
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("path", ["absent/mlflow.db", "folder"])
def test_unusable_database_path_is_named(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{path}")
    with pytest.raises(UserError, match=str(tmp_path / path)), connect():
        pass


def test_file_that_is_no_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="file is not a database"), connect():
        pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MlflowException("no", PERMISSION_DENIED), "your account may not do this; ask its administrator"),
        (MlflowException("no", UNAUTHENTICATED), "does not accept your name and password; check MLFLOW_TRACKING_USER"),
        (MlflowException("x (Caused by SSLError('wrong'))"), r"no secure connection: SSLError\('wrong; check the addr"),
        (MlflowException("name too long\ndetails"), "name too long; check MLFLOW_TRACKING_URI and your input"),
    ],
)
def test_refusal_of_the_store_becomes_one_line(store: Path, error: MlflowException, text: str) -> None:
    with pytest.raises(UserError, match=text), connect():
        raise error


# --- one process at a time makes the tables -------------------------------------------------------------------------


def test_tables_wait_for_the_process_that_creates_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "INIT_LOCK_TIMEOUT", 0.1)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    other_process = FileLock(tmp_path / "mlflow.db.lock")
    held = pytest.raises(UserError, match=r"another process has held .*mlflow\.db\.lock")
    with other_process, held, sqlite_init_lock(uri):
        pass
    with sqlite_init_lock(uri):
        assert (tmp_path / "mlflow.db.lock").exists()


def test_read_only_directory_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lock: FileLock) -> None:
        raise PermissionError(lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with sqlite_init_lock(f"sqlite:///{tmp_path}/mlflow.db"):
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


class Request:
    """A request that fails with each of ``errors`` in turn, then succeeds."""

    def __init__(self, *errors: MlflowException) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


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
    request = Request(error, error)
    assert retry_on_conflict(request) == "done"
    assert request.count == 3


def test_a_lasting_conflict_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "RETRY_PAUSES", (0, 0))
    request = Request(*[MlflowException("never", PERMISSION_DENIED)] * 3)
    with pytest.raises(MlflowException, match="never"):
        retry_on_conflict(request)


def test_other_errors_are_not_retried() -> None:
    request = Request(MlflowException("bad", INVALID_PARAMETER_VALUE))
    with pytest.raises(MlflowException, match="bad"):
        retry_on_conflict(request)
    assert request.count == 1


# --- settings -------------------------------------------------------------------------------------------------------


def test_mlflow_reports_nothing_and_loads_no_pickle() -> None:
    assert mlflow.environment_variables.MLFLOW_DISABLE_TELEMETRY.get()
    assert not mlflow.environment_variables.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get()
