from pathlib import Path

import pytest

import compare
import pytorch_demo
from pipeline.errors import UserError
from pipeline.tracking.environment import check_environment, find_experiment_name
from pipeline.tracking.store import get_client
from support.scripts import call_main

SERVER, DATABASE = "http://127.0.0.1:5000", "sqlite:///mlflow.db"


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MLFLOW_ENABLE_ASYNC_LOGGING", "true", "is on, so nobody would know what the store took; unset it"),
        ("MLFLOW_ENABLE_ASYNC_LOGGING", "perhaps", "is not true or false"),
        ("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "", "is not true or false"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "yes", "is not true or false"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "often", "is not a number"),
        ("MLFLOW_ACTIVE_MODEL_ID", "m-1", "would link metrics to a model"),
        ("MLFLOW_REGISTRY_URI", "sqlite:///registry.db", "names another store than MLFLOW_TRACKING_URI"),
        ("MLFLOW_RUN_CONTEXT", "{", "is no JSON object"),
        ("MLFLOW_RUN_CONTEXT", "[1]", "is no JSON object"),
        ("MLFLOW_WORKSPACE", "team", "chooses a workspace of a server, and this store is a database"),
    ],
)
def test_variable_that_cannot_be_obeyed_is_refused(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"the variable {name} {words}"):
        check_environment(DATABASE)


@pytest.mark.parametrize(
    ("name", "value", "uri"),
    [
        ("MLFLOW_ENABLE_ASYNC_LOGGING", "False", DATABASE),
        ("MLFLOW_REGISTRY_URI", "", DATABASE),
        ("MLFLOW_REGISTRY_URI", SERVER, SERVER),
        ("MLFLOW_REGISTRY_URI", "databricks-uc", "databricks"),
        ("MLFLOW_RUN_CONTEXT", '{"team": "vision"}', DATABASE),
        ("MLFLOW_WORKSPACE", "team", SERVER),
        ("MLFLOW_TRACKING_TOKEN", "x" * 20, SERVER),
    ],
)
def test_variable_that_mlflow_obeys_is_left_to_it(
    name: str, value: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    check_environment(uri)


def test_refused_variable_is_one_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_TCP_KEEPALIVE", "hunter2")
    result = call_main(compare.main)
    assert result.code == 2
    assert result.stderr == (
        "error: the variable MLFLOW_HTTP_TCP_KEEPALIVE is not true or false; correct or unset it\n"
    )


# --- obeyed ---------------------------------------------------------------------------------------------------------


def test_experiment_is_named_by_its_variables(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment_id = get_client().create_experiment("theirs")
    assert find_experiment_name() is None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    assert find_experiment_name() == "theirs"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert find_experiment_name() == "theirs"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "new")
    assert find_experiment_name() == "new"


def test_experiment_variables_must_agree(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    with pytest.raises(UserError, match="names the experiment 'Default', and MLFLOW_EXPERIMENT_NAME names 'theirs'"):
        find_experiment_name()


@pytest.mark.parametrize("experiment_id", ["77", "theirs", " "])
def test_id_of_no_experiment_is_refused(experiment_id: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment_id)
    with pytest.raises(UserError, match="MLFLOW_EXPERIMENT_ID names no experiment of this store"):
        find_experiment_name()


def test_experiment_of_mlflow_run_is_that_of_its_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_RUN_ID", "8f1c")
    assert find_experiment_name() is None


def test_training_obeys_the_variables(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    options = pytorch_demo.parse_options([])
    pytorch_demo.obey_environment(options)
    assert (options.experiment, options.system_metrics) == ("theirs", True)


def test_option_wins_over_the_variable(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    options = pytorch_demo.parse_options(["--experiment", "pytorch-demo"])
    pytorch_demo.obey_environment(options)
    assert options.experiment == "pytorch-demo"


def test_comparison_obeys_the_variable(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_client().create_experiment("theirs")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert "no runs in the experiment 'theirs'" in call_main(compare.main).stdout
    assert "no runs in the experiment 'ours'" in call_main(compare.main, "--experiment", "ours").stdout
