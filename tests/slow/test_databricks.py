"""Databricks as far as it can be tried without it: MLflow's client of Unity Catalog, and a stand-in that refuses."""

import shutil
from collections.abc import Iterator
from contextlib import chdir

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import promote
import pytorch_demo
from pipeline.errors import UserError
from pipeline.tracking import registry, runs
from pipeline.tracking.unity_catalog import MAX_TAG_LENGTH
from support.accounts import act_as
from support.databricks import Databricks, run_databricks
from support.pipelines import PipelineRun, copy_digits_pipeline
from support.scripts import Result, call_main

NAME = "main.default.digits"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> PipelineRun:
    return copy_digits_pipeline(tmp_path_factory)


@pytest.fixture(scope="module")
def databricks(pipeline: PipelineRun) -> Iterator[Databricks]:
    with run_databricks(pipeline.folder) as stand_in:
        yield stand_in


@pytest.fixture
def client(databricks: Databricks) -> Iterator[None]:
    """Make this process a client of it."""
    with act_as({**databricks.environment, "EXPERIMENT_DIR": "/Shared"}):
        yield


@pytest.fixture(scope="module")
def promoted(databricks: Databricks, pipeline: PipelineRun) -> Result:
    """Register the model of the pipeline in Unity Catalog, and promote it."""
    with act_as({**databricks.environment, "EXPERIMENT_DIR": "/Shared"}), chdir(pipeline.folder):
        sha256 = runs.get_run(pipeline.run_id).data.tags["result.model_sha256"]
        shutil.copytree("mlruns", "kept")
        registry.register_model(NAME, pipeline.model_uri, pipeline.run_id, sha256)
        # MLflow deletes the folder that it has registered from, which it takes for a download.
        shutil.copytree("kept", "mlruns", dirs_exist_ok=True)
        reason = "a long reason " * 100
        return call_main(promote.main, "--run-id", pipeline.run_id, "--model-name", NAME, "--reason", reason)


def test_stand_in_refuses_what_databricks_refuses(client: None, promoted: Result) -> None:
    plain = MlflowClient()
    with pytest.raises(MlflowException, match="must be an absolute path"):
        plain.create_experiment("demo")
    with pytest.raises(MlflowException, match="specify all three levels"):
        plain.create_registered_model("digits")
    with pytest.raises(MlflowException, match="unsupported for models in the Unity Catalog"):
        plain.transition_model_version_stage(NAME, "1", "Production")
    with pytest.raises(MlflowException, match="contains one or more of the reserved characters"):
        plain.set_registered_model_tag(NAME, "a.b", "c")


def test_version_is_promoted_by_its_alias(client: None, promoted: Result) -> None:
    assert promoted.code == 0, promoted.stderr
    assert registry.alias_version(NAME) == 1
    history = call_main(promote.main, "--history", "--json", "--model-name", NAME).json["history"]
    assert [row["version"] for row in history] == [1]


def test_decision_fits_a_tag_of_unity_catalog(client: None, promoted: Result) -> None:
    (row,) = call_main(promote.main, "--history", "--json", "--model-name", NAME).json["history"]
    assert row["reason"].startswith("a long reason a long reason")
    assert len(row["reason"]) < MAX_TAG_LENGTH


def test_reports_are_in_the_folder_of_experiments(client: None, promoted: Result) -> None:
    run = runs.get_run(promoted.json["decision_run_id"])
    experiment = MlflowClient().get_experiment(run.info.experiment_id)
    assert experiment.name == f"/Shared/{NAME}-promotions"


def test_compare_has_the_champion_of_unity_catalog(client: None, promoted: Result, pipeline: PipelineRun) -> None:
    assert registry.describe_stages()[pipeline.run_id] == f"{NAME} 1 Production"


def test_files_of_the_version_are_in_unity_catalog(databricks: Databricks, promoted: Result) -> None:
    assert f"/files/Models/{NAME.replace('.', '/')}/1/MLmodel" in databricks.files


def test_model_name_without_a_schema_ends_before_training(client: None) -> None:
    error = call_main(pytorch_demo.main, "--dataset", "digits").error
    assert "models in Unity Catalog have names of three levels, and 'digits-classifier' is none" in error


def test_relative_experiment_name_says_what_to_set(client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPERIMENT_DIR")
    with pytest.raises(UserError, match=r"takes only absolute paths .* 'demo' is none; set EXPERIMENT_DIR"):
        runs.get_or_create_experiment("demo")
