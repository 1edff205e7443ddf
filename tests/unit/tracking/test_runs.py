import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow.entities import DatasetInput
from mlflow.store.tracking.dbmodels.models import SqlDataset
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.signals import Stopped
from pipeline.tracking import runs
from pipeline.tracking.store import get_client
from support.stores import add_experiments, overtaken_by

DATASET = Dataset(
    name="shapes/of/digits",
    images=torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
    labels=torch.tensor([0, 1]),
    classes=("cat", "dog"),
    source="https://example.org/digits",
)


def read_status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


def read_inputs(run_id: str) -> Sequence[DatasetInput]:
    inputs = mlflow.get_run(run_id).inputs
    assert inputs is not None
    return inputs.dataset_inputs


def create_finished_run(experiment: str = "demo", **params: str) -> str:
    with runs.start_run(experiment, None) as run_id:
        runs.log_params(run_id, params)
    return run_id


# --- experiments ----------------------------------------------------------------------------------------------------


def test_missing_experiment_is_created_once(store: Path) -> None:
    assert runs.find_experiment("demo") is None
    experiment_id = runs.get_or_create_experiment("demo")
    assert runs.get_or_create_experiment("demo") == experiment_id
    assert runs.find_experiment("demo") == experiment_id
    assert runs.list_experiment_names() == ["demo", "Default"]


def test_names_of_thousands_of_experiments_are_listed(store: Path) -> None:
    add_experiments(store / "mlflow.db", 2500)
    names = runs.list_experiment_names()
    assert (len(names), len(set(names))) == (2501, 2501)  # with MLflow's Default


def test_run_joins_an_experiment_that_appears_meanwhile(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = SqlAlchemyStore.create_experiment

    def create_twice(*args: Any, **kwargs: Any) -> str:
        create(*args, **kwargs)
        return str(create(*args, **kwargs))

    create_finished_run("elsewhere")
    monkeypatch.setattr(SqlAlchemyStore, "create_experiment", create_twice)
    run_id = create_finished_run("demo")
    experiment_id = mlflow.get_run(run_id).info.experiment_id
    assert get_client().get_experiment(experiment_id).name == "demo"


def test_deleted_experiment_is_named_with_its_restoration(store: Path) -> None:
    create_finished_run("demo")
    experiment_id = runs.get_or_create_experiment("demo")
    get_client().delete_experiment(experiment_id)
    restore = f"mlflow experiments restore --experiment-id {experiment_id}"
    with pytest.raises(UserError, match=restore), runs.start_run("demo", None):
        pass


def test_active_experiment_is_told_from_others(store: Path) -> None:
    experiment_id = runs.get_or_create_experiment("demo")
    assert runs.is_active_experiment(experiment_id)
    assert not runs.is_active_experiment("99")
    get_client().delete_experiment(experiment_id)
    assert not runs.is_active_experiment(experiment_id)


# --- open and end runs ----------------------------------------------------------------------------------------------


def test_complete_run_is_finished(store: Path) -> None:
    with runs.start_run("demo", "a name") as run_id:
        assert read_status(run_id) == "RUNNING"
    assert read_status(run_id) == "FINISHED"
    assert mlflow.get_run(run_id).info.run_name == "a name"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(RuntimeError(), "FAILED"), (UserError(), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Stopped(15), "KILLED")],
)
def test_interrupted_run_is_not_finished(store: Path, error: BaseException, expected: str) -> None:
    with pytest.raises(type(error)), runs.start_run("demo", None) as run_id:
        raise error
    assert read_status(run_id) == expected


