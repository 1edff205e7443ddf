"""promote.py that dies at any of its writes: it has decided or nothing has moved, and nothing is doubled."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

import promote
from pipeline.promotion import lock
from pipeline.promotion.decisions import list_decisions
from pipeline.promotion.lock import read_tickets
from pipeline.tracking import registry, tags
from support.pipelines import PipelineRun
from support.promotions import (
    NAME,
    check_agreement,
    create_foreign_lock,
    describe_dead_process,
    list_kinds,
    read_decision_runs,
)
from support.scripts import ROOT, Result, call_main, run_script
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


@dataclass(frozen=True)
class Death:
    """A call of promote.py that died, and the next one.

    Attributes
    ----------
    write : at which it died.
    champion : the version in Production then.
    kinds : of the decisions then.
    next : what the same call did afterwards.
    """

    write: str
    champion: int | None
    kinds: list[str]
    next: Result


def kill_at_each_step(database: Path, folder: Path, *options: str) -> Iterator[Death]:
    """Let promote.py die at its first write, then at its second, and so on, each time on a copy of the store."""
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
        champion, kinds = registry.alias_version(NAME), list_kinds()
        yield Death(writes[step - 1], champion, kinds, call_main(promote.main, *options))
    pytest.fail(f"promote.py has not ended after {MAX_STEPS} writes")


def read_outcome() -> list[str]:
    """Return the kinds of the decisions; check that nothing is left open."""
    decisions = list_decisions(NAME)
    statuses = {run.info.run_id: run.info.status for run in read_decision_runs()}
    finished = {run_id for run_id, status in statuses.items() if status == "FINISHED"}
    assert finished == {decision.decision_run_id for decision in decisions}
    assert set(statuses.values()) <= {"FINISHED", "KILLED"}
    assert read_tickets(NAME) == []
    assert "decision.pending" not in tags.read_model_tags(NAME)
    numbers = [decision.number for decision in decisions]
    assert numbers == sorted(set(numbers))
    return [decision.kind for decision in decisions]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_killed_promotion_took_effect_or_moved_nothing(digits_pipeline: PipelineRun, work: Path) -> None:
    writes = []
    for death in kill_at_each_step(digits_pipeline.folder / "before.db", work, *PROMOTION):
        writes.append(death.write)
        # in force as soon as the alias has moved, also before anybody has completed it
        assert (death.champion, death.kinds) in [(None, []), (1, ["promoted"])], death
        expected = ["promoted"] if death.champion is None else ["promoted", "unchanged"]
        assert (death.next.code, read_outcome()) == (0, expected), death
        check_agreement(1)
        assert registry.get_version(NAME, 1).tags["gate.decision"] == "promoted"
    assert {"create_experiment", "create_run", "log_batch", "log_text"} <= set(writes)
    assert {"set_registered_model_alias", "transition_model_version_stage", "set_terminated"} <= set(writes)
    assert writes[:2] == ["set_registered_model_tag"] * 2  # the ticket
    assert writes[-1] == "delete_registered_model_tag"


def test_killed_rollback_took_effect_or_moved_nothing(digits_pipeline: PipelineRun, work: Path) -> None:
    database = digits_pipeline.folder / "mlflow.db"
    use_store(database)
    number = register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    assert call_main(promote.main, "--model-name", NAME, "--version", number).code == 0
    writes = []
    for death in kill_at_each_step(database, work, "--rollback", "--to", "1", "--reason", "test"):
        writes.append(death.write)
        before = ["promoted", "promoted"]
        assert (death.champion, death.kinds) in [(2, before), (1, [*before, "rolled back"])], death
        # the second call rolls back, or finds that this is done
        assert death.next.code == (0 if death.champion == 2 else 2), death
        assert read_outcome() == [*before, "rolled back"], death
        check_agreement(1)
    assert "set_registered_model_alias" in writes


def test_killed_refusal_is_recorded_or_not(digits_pipeline: PipelineRun, work: Path) -> None:
    options = (*PROMOTION, "--min-accuracy", "0.9999")
    for death in kill_at_each_step(digits_pipeline.folder / "before.db", work, *options):
        assert (death.champion, death.next.code) == (None, 1), death
        assert death.kinds in ([], ["refused"]), death
        assert read_outcome() == [*death.kinds, "refused"], death
        assert registry.get_version(NAME, 1).tags["gate.decision"] == "refused"


def test_killed_unlock_leaves_a_usable_lock(digits_pipeline: PipelineRun, work: Path) -> None:
    database = digits_pipeline.folder / "mlflow.db"
    use_store(database)
    create_foreign_lock()
    for death in kill_at_each_step(database, work, "--unlock", "--reason", "test"):
        # the second call unlocks, or finds that this is done
        assert death.next.code in (0, 2), death
        # the process that died before it had a number holds nobody up
        assert call_main(promote.main, *PROMOTION, "--wait", 0).code == 0
        kinds = read_outcome()
        assert (kinds[0], kinds[-1]) == ("promoted", "unchanged"), death
        assert set(kinds[1:-1]) <= {"unlocked"}, death
        check_agreement(1)


KILLED_SCRIPT = """
import os, signal, sys
sys.path.insert(0, {root!r})
import promote
from mlflow import MlflowClient

{method} = MlflowClient.{name}
def die(*arguments):
    {before}
    os.kill(os.getpid(), signal.SIGKILL)
MlflowClient.{name} = die
promote.main()
"""


@pytest.mark.parametrize("has_moved", [False, True])
def test_promotion_killed_by_the_system(digits_pipeline: PipelineRun, work: Path, has_moved: bool) -> None:
    """SIGKILL in a real process, just before or just after the alias moves."""
    folder = digits_pipeline.folder
    shutil.copy(folder / "before.db", folder / "mlflow.db")
    script = work / "killed.py"
    before = "move(*arguments)" if has_moved else "pass"
    names = {"method": "move", "name": "set_registered_model_alias", "before": before}
    script.write_text(KILLED_SCRIPT.format(root=str(ROOT), **names))
    assert run_script(folder, str(script), *PROMOTION).code == -9
    use_store(folder / "mlflow.db")
    assert len(read_tickets(NAME)) == 1

    result = run_script(folder, "promote.py", *PROMOTION)
    assert (result.code, result.json["decision"]) == (0, "unchanged" if has_moved else "promoted")
    assert "has ended; its lock of digits-classifier is removed" in result.stderr
    assert read_outcome() == (["promoted", "unchanged"] if has_moved else ["promoted"])
    check_agreement(1)
