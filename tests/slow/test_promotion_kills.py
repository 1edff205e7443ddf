"""promote.py that dies at any of its steps: the next call completes what it began, and nothing is doubled."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

import promote
from pipeline.promotion import lock
from pipeline.promotion.lock import read_lock_owner
from support.pipelines import PipelineRun
from support.promotions import (
    NAME,
    check_agreement,
    create_foreign_lock,
    describe_dead_process,
    list_kinds,
    read_decision_runs,
)
from support.scripts import ROOT, call_main, run_script
from support.stores import register_once_more

WRITES = ("create_", "set_", "log_", "update_", "delete_", "transition_", "rename_", "restore_")
MAX_STEPS = 100
PROMOTION = ("--model-name", NAME, "--version", "1")


class ProcessDied(BaseException):
    """The process was killed: it writes nothing more."""


@contextmanager
def die_at_write(step: int) -> Iterator[list[str]]:
    """Let every write to the store fail from this one on; yield the list of the writes that were tried."""
    writes: list[str] = []

    def watch(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            writes.append(name)
            if len(writes) >= step:
                raise ProcessDied(name)
            return write(*args, **kwargs)

        return watched

    dead_process = describe_dead_process()
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(lock, "describe_process", lambda: dead_process)
        for name in dir(MlflowClient):
            if name.startswith(WRITES):
                patches.setattr(MlflowClient, name, watch(name, getattr(MlflowClient, name)))
        yield writes


def use_store(database: Path) -> None:
    """Make the SQLite file the store of this process."""
    uri = f"sqlite:///{database}"
    mlflow.set_tracking_uri(uri)
    os.environ["MLFLOW_TRACKING_URI"] = uri  # tests/conftest.py restores it


def kill_at_each_step(database: Path, folder: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Let promote.py die at its first write, then at its second, and so on, each time on a copy of the store.

    After each, call it again, and yield the write at which it died, and the exit code of the second call.
    """
    for step in range(1, MAX_STEPS):
        copy = Path(shutil.copy(database, folder / f"{step}.db"))
        use_store(copy)
        with die_at_write(step) as writes:
            try:
                call_main(promote.main, *options)
            except ProcessDied:
                pass
            else:
                return
        yield writes[step - 1], call_main(promote.main, *options).code
    pytest.fail(f"promote.py has not ended after {MAX_STEPS} writes")


def read_outcome(known: int) -> list[str | None]:
    """Return the kinds of the decisions after the first ``known``; check that no run or lock is left open."""
    decision_runs = read_decision_runs()
    kinds = [kind for kind in list_kinds(decision_runs) if kind is not None]
    statuses = [run.info.status for run in decision_runs]
    assert statuses.count("FINISHED") == len(kinds)
    assert set(statuses) <= {"FINISHED", "KILLED"}  # KILLED: it had not decided
    assert read_lock_owner(NAME) is None
    return list(kinds[known:])


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_killed_promotion_is_completed(digits_pipeline: PipelineRun, work: Path) -> None:
    writes = []
    for write, code in kill_at_each_step(digits_pipeline.folder / "before.db", work, *PROMOTION):
        writes.append(write)
        check_agreement(1)
        # decided once, by the call that died or by the next one, which then finds it in Production
        assert (code, read_outcome(0)) in [(0, ["promoted"]), (0, ["promoted", "unchanged"])], write
    assert {"create_experiment", "create_run", "log_batch", "log_text"} <= set(writes)
    assert {"set_registered_model_alias", "transition_model_version_stage", "set_terminated"} <= set(writes)
    assert writes[-1] == "delete_experiment"  # the lock


def test_killed_rollback_is_completed(digits_pipeline: PipelineRun, work: Path) -> None:
    database = digits_pipeline.folder / "mlflow.db"
    use_store(database)
    number = register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    assert call_main(promote.main, "--model-name", NAME, "--version", number).code == 0
    writes = []
    for write, code in kill_at_each_step(database, work, "--rollback", "--to", "1", "--reason", "test"):
        writes.append(write)
        check_agreement(1)
        # the second call rolls back, or finds that this is done
        assert code in (0, 2), write
        assert read_outcome(2) == ["rolled back"], write
    assert "set_registered_model_alias" in writes


def test_killed_unlock_leaves_a_usable_lock(digits_pipeline: PipelineRun, work: Path) -> None:
    database = digits_pipeline.folder / "mlflow.db"
    use_store(database)
    create_foreign_lock()
    for write, code in kill_at_each_step(database, work, "--unlock", "--reason", "test"):
        # the second call unlocks, or finds that this is done
        assert code in (0, 2), write
        assert read_lock_owner(NAME) is None
        assert call_main(promote.main, *PROMOTION).code == 0
        assert read_outcome(1) in (["unchanged"], ["unlocked", "unchanged"]), write
        check_agreement(1)


KILLED_SCRIPT = """
import os, signal, sys
sys.path.insert(0, {root!r})
import promote
from mlflow import MlflowClient

MlflowClient.set_registered_model_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
promote.main()
"""


def test_promotion_killed_by_the_system_is_completed(digits_pipeline: PipelineRun, work: Path) -> None:
    """SIGKILL in a real process, after the decision and before the alias moves."""
    folder = digits_pipeline.folder
    shutil.copy(folder / "before.db", folder / "mlflow.db")
    script = work / "killed.py"
    script.write_text(KILLED_SCRIPT.format(root=str(ROOT)))
    assert run_script(folder, str(script), *PROMOTION).code == -9
    use_store(folder / "mlflow.db")
    assert read_lock_owner(NAME) is not None

    result = run_script(folder, "promote.py", *PROMOTION)
    assert (result.code, result.json["decision"]) == (0, "unchanged")
    assert "has ended; its lock of digits-classifier is removed" in result.stderr
    assert read_outcome(0) == ["promoted", "unchanged"]
    check_agreement(1)
