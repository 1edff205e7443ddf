"""Trainings that are killed or stopped, and resumed: nothing is lost, and the weights are the same.

KILLS and SIGNALS say how many times; the random moments follow from their numbers.
"""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from support.scripts import Result, ScriptProcess, start_script
from support.stores import open_store, read_run_ids, read_run_statuses
from support.trainings import OPTIONS, Reference, assert_complete, find_run_id, train_reference, wait_for_checkpoint

KILLS = int(os.environ.get("KILLS", "3"))
SIGNALS = int(os.environ.get("SIGNALS", "1"))
LONGEST_LIFE = 4.0  # seconds from the first checkpoint to a kill


@pytest.fixture
def reference(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Reference:
    return train_reference(tmp_path_factory, empty_store)


def send(folder: Path, process: ScriptProcess, seconds: float, number: int) -> Result:
    """Send a signal some seconds after the first checkpoint, if the training is still alive."""
    wait_for_checkpoint(folder, process)
    process.process.join(seconds)
    if process.process.is_alive():
        assert process.process.pid
        os.kill(process.process.pid, number)
    return process.wait()


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_training_gives_the_same_weights(
    tmp_path: Path, empty_store: Path, reference: Reference, seed: int
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    moments = random.Random(seed)
    life = moments.uniform(0, LONGEST_LIFE)
    result = send(tmp_path, start_script(tmp_path, "pytorch_demo.py", *OPTIONS), life, signal.SIGKILL)
    while result.code == -signal.SIGKILL:
        process = start_script(tmp_path, "pytorch_demo.py", "--resume", "last")
        result = send(tmp_path, process, 2 + moments.uniform(0, LONGEST_LIFE), signal.SIGKILL)
    if result.code == 2:  # it was killed after the end of the run: before its checkpoints were removed, or after
        assert "is FINISHED" in result.stderr or "there is no checkpoint" in result.stderr, result.stderr
        shutil.rmtree(tmp_path / "checkpoints")
    (run_id,) = read_run_ids(tmp_path)
    assert_complete(open_store(tmp_path), tmp_path, run_id, reference)


def test_kill_while_a_checkpoint_is_written_leaves_the_last_one(
    tmp_path: Path, empty_store: Path, reference: Reference
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    process = start_script(tmp_path, "pytorch_demo.py", *OPTIONS)
    run_id = wait_for_checkpoint(tmp_path, process)
    folder = tmp_path / "checkpoints" / str(run_id)
    while not list(folder.glob(".*/last.pt")):  # the new one, before it moves
        assert process.process.is_alive()
    process.process.kill()
    assert process.wait().code == -signal.SIGKILL
    resumed = start_script(tmp_path, "pytorch_demo.py", "--resume", run_id).wait()
    assert resumed.code == 0, resumed.stderr
    assert_complete(open_store(tmp_path), tmp_path, str(run_id), reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
@pytest.mark.parametrize("seed", range(SIGNALS))
def test_stopped_training_says_so_and_goes_on(
    tmp_path: Path, empty_store: Path, reference: Reference, number: signal.Signals, seed: int
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    life = random.Random(seed * 100 + number).uniform(0, 3)
    result = send(tmp_path, start_script(tmp_path, "pytorch_demo.py", *OPTIONS), life, number)
    (status,) = read_run_statuses(tmp_path)
    if result.code == 0:  # the signal came too late
        assert status == "FINISHED"
        return
    run_id = find_run_id(tmp_path)
    assert (result.code, result.stdout, status) == (128 + number, "", "KILLED"), result.stderr
    assert result.stderr.splitlines()[-1] == f"stopped; go on with: python pytorch_demo.py --resume {run_id}"
    resumed = start_script(tmp_path, "pytorch_demo.py", "--resume", run_id).wait()
    assert_complete(open_store(tmp_path), tmp_path, resumed.json["run_id"], reference)
