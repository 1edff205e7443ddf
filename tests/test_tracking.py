import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from conftest import free_port
from mlflow.entities import DatasetInput
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias
from mlflow.store.tracking.dbmodels.models import SqlDataset
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event
from sqlalchemy.orm import Session

from pipeline import UserError, cli, data, model, registry, tracking, without_credentials

IMAGES = torch.zeros(2, 1, 28, 28)
CLASSES = tuple("0123456789")


def network(name: str = "cnn") -> torch.nn.Module:
    torch.manual_seed(0)
    return model.build(name, 10, torch.arange(28 * 28 * 2).remainder(256).to(torch.uint8).view(2, 1, 28, 28)).eval()


def inputs_of(run_id: str) -> list[DatasetInput]:
    found = mlflow.get_run(run_id).inputs
    assert found is not None
    return found.dataset_inputs


def status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


def test_a_run_that_finished_says_finished(store: Path) -> None:
    with tracking.run("demo", "a name") as run_id:
        assert status(run_id) == "RUNNING"
    assert status(run_id) == "FINISHED"
    assert mlflow.get_run(run_id).info.run_name == "a name"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(RuntimeError, "FAILED"), (UserError, "FAILED"), (KeyboardInterrupt, "KILLED"), (cli.Terminated, "KILLED")],
)
def test_a_run_that_did_not_finish_never_says_so(store: Path, error: type[BaseException], expected: str) -> None:
    with pytest.raises(error), tracking.run("demo", None) as run_id:
        raise error
    assert status(run_id) == expected


def test_params_and_metrics_arrive_with_their_steps(store: Path) -> None:
    with tracking.run("demo", None) as run_id:
        tracking.log_params(run_id, {"lr": 0.01, "limit": None})
        for step in (1, 2):
            tracking.log_metrics(run_id, {"train_loss": 1 / step}, step=step)
    assert mlflow.get_run(run_id).data.params == {"lr": "0.01", "limit": "None"}
    history = tracking.client().get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]


