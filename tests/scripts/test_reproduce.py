"""pytorch_demo.py --reproduce on digits."""

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

import pytorch_demo
from support.pipelines import PipelineRun, copy_digits_pipeline
from support.scripts import Result, call_main


def open_store(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def reproduce(pipeline: PipelineRun, run_id: str | None = None) -> Result:
    return call_main(pytorch_demo.main, "--reproduce", run_id or pipeline.run_id, folder=pipeline.folder)


def change_store(folder: Path, statement: str, *values: str) -> None:
    """Change what the store says of its runs, which MLflow itself does not allow."""
    database = sqlite3.connect(folder / "mlflow.db")
    with database:
        database.execute(statement, values)
    database.close()


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineRun, Result]:
    """Return what the three scripts made of digits, and what --reproduce said of the training."""
    pipeline = copy_digits_pipeline(tmp_path_factory)
    return pipeline, reproduce(pipeline)


def test_same_training_gives_identical_weights(reproduced: tuple[PipelineRun, Result]) -> None:
    pipeline, result = reproduced
    assert result.code == 0, result.stderr
    assert result.json["identical"] is True
    assert result.json["reproduces"] == pipeline.run_id
    assert "identical" in result.stderr.splitlines()


def test_new_run_names_the_original(reproduced: tuple[PipelineRun, Result]) -> None:
    pipeline, result = reproduced
    client = open_store(pipeline.folder)
    assert client.get_run(result.json["run_id"]).data.tags["reproduces"] == pipeline.run_id
    assert len(client.search_model_versions()) == 1  # nothing new is registered


@pytest.mark.parametrize("model", ["resnet", "mlp"])
def test_options_come_from_the_run(model: str, digits_pipeline: PipelineRun) -> None:
    options = f"--dataset digits --model {model} --epochs 1 --limit 400 --seed 5 --lr 0.002 --augment flip erase"
    trained = call_main(pytorch_demo.main, *options.split(), "--no-register", folder=digits_pipeline.folder)
    result = reproduce(digits_pipeline, trained.json["run_id"])
    assert (result.code, result.json["identical"]) == (0, True), result.stderr
    client = open_store(digits_pipeline.folder)
    original, again = (client.get_run(run.json["run_id"]).data.params for run in (trained, result))
    assert again == original


def test_different_result_is_explained(digits_pipeline: PipelineRun) -> None:
    update_param = "UPDATE params SET value = ? WHERE key = ?"
    update_tag = "UPDATE tags SET value = ? WHERE key = ?"
    change_store(digits_pipeline.folder, update_param, "1", "seed")
    change_store(digits_pipeline.folder, update_param, "1", "epochs")
    change_store(digits_pipeline.folder, update_tag, "c0ffee", "code.commit")
    change_store(digits_pipeline.folder, update_tag, "Z80", "environment.cpu")
    result = reproduce(digits_pipeline)
    assert (result.code, result.json["identical"]) == (1, False)
    assert f"warning: this is not the code of run {digits_pipeline.run_id}: commit c0ffee" in result.stderr
    assert result.json["largest_difference"] > 0
    assert result.json["weight"]
    assert "test_loss" in result.json["metrics"]
    assert "training_seconds" not in result.json["metrics"]
    assert result.json["circumstances"]["environment.cpu"][0] == "Z80"
    assert result.json["circumstances"]["code.commit"][0] == "c0ffee"


def test_other_data_are_refused(digits_pipeline: PipelineRun) -> None:
    change_store(digits_pipeline.folder, "UPDATE params SET value = ? WHERE key = ?", "f00d", "train_digest")
    assert "the data are not those of run" in reproduce(digits_pipeline).error


def test_incomplete_record_is_refused(digits_pipeline: PipelineRun) -> None:
    change_store(digits_pipeline.folder, "DELETE FROM params WHERE key = ?", "lr")
    error = reproduce(digits_pipeline).error
    assert f"run {digits_pipeline.run_id}: the parameters lack lr" in error
