"""Trainings on digits that are interrupted, and what an uninterrupted one gives."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.pipelines import build_once
from support.scripts import ScriptProcess, call_main

EPOCHS = 12
OPTIONS = ("--dataset", "digits", "--epochs", EPOCHS)


@dataclass(frozen=True)
class Reference:
    """What the uninterrupted training gave: the SHA-256 of its weights, and the loss of each epoch."""

    sha256: str
    losses: list[float]


def train_reference(factory: pytest.TempPathFactory, empty_store: Path) -> Reference:
    """Return what a training with `OPTIONS` gives; it is trained once for all tests."""

    def build(folder: Path) -> Reference:
        import pytorch_demo

        shutil.copy(empty_store, folder / "mlflow.db")
        run_id = call_main(pytorch_demo.main, *OPTIONS, folder=folder).json["run_id"]
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        return Reference(read_sha256(client, run_id), read_losses(client, run_id))

    _, result = build_once(factory, "uninterrupted", build)
    assert isinstance(result, Reference)
    return result


def read_sha256(client: MlflowClient, run_id: str) -> str:
    """Return the SHA-256 of the run's weights."""
    return str(client.get_run(run_id).data.tags["result.weights_sha256"])


def read_losses(client: MlflowClient, run_id: str) -> list[float]:
    """Return the training loss of each epoch; each epoch must stand there once, with all of its metrics."""
    for name in ("train_loss", "images_per_second"):
        points = sorted(client.get_metric_history(run_id, name), key=lambda point: point.step)
        assert [point.step for point in points] == list(range(1, len(points) + 1)), name
    points = sorted(client.get_metric_history(run_id, "train_loss"), key=lambda point: point.step)
    return [point.value for point in points]


def find_run_id(folder: Path) -> str | None:
    """Return the run of the checkpoint in ``folder``, or None before there is one."""
    files = list(folder.glob("checkpoints/*/last.pt"))
    return files[0].parent.name if files else None


def wait_for_checkpoint(folder: Path, process: ScriptProcess) -> str | None:
    """Wait for the first checkpoint, or for the end of the process; return the run."""
    while process.process.is_alive() and find_run_id(folder) is None:
        time.sleep(0.01)
    return find_run_id(folder)


def wait_for_epoch(process: ScriptProcess) -> None:
    """Wait for the first epoch, or for the end of the process."""
    while process.process.is_alive() and not _has_epoch(process.stderr):
        time.sleep(0.01)


def assert_complete(client: MlflowClient, folder: Path, run_id: str, reference: Reference) -> None:
    """Check that the training is as if it had not been interrupted: one run, model and version, each epoch once."""
    run = client.get_run(run_id)
    experiment = [run.info.experiment_id]
    assert run.info.status == "FINISHED"
    assert read_sha256(client, run_id) == reference.sha256
    assert read_losses(client, run_id) == reference.losses
    assert len(client.get_metric_history(run_id, "test_accuracy")) == 1
    assert [found.info.run_id for found in client.search_runs(experiment)] == [run_id]
    (version,) = client.search_model_versions(f"run_id = '{run_id}'")
    assert version.current_stage == "Staging"
    (model,) = client.search_logged_models(experiment, f"source_run_id = '{run_id}'")
    assert model.status == "READY"
    assert {metric.key for metric in model.metrics or []} >= {"test_accuracy", "test_loss"}
    assert {file.path for file in client.list_artifacts(run_id)} >= {"confusion_matrix.png", "training_curves.png"}
    assert not (folder / "checkpoints").exists()


def _has_epoch(stderr: Path) -> bool:
    return stderr.exists() and "epoch 1:" in stderr.read_text()