def test_a_run_is_in_its_experiment_though_another_process_makes_it_first(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = SqlAlchemyStore.create_experiment
    with tracking.run("elsewhere", None):
        pass

    def second(*args: Any, **kwargs: Any) -> str:
        create(*args, **kwargs)
        return str(create(*args, **kwargs))

    monkeypatch.setattr(SqlAlchemyStore, "create_experiment", second)
    with tracking.run("demo", None) as run_id:
        pass
    assert tracking.client().get_experiment(mlflow.get_run(run_id).info.experiment_id).name == "demo"


@contextmanager
def another_is_first(row: type, request: Callable[[], object]) -> Iterator[None]:
    """Send ``request``, once, between MLflow's look for such a row of a table and its insert."""
    requests = [request]

    def send(session: Session, *_: object) -> None:
        if requests and any(isinstance(new, row) for new in session.new):
            requests.pop()()

    event.listen(Session, "before_flush", send)
    try:
        yield
    finally:
        event.remove(Session, "before_flush", send)
    assert not requests


def test_a_data_set_that_another_process_is_first_to_log_costs_nothing(store: Path) -> None:
    splits = {"test": data.load_test("digits", Path())}
    with tracking.run("elsewhere", None) as run_id:
        tracking.log_inputs(splits)
    inputs = inputs_of(run_id)
    with tracking.run("demo", None) as other:
        pass
    with (
        tracking.run("demo", None) as run_id,
        another_is_first(SqlDataset, lambda: tracking.client().log_inputs(other, inputs)),
    ):
        tracking.log_inputs(splits)
    assert inputs_of(other) == inputs_of(run_id) and len(inputs_of(run_id)) == 1


def test_an_alias_that_another_process_is_first_to_set_costs_nothing(store: Path) -> None:
    with tracking.run("demo", None) as run_id:
        uri = tracking.log_model(network(), IMAGES, CLASSES)
    client = tracking.client()
    earlier = partial(client.set_registered_model_alias, "digits-classifier", registry.CHALLENGER, "1")
    with another_is_first(SqlRegisteredModelAlias, earlier):
        assert registry.register("digits-classifier", uri, run_id) == 1
    assert registry.holder("digits-classifier", registry.CHALLENGER) == 1


def test_inputs_carry_name_digest_and_source(store: Path) -> None:
    test = data.load_test("digits", Path())
    with tracking.run("demo", None) as run_id:
        tracking.log_inputs({"testing": test})
    (entry,) = inputs_of(run_id)
    assert (entry.dataset.name, entry.dataset.digest) == ("digits-testing", test.digest[:32])
    assert test.source in entry.dataset.source
    assert {tag.value for tag in entry.tags} == {"testing"}


@pytest.mark.parametrize("name", model.NAMES)
def test_a_model_comes_back_as_it_went_without_its_code(name: str, store: Path) -> None:
    original = network(name)
    with tracking.run("demo", None) as run_id:
        uri = tracking.log_model(original, IMAGES, CLASSES)
    stored = tracking.load_model(uri)
    images = torch.randint(0, 256, (37, 1, 28, 28)).float()
    assert torch.allclose(stored.module(images), original(images), atol=1e-4)  # another batch size than at export
    assert isinstance(stored.module, torch.fx.GraphModule)
    assert (stored.run_id, stored.uri, tracking.model_of(run_id)) == (run_id, uri, uri)
    assert stored.sha256 == tracking.model_sha256(uri)
    assert stored.classes == CLASSES


def test_the_model_file_holds_no_pickled_code_and_its_needs_are_pinned(store: Path) -> None:
    with tracking.run("demo", None):
        uri = tracking.log_model(network(), IMAGES, CLASSES)
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    assert not list(folder.rglob("*.pkl")) + list(folder.rglob("*.pth"))
    needs = (folder / "requirements.txt").read_text().split()
    assert [need.partition("==")[0] for need in needs] == ["mlflow", "torch", "numpy"]
    assert not any("+" in need for need in needs)
    assert (folder / "input_example.json").exists()


def test_a_pickled_model_is_refused_unopened(store: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(store / "sprung"),)

    with tracking.run("demo", None):
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"
        info = mlflow.pytorch.log_model(network(), name="model", serialization_format="pickle", pip_requirements=[])
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    folder = next((store / "mlruns").rglob("model.pth")).parent
    torch.save(Trap(), folder / "model.pth")
    with pytest.raises(UserError, match="not in MLflow's pt2 format"):
        tracking.load_model(info.model_uri)
    assert not (store / "sprung").exists()


def test_a_model_with_code_of_its_own_is_refused(store: Path) -> None:
    (store / "theirs.py").write_text("raise SystemExit('ran')")
    with tracking.run("demo", None):
        info = mlflow.pytorch.log_model(
            network(),
            name="model",
            serialization_format="pt2",
            input_example=np.zeros((2, 1, 28, 28), np.float32),
            code_paths=[str(store / "theirs.py")],
            pip_requirements=[],
        )
    with pytest.raises(UserError, match="brings code of its own"):
        tracking.load_model(info.model_uri)


def test_a_model_for_other_images_is_refused_with_its_shape(store: Path) -> None:
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    with tracking.run("demo", None):
        info = mlflow.pytorch.log_model(
            linear,
            name="model",
            serialization_format="pt2",
            input_example=np.zeros((2, 3, 32, 32), np.float32),
            pip_requirements=[],
        )
    with pytest.raises(UserError, match=r"inputs of shape .*3, 32, 32"):
        tracking.load_model(info.model_uri)


def test_unknown_malformed_and_deleted_runs_are_named(store: Path) -> None:
    for run_id in ("0" * 32, "no such run", "../../etc"):
        with pytest.raises(UserError, match="there is no run"):
            tracking.get_run(run_id)
    with tracking.run("demo", None) as run_id:
        pass
    tracking.client().delete_run(run_id)
    with pytest.raises(UserError, match=f"mlflow runs restore --run-id {run_id}"):
        tracking.get_run(run_id)


def test_a_deleted_experiment_is_named_with_the_way_back(store: Path) -> None:
    with tracking.run("demo", None):
        pass
    number = tracking.experiment_id("demo")
    tracking.client().delete_experiment(number)
    with (
        pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {number}"),
        tracking.run("demo", None),
    ):
        pass


def test_a_run_without_a_model_says_its_status(store: Path) -> None:
    with pytest.raises(RuntimeError), tracking.run("demo", None) as run_id:
        raise RuntimeError
    with pytest.raises(UserError, match=r"has no model .*FAILED"):
        tracking.model_of(run_id)


def test_a_model_whose_files_are_gone_is_named(store: Path) -> None:
    with tracking.run("demo", None):
        uri = tracking.log_model(network(), IMAGES, CLASSES)
    shutil.rmtree(store / "mlruns")
    with pytest.raises(UserError, match=f"cannot get {uri}"):
        tracking.load_model(uri)


@pytest.mark.parametrize("uri", ["models:/nobody/1", "models:/nobody@champion", "models:/", "mnist", "runs:/x/model"])
def test_a_model_uri_that_leads_nowhere_is_named(store: Path, uri: str) -> None:
    with pytest.raises(UserError, match=f"cannot get {uri}"):
        tracking.load_model(uri)


def record(run_id: str, **changes: object) -> None:
    uri = tracking.model_of(run_id)
    table = "index,label,prediction,cat,dog\n0,0,1,0.2,0.8\n"
    content: dict[str, object] = {
        "model_sha256": tracking.model_sha256(uri),
        "dataset": "digits",
        "dataset_digest": "d1",
        "predictions_sha256": hashlib.sha256(table.encode()).hexdigest(),
    }
    content |= changes
    tracking.client().log_text(run_id, json.dumps(content), tracking.RECORD)
    tracking.client().log_text(run_id, table, "evaluation/predictions.csv")


def test_a_recorded_evaluation_is_believed_only_of_this_model_and_data_set(store: Path) -> None:
    with tracking.run("demo", None) as run_id:
        tracking.log_params(run_id, {"dataset": "digits", "test_digest": "d1"})
        uri = tracking.log_model(network(), IMAGES, CLASSES)
    with pytest.raises(UserError, match=rf"no recorded evaluation; run: python evaluate.py --run-id {run_id} --log"):
        tracking.evaluation_of(run_id, uri)
    record(run_id)
    found = tracking.evaluation_of(run_id, uri)
    assert (found.record["dataset_digest"], found.predictions.to_numpy().tolist()) == ("d1", [[0, 1, 0.2, 0.8]])
    record(run_id, model_sha256="0" * 64)
    with pytest.raises(UserError, match="belongs to another model"):
        tracking.evaluation_of(run_id, uri)
    record(run_id, dataset="mnist")
    with pytest.raises(UserError, match=r"was made on mnist \(d1.*\), the run's test set is digits"):
        tracking.evaluation_of(run_id, uri)
    record(run_id, dataset_digest="d2")
    with pytest.raises(UserError, match=r"was made on digits \(d2.*\), the run's test set is digits \(d1"):
        tracking.evaluation_of(run_id, uri)
    record(run_id, predictions_sha256="0" * 64)
    with pytest.raises(UserError, match=r"predictions.csv of run .* is not the one that"):
        tracking.evaluation_of(run_id, uri)
    tracking.client().log_text(run_id, "{", tracking.RECORD)
    with pytest.raises(UserError, match="is damaged"):
        tracking.evaluation_of(run_id, uri)


@pytest.mark.parametrize("scheme", ["http", "mysql+pymysql", "postgresql"])
def test_a_server_that_does_not_answer_is_named_without_its_password(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:secret@127.0.0.1:{port}/x")
    with pytest.raises(UserError) as error, tracking.connected():
        pass
    assert f"nothing answers at {scheme}://127.0.0.1:{port}" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_server_that_accepts_and_stays_silent_is_given_up_within_15_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        start = time.monotonic()
        with pytest.raises(UserError) as error, tracking.connected():
            pass
        assert time.monotonic() - start < 15  # the limit that the users are promised, not a measurement
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("path", ["absent/mlflow.db", "folder"])
def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{path}")
    with pytest.raises(UserError, match=str(tmp_path / path)), tracking.connected():
        pass


def test_a_file_that_is_no_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="file is not a database"), tracking.connected():
        pass


def test_credentials_are_taken_out_of_every_url() -> None:
    text = "see http://me:secret@host:5000/x and mysql+pymysql://u:p@db/mlflow, not a@b"
    assert without_credentials(text) == "see http://host:5000/x and mysql+pymysql://db/mlflow, not a@b"


def test_a_refusal_that_ends_within_seconds_costs_nothing_and_another_error_is_not_repeated() -> None:
    """The moment between an experiment's appearance and its maker's permission cannot be produced at will."""
    answers: list[Exception | str] = [MlflowException("not yet", PERMISSION_DENIED), "done"]
    asked: list[Exception | str] = []

    def request() -> str:
        asked.append(answers[len(asked)])
        if isinstance(asked[-1], Exception):
            raise asked[-1]
        return str(asked[-1])

    assert tracking.insist(request) == "done"
    answers[:] = [MlflowException("bad", INVALID_PARAMETER_VALUE), "never"]
    asked.clear()
    with pytest.raises(MlflowException, match="bad"):
        tracking.insist(request)
    assert len(asked) == 1
