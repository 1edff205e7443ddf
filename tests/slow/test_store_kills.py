"""A kill or a full disk in the middle of an upgrade or a relocation: the store is as before, and its copy is there."""

import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import maintain_store
from support.pipelines import PipelineRun
from support.scripts import ROOT, call_main
from support.stores import create_older_store, read_revision

# Kills itself before the last statements of the transaction, when most is written.
KILLED_SCRIPT = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event

def kill(*arguments):
    if sys.argv[3] in arguments[2]:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "after_cursor_execute", kill)
from pipeline.tracking import relocation, sqlite_store
{"upgrade": sqlite_store.upgrade_store, "relocate": relocation.relocate}[sys.argv[1]](Path(sys.argv[2]))
"""
CREATED_LATE = "CREATE TABLE workspaces"


def run_until_killed(action: str, file: Path, statement: str) -> None:
    command = [sys.executable, "-c", KILLED_SCRIPT, action, str(file), statement]
    assert subprocess.run(command, cwd=ROOT, timeout=200).returncode == -signal.SIGKILL


def dump(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        return "\n".join(database.iterdump())


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_killed_upgrade_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    create_older_store(file)
    before = dump(file)
    run_until_killed("upgrade", file, CREATED_LATE)
    assert dump(file) == before
    (copy,) = tmp_path.glob("mlflow.db.*.backup")
    assert dump(copy) == before
    assert call_main(maintain_store.main, "--upgrade", folder=tmp_path).code == 0


def test_killed_relocation_changes_nothing(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    moved = digits_pipeline.folder.rename(tmp_path / "moved")
    before = dump(moved / "mlflow.db")
    run_until_killed("relocate", moved / "mlflow.db", "UPDATE model_versions")
    assert dump(moved / "mlflow.db") == before
    (copy,) = moved.glob("mlflow.db.*.backup")
    assert dump(copy) == before
    assert call_main(maintain_store.main, "--relocate", folder=moved).code == 0


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    create_older_store(file)
    with limited_file_size(file.stat().st_size // 2):
        result = call_main(maintain_store.main, "--upgrade", folder=tmp_path)
    assert result.code == 2, result
    assert read_revision(file) == "0584bdc529eb"
    assert not list(tmp_path.glob("*.backup"))