def test_run_of_mlflow_run_is_continued(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = get_client().create_run(runs.get_or_create_experiment("theirs")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with runs.start_run("ours", None) as active_run_id:
        assert active_run_id == run_id
    assert runs.find_experiment("ours") is None


def test_leftover_variable_of_a_lost_training_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = runs.create_run(runs.get_or_create_experiment("demo"), {})
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    words = f"names run {run_id}, in which another training began; unset it"
    with pytest.raises(UserError, match=words), runs.start_run("a", None):
        pass


def test_empty_variable_names_no_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    with runs.start_run("demo", None) as run_id:
        pass
    assert read_status(run_id) == "FINISHED"


def test_variable_of_another_run_is_a_warning(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = create_finished_run()
    monkeypatch.setenv("MLFLOW_RUN_ID", "c0ffee")
    with runs.start_run("demo", None, run_id=run_id) as resumed:
        assert resumed == run_id
    assert f"MLFLOW_RUN_ID names another run, which gets nothing: run {run_id} goes on" in caplog.text


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_leftover_variable_of_an_ended_run_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    run_id = create_finished_run()
    runs.end_run(run_id, status)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(UserError, match=f"names run {run_id}, which is {status}; unset it"), runs.start_run("a", None):
        pass


def test_reopened_run_keeps_its_name_and_is_finished(store: Path) -> None:
    with pytest.raises(KeyboardInterrupt), runs.start_run("demo", "a name") as run_id:
        raise KeyboardInterrupt
    with runs.start_run("ignored", None, run_id=run_id, tags={"invocation.process": "1"}) as reopened:
        assert (reopened, read_status(run_id)) == (run_id, "RUNNING")
    run = mlflow.get_run(run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["invocation.process"]) == ("FINISHED", "a name", "1")


def test_run_without_a_block_can_be_deleted(store: Path) -> None:
    run_id = runs.create_run(runs.get_or_create_experiment("demo"), {"kind": "decision"})
    assert mlflow.active_run() is None
    assert runs.get_run(run_id).data.tags["kind"] == "decision"
    runs.end_run(run_id, runs.KILLED)
    assert read_status(run_id) == "KILLED"
    runs.delete_run(run_id)
    with pytest.raises(UserError, match="was deleted"):
        runs.get_run(run_id)


# --- log ------------------------------------------------------------------------------------------------------------


def test_metrics_have_their_steps(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        for step in (2, 1):
            runs.log_metrics(run_id, {"train_loss": 1 / step}, step=step)
    histories = runs.get_metric_histories(run_id, ["train_loss", "unknown"])
    assert histories == {"train_loss": [1.0, 0.5], "unknown": []}


def test_parameters_of_mlflow_run_stay(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        mlflow.log_param("lr", "1e-2")
        runs.log_params(run_id, {"lr": 0.01, "limit": None})
    assert mlflow.get_run(run_id).data.params == {"lr": "1e-2", "limit": "None"}


@pytest.mark.parametrize("other", ["0.02", "fast"])
def test_parameter_with_another_value_is_refused(store: Path, other: str) -> None:
    with runs.start_run("demo", None) as run_id:
        mlflow.log_param("lr", other)
        with pytest.raises(UserError, match=f"has the parameter lr = {other} already, and this training has 0.01"):
            runs.log_params(run_id, {"lr": 0.01})


def test_repeated_metrics_stand_there_once(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        for _ in range(2):
            runs.log_metrics(run_id, {"loss": 0.5, "accuracy": 0.9}, step=3, when=1e9)
        runs.log_metrics(run_id, {"loss": 0.5, "accuracy": 0.9, "f1": 0.8}, step=3, when=1e9)
    assert runs.get_metric_histories(run_id, ["loss", "accuracy", "f1"]) == {
        "loss": [0.5],
        "accuracy": [0.9],
        "f1": [0.8],
    }
    assert runs.list_logged_steps(run_id, "loss") == {3}


def test_unknown_tags_are_omitted(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        runs.set_tags(run_id, {"user": "me", "job": None, "long": "x" * 6_000})
    tags = mlflow.get_run(run_id).data.tags
    assert tags["user"] == "me"
    assert tags["long"] == "x" * 5_000
    assert "job" not in tags


def test_credentials_reach_no_tag_or_parameter(store: Path) -> None:
    os.environ["API_TOKEN"] = "correct horse"
    with runs.start_run("demo", None) as run_id:
        runs.set_tags(run_id, {"remote": "https://me:secret@github.com/me/demo"})
        runs.log_params(run_id, {"run_name": "a correct horse"})
    data = mlflow.get_run(run_id).data
    assert data.tags["remote"] == "https://github.com/me/demo"
    assert data.params["run_name"] == "a ***"


def test_inputs_have_name_digest_and_source(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        runs.log_inputs({"testing": DATASET})
    (entry,) = read_inputs(run_id)
    assert entry.dataset.name == "digits-testing"
    assert entry.dataset.digest == DATASET.digest[:32]
    assert [tag.value for tag in entry.tags] == ["testing"]
    assert runs.list_input_urls(runs.get_run(run_id)) == ["https://example.org/digits"]


def test_data_set_logged_meanwhile_by_another_process(store: Path) -> None:
    with runs.start_run("elsewhere", None) as run_id:
        runs.log_inputs({"test": DATASET})
    inputs = read_inputs(run_id)
    other_run_id = create_finished_run()
    log_first = partial(get_client().log_inputs, other_run_id, inputs)
    with runs.start_run("demo", None) as run_id, overtaken_by(log_first, SqlDataset):
        runs.log_inputs({"test": DATASET})
    assert read_inputs(other_run_id) == read_inputs(run_id)
    assert len(read_inputs(run_id)) == 1


# --- find -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", ["0" * 32, "no such run", "../../etc"])
def test_unknown_run_is_named(store: Path, run_id: str) -> None:
    with pytest.raises(UserError, match=f"there is no run '{run_id}'"):
        runs.get_run(run_id)


def test_deleted_run_is_named_with_its_restoration(store: Path) -> None:
    run_id = create_finished_run()
    runs.delete_run(run_id)
    with pytest.raises(UserError, match=f"mlflow runs restore --run-id {run_id}"):
        runs.get_run(run_id)


def test_search_returns_the_newest_first(store: Path) -> None:
    run_ids = [create_finished_run(dataset="digits") for _ in range(3)]
    found = runs.search_experiment_runs("demo", max_results=2)
    assert [run.info.run_id for run in found] == [run_ids[2], run_ids[1]]
    assert runs.search_experiment_runs("unknown") == []


@pytest.mark.parametrize("dataset", ["digits", "my/it's data"])
def test_search_is_limited_to_a_data_set(store: Path, dataset: str) -> None:
    run_id = create_finished_run(dataset=dataset)
    create_finished_run(dataset="mnist")
    (run,) = runs.search_experiment_runs("demo", dataset)
    assert run.info.run_id == run_id


def test_run_without_inputs_has_no_addresses(store: Path) -> None:
    assert runs.list_input_urls(runs.get_run(create_finished_run())) == []
