"""maintain_store.py: what the store is, upgrade it, let it name the files beside it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

import evaluate
import maintain_store
import pytorch_demo
from support.pipelines import PipelineRun
from support.scripts import call_main
from support.stores import create_older_store, lock_database, read_revision


def test_store_in_order_is_described(digits_pipeline: PipelineRun) -> None:
    folder = digits_pipeline.folder
    result = call_main(maintain_store.main, folder=folder)
    assert (result.code, result.json["problems"]) == (0, [])
    assert result.json["schema"] == result.json["mlflow_schema"]
    (location,) = result.json["artifact_locations"]
    assert (location["folder"], location["place"]) == (f"{folder}/mlruns", "beside")


def test_moved_store_is_relocated(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    moved = digits_pipeline.folder.rename(tmp_path / "moved")
    refused = call_main(pytorch_demo.main, "--dataset", "digits", folder=moved)
    assert "the experiment 'pytorch-demo' keeps its files in" in refused.error
    assert call_main(maintain_store.main, folder=moved).code == 1

    relocated = call_main(maintain_store.main, "--relocate", folder=moved)
    assert (relocated.code, relocated.json["stayed"], relocated.json["problems"]) == (0, [], [])
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        assert str(digits_pipeline.folder) not in "\n".join(database.iterdump())
    with closing(sqlite3.connect(relocated.json["copy"])) as copy:
        assert str(digits_pipeline.folder) in "\n".join(copy.iterdump())
    again = call_main(evaluate.main, "--run-id", digits_pipeline.run_id, "--log-mlflow", folder=moved)
    assert (again.code, again.json["test_accuracy"]) == (0, digits_pipeline.evaluated.json["test_accuracy"])
    assert not digits_pipeline.folder.exists()
    assert call_main(maintain_store.main, "--relocate", folder=moved).json["copy"] is None


def test_paths_stay_while_files_are_elsewhere(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    shutil.copy(digits_pipeline.folder / "mlflow.db", tmp_path)
    result = call_main(maintain_store.main, "--relocate", folder=tmp_path)
    assert result.code == 1
    assert f"copy that folder into {tmp_path}/mlruns, then run this again" in result.stderr
    assert f"{digits_pipeline.folder}/mlruns/1" in [move["from"] for move in result.json["stayed"]]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        (location,) = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 1").fetchone()
    assert location == f"{digits_pipeline.folder}/mlruns/1"


def test_missing_files_are_named(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    moved = digits_pipeline.folder.rename(tmp_path / "moved")
    shutil.rmtree(moved / "mlruns" / "1" / digits_pipeline.run_id)
    result = call_main(maintain_store.main, "--relocate", folder=moved)
    assert result.code == 0
    assert f"the first that is missing is 1/{digits_pipeline.run_id}" in result.stderr


def test_location_that_a_person_chose_stays(store: Path) -> None:
    chosen = ["s3://bucket/runs", "mlflow-artifacts:/7", "/data/art", "file://[bad", "file:///other%20place/mlruns/4"]
    for number, location in enumerate(chosen):
        MlflowClient().create_experiment(f"n{number}", "/data/art")
        with closing(sqlite3.connect(store / "mlflow.db")) as database, database:
            database.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (location, f"n{number}"))
    result = call_main(maintain_store.main, "--relocate")
    assert result.code == 0
    experiments = {found.name: found.artifact_location for found in MlflowClient().search_experiments()}
    assert [experiments[f"n{number}"] for number in range(4)] == chosen[:4]
    assert experiments["n4"] == f"file://{store}/mlruns/4"


def test_older_store_is_upgraded_once(tmp_path: Path) -> None:
    create_older_store(tmp_path / "mlflow.db")
    described = call_main(maintain_store.main, folder=tmp_path)
    assert (described.code, described.json["schema"]) == (1, "0584bdc529eb")
    upgraded = call_main(maintain_store.main, "--upgrade", folder=tmp_path)
    assert (upgraded.code, upgraded.json["schema"]) == (0, upgraded.json["mlflow_schema"])
    assert read_revision(Path(upgraded.json["copy"])) == "0584bdc529eb"
    assert call_main(maintain_store.main, "--upgrade", folder=tmp_path).json["upgraded"] is False


@pytest.mark.parametrize("option", ["--upgrade", "--relocate"])
def test_store_on_a_server_is_refused(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://me:secret@db/x")
    error = call_main(maintain_store.main, option).error
    assert "mysql+pymysql://db/x: this is no SQLite file, and only its administrator" in error


def test_missing_store_is_named(tmp_path: Path) -> None:
    assert f"there is no store at {tmp_path}/mlflow.db yet" in call_main(maintain_store.main, folder=tmp_path).error
    assert not list(tmp_path.iterdir())


def test_locked_store_is_one_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.sqlite_file.TIMEOUT", 0.1)
    with lock_database(store / "mlflow.db"):
        error = call_main(maintain_store.main, "--upgrade").error
    assert "the database of the store is locked by another process" in error
