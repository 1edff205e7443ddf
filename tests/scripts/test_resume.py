"""pytorch_demo.py --resume, --from and --keep on digits: what goes on, what is refused, what is kept."""

import json
import os
import shutil
import signal
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

import lineage
import pytorch_demo
from pipeline.context import describe_process
from support.pipelines import PipelineRun, build_once, copy_stores
from support.scripts import Result, call_main, start_script
from support.stores import open_store, read_run_statuses
from support.trainings import OPTIONS, Reference, assert_complete, train_reference, wait_for_epoch


@dataclass(frozen=True)
class Interrupted:
    """A directory of the test's own with a training that SIGTERM has stopped, and that training's run."""

    folder: Path
    run_id: str

    def resume(self, *options: object, run_id: str | None = None) -> Result:
        return call_main(pytorch_demo.main, "--resume", run_id or self.run_id, *options, folder=self.folder)


@pytest.fixture
def reference(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Reference:
    return train_reference(tmp_path_factory, empty_store)


@pytest.fixture
def interrupted(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Interrupted:
    def build(folder: Path) -> str:
        shutil.copy(empty_store, folder / "mlflow.db")
        process = start_script(folder, "pytorch_demo.py", *OPTIONS, "--log-checkpoints")
        wait_for_epoch(process)
        os.kill(process.process.pid or 0, signal.SIGTERM)
        assert process.wait().code == 143
        (checkpoints,) = (folder / "checkpoints").iterdir()
        return checkpoints.name

    source, run_id = build_once(tmp_path_factory, "interrupted", build)
    return Interrupted(copy_stores(source, tmp_path_factory.mktemp("interrupted")), run_id)


# --- go on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", [None, "last"])
def test_resumed_training_is_as_if_never_stopped(
    interrupted: Interrupted, reference: Reference, run_id: str | None
) -> None:
    result = interrupted.resume(run_id=run_id)
    assert result.json["run_id"] == interrupted.run_id
    assert f"run {interrupted.run_id}: cnn on digits" in result.stderr
    assert "it goes on after epoch" in result.stderr
    assert_complete(open_store(interrupted.folder), interrupted.folder, interrupted.run_id, reference)


def test_missing_checkpoint_comes_from_the_artifacts(interrupted: Interrupted, reference: Reference) -> None:
    shutil.rmtree(interrupted.folder / "checkpoints")
    assert interrupted.resume().code == 0
    assert_complete(open_store(interrupted.folder), interrupted.folder, interrupted.run_id, reference)


def test_resumption_is_recorded(interrupted: Interrupted) -> None:
    before = open_store(interrupted.folder).get_run(interrupted.run_id).data.tags
    interrupted.resume()
    tags = open_store(interrupted.folder).get_run(interrupted.run_id).data.tags
    assert tags["invocation.command"] == before["invocation.command"]
    assert "after epoch" in tags["resumed.1"]
    answers = call_main(lineage.main, "--run-id", interrupted.run_id, folder=interrupted.folder)
    assert tags["resumed.1"] in " ".join(answers.stdout.split())


def test_options_of_the_training_may_be_repeated(interrupted: Interrupted) -> None:
    assert interrupted.resume(*OPTIONS, "--augment", "affine", "--device", "auto").code == 0


# --- refuse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--lr", 0.5), "--lr 0.5 contradicts the training, which has 0.01; leave it out"),
        (("--batch-size", 64), "--batch-size 64 contradicts the training, which has 256"),
        (("--augment", "none"), "--augment none contradicts the training, which has affine"),
        (("--model-name", "other"), "--model-name other contradicts the training, which has digits-classifier"),
        (("--no-register",), "--no-register contradicts the training"),
        (("--epochs", 40), "whose learning rate is one cycle of 12 epochs; leave it out, or train on in a new run"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_contradicting_option_is_refused(interrupted: Interrupted, options: tuple[object, ...], expected: str) -> None:
    assert expected in interrupted.resume(*options).error
    assert read_run_statuses(interrupted.folder) == ["KILLED"]


def test_finished_run_is_refused(digits_pipeline: PipelineRun) -> None:
    result = call_main(pytorch_demo.main, "--resume", digits_pipeline.run_id, folder=digits_pipeline.folder)
    assert (
        f"is FINISHED; to train on, start a new run from its weights with --from {digits_pipeline.run_id}"
        in result.error
    )


def test_living_run_is_refused(interrupted: Interrupted) -> None:
    change = "UPDATE tags SET value = ? WHERE key = 'invocation.process'"
    with sqlite3.connect(interrupted.folder / "mlflow.db") as database:
        database.execute(change, (describe_process(),))
        database.execute("UPDATE runs SET status = 'RUNNING'")
    database.close()
    assert f"is still training, in process {os.getpid()}; stop it first" in interrupted.resume().error


@pytest.mark.parametrize(
    ("run_id", "expected"),
    [
        ("../../etc", "'../../etc' is no run id"),
        ("f00d", "there is no run 'f00d' in this store"),
    ],
)
def test_unknown_run_is_refused(interrupted: Interrupted, run_id: str, expected: str) -> None:
    assert expected in interrupted.resume(run_id=run_id).error
    assert [path.name for path in (interrupted.folder / "checkpoints").iterdir()] == [interrupted.run_id]


def test_directory_without_checkpoints_is_named(tmp_path: Path, interrupted: Interrupted) -> None:
    result = interrupted.resume("--checkpoint-dir", tmp_path / "nowhere", run_id="last")
    assert f"there is no checkpoint in {tmp_path}/nowhere" in result.error


def test_other_data_are_refused(interrupted: Interrupted) -> None:
    import torch

    file = interrupted.folder / "checkpoints" / interrupted.run_id / "last.pt"
    content = torch.load(file, weights_only=True)
    job = json.loads(content["job"])
    job["digests"]["train_digest"] = "f00d"
    torch.save(content | {"job": json.dumps(job)}, file)
    assert f"the data are not those of run {interrupted.run_id} (train_digest" in interrupted.resume().error


def test_damaged_checkpoint_is_refused(interrupted: Interrupted) -> None:
    (interrupted.folder / "checkpoints" / interrupted.run_id / "last.pt").write_bytes(b"damaged")
    assert "last.pt is damaged" in interrupted.resume().error


# --- an earlier run -------------------------------------------------------------------------------------------------


def test_training_starts_from_the_weights_of_a_run(digits_pipeline: PipelineRun) -> None:
    folder, run_id = digits_pipeline.folder, digits_pipeline.run_id
    options = ("--dataset", "digits", "--epochs", 1, "--lr", 1e-4)
    trained = call_main(pytorch_demo.main, "--from", run_id, *options, folder=folder)
    run = open_store(folder).get_run(trained.json["run_id"])
    assert run.info.run_id != run_id
    assert run.data.params["from_run"] == run_id
    assert run.data.metrics["train_accuracy"] > 0.95
    again = call_main(pytorch_demo.main, "--reproduce", run.info.run_id, folder=folder)
    assert (again.code, again.json["identical"]) == (0, True), again.stderr


def test_weights_of_another_network_are_refused(digits_pipeline: PipelineRun) -> None:
    options = ("--dataset", "digits", "--model", "mlp", "--from", digits_pipeline.run_id)
    error = call_main(pytorch_demo.main, *options, folder=digits_pipeline.folder).error
    assert f"the weights of run {digits_pipeline.run_id} do not fit" in error


@pytest.mark.parametrize("other", [("--from", "a"), ("--reproduce", "a")])
def test_two_earlier_runs_are_refused(interrupted: Interrupted, other: tuple[str, str]) -> None:
    assert "not allowed with argument" in interrupted.resume(*other).error


# --- what is kept ---------------------------------------------------------------------------------------------------


def train(folder: Path, empty_store: Path, *options: object) -> Result:
    shutil.copy(empty_store, folder / "mlflow.db")
    return call_main(pytorch_demo.main, "--dataset", "digits", *options, folder=folder)


def test_best_weights_are_tested_and_logged(tmp_path: Path, empty_store: Path) -> None:
    import torch

    from pipeline.provenance.record import compute_weights_sha256

    options = ("--lr", 0.03, "--epochs", 20, "--keep-checkpoints")  # the best of 20 epochs is about the tenth
    hashes = {}
    for keep in ("last", "best"):
        run_id = train(tmp_path, empty_store, *options, "--keep", keep).json["run_id"]
        run = open_store(tmp_path).get_run(run_id)
        hashes[keep] = run.data.tags["result.weights_sha256"]
    content = torch.load(tmp_path / "checkpoints" / run_id / "best.pt", weights_only=True)
    weights = content["model"]
    name = next(name for name, tensor in weights.items() if name.startswith("2."))
    weights[name] = torch.tensor(run.data.metrics["temperature"])
    assert content["epoch"] < 20, "the last epoch is the best, so this test shows nothing"
    assert compute_weights_sha256(weights) == hashes["best"] != hashes["last"]
    assert run.data.params["keep"] == "best"


def test_kept_checkpoints_are_all_that_remains(tmp_path: Path, empty_store: Path) -> None:
    run_id = train(tmp_path, empty_store, "--epochs", 2, "--keep-checkpoints").json["run_id"]
    names = {file.name for file in (tmp_path / "checkpoints" / run_id).iterdir()}
    assert names - {".lock"} == {"last.pt", "best.pt"}


def test_nothing_remains_by_default(tmp_path: Path, empty_store: Path) -> None:
    assert train(tmp_path, empty_store, "--epochs", 1, "--no-checkpoint").code == 0
    assert {path.name for path in tmp_path.iterdir()} - {"mlflow.db.lock"} == {"mlflow.db", "mlruns"}


def test_unwritable_checkpoint_directory_is_named(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    result = train(tmp_path, empty_store, "--epochs", 1)
    assert result.code == 2
    assert "cannot write to checkpoints/" in result.stderr
    assert "choose another --checkpoint-dir" in result.stderr
    assert read_run_statuses(tmp_path) == ["FAILED"]
