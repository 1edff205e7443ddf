import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking.sqlite_file import absolute_uri, copy_database, find_sqlite_file, open_database
from pipeline.tracking.store import connect, get_client


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("sqlite:///x.db?timeout=60", "x.db"),
        ("sqlite:///a%20b.db", "a b.db"),
        ("sqlite:///a b.db", "a b.db"),
        ("sqlite+pysqlite:///x.db", "x.db"),
        ("sqlite:///{folder}/100%25.db?timeout=60", "100%.db"),
    ],
)
def test_probe_lock_and_store_use_one_file(
    uri: str, name: str, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(folder=tmp_path))
    with connect():
        get_client().create_experiment("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.lock"]
    with closing(sqlite3.connect(name)) as database:
        assert ("new",) in database.execute("SELECT name FROM experiments").fetchall()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:x", "this is no address of a SQLite file"),
        ("sqlite://host/x.db", "this is no address of a SQLite file"),
        ("sqlite+aiosqlite:///x.db", "this is no address of a SQLite file"),
        ("SQLITE:///x.db", "this is no address of a SQLite file"),
        ("sqlite://", "this store is in memory and is lost at the end"),
        ("sqlite:///:memory:", "this store is in memory and is lost at the end"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "MLflow needs a path, not a file: address"),
    ],
)
def test_address_that_mlflow_cannot_use_is_refused(
    uri: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=f"{reason}; set MLFLOW_TRACKING_URI to sqlite:///"), connect(creates=True):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.db", "a b.db", "ä.db", "100%.db", "a?b.db", "a#b.db"])
def test_absolute_address_names_the_same_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    uri = absolute_uri("sqlite:///x.db?timeout=60", file)
    assert find_sqlite_file(uri) == file
    assert uri.endswith("?timeout=60")


def test_copy_has_the_write_ahead_log(empty_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(empty_store, file)
    with closing(sqlite3.connect(file)) as other:  # as a process that goes on has it
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("INSERT INTO experiments (experiment_id, name) VALUES (7, 'in the log')")
        other.commit()
        copy = copy_database(file)
        alone = shutil.copy(copy, tmp_path / "alone.db")
    with closing(sqlite3.connect(alone)) as database:
        assert ("in the log",) in database.execute("SELECT name FROM experiments").fetchall()


def test_opening_a_database_creates_no_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="unable to open database file"), open_database(tmp_path / "absent.db"):
        pass
    assert not list(tmp_path.iterdir())
