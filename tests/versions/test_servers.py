"""The whole pipeline on servers of other MLflow versions: the oldest that works, and one with accounts."""

from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_digits

import compare
import evaluate
import lineage
import predict
import promote
import pytorch_demo
from pipeline.promotion.decisions import list_decisions
from support.accounts import act_as, create_account, grant_edit
from support.lock_race import race_for_lock
from support.mlflow_versions import VersionedServer, run_open_server, run_server_with_accounts
from support.promotions import NAME
from support.scripts import Result, call_main
from support.stores import read_aliases, read_stages, register_once_more

FLOOR = ("--min-accuracy", 0.5)


@dataclass(frozen=True)
class Pipeline:
    """What the scripts answered on a server: two promotions and a rollback.

    ``owner`` trained; ``decider`` may edit the model and nothing else, where the server has accounts.
    """

    server: VersionedServer
    folder: Path
    owner: Mapping[str, str]
    decider: Mapping[str, str]
    run_id: str
    results: Mapping[str, Result]


@pytest.fixture(scope="module", params=["3.0", "3.14 with accounts"])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    version, _, accounts = request.param.partition(" ")
    run = run_server_with_accounts if accounts else run_open_server
    with run(version, tmp_path_factory.mktemp("server")) as server:
        owner = create_account(server, "ada") if accounts else server.admin
        decider = create_account(server, "ci") if accounts else server.admin
        folder = tmp_path_factory.mktemp("work")
        results: dict[str, Result] = {}
        with act_as(owner), chdir(folder):
            results["train"] = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", 5)
            run_id, model_uri = results["train"].json["run_id"], results["train"].json["model_uri"]
            results["evaluate"] = call_main(evaluate.main, "--run-id", run_id, "--log-mlflow")
            register_once_more(model_uri, run_id)
        if accounts:
            grant_edit(server, "ci", NAME)
        with act_as(decider), chdir(folder):
            for number in (1, 2):
                version_options = ("--model-name", NAME, "--version", number, *FLOOR)
                results[f"promote {number}"] = call_main(promote.main, *version_options)
            results["rollback"] = call_main(promote.main, "--rollback", "--reason", "to see that it works")
        yield Pipeline(server, folder, owner, decider, run_id, results)


def test_training_evaluation_and_decisions_succeed(pipeline: Pipeline) -> None:
    codes = {name: result.code for name, result in pipeline.results.items()}
    assert codes == dict.fromkeys(("train", "evaluate", "promote 1", "promote 2", "rollback"), 0)


def test_rollback_moves_alias_and_stages(pipeline: Pipeline) -> None:
    with act_as(pipeline.owner):
        assert read_aliases()["champion"] == 1
        assert read_stages() == {1: "Production", 2: "Archived"}


def test_history_has_every_decision(pipeline: Pipeline) -> None:
    with act_as(pipeline.owner):
        assert [decision.kind for decision in list_decisions(NAME)] == ["promoted", "promoted", "rolled back"]
        history = call_main(promote.main, "--history", "--json").json["history"]
    assert [entry["version"] for entry in history] == [1, 2, 1]


def test_lineage_names_the_training(pipeline: Pipeline) -> None:
    with act_as(pipeline.owner), chdir(pipeline.folder):
        result = call_main(lineage.main)
    assert result.code == 0
    assert pipeline.run_id in result.stdout


def test_model_in_production_answers(pipeline: Pipeline) -> None:
    with act_as(pipeline.owner), chdir(pipeline.folder):
        pixels = 255 - load_digits().images[3] * 255 / 16
        Image.fromarray(pixels.astype("uint8")).resize((112, 112)).save("three.png")
        result = call_main(predict.main, "three.png")
    assert result.code == 0
    assert '"3"' in result.stdout


def test_compare_shows_the_run(pipeline: Pipeline) -> None:
    with act_as(pipeline.owner), chdir(pipeline.folder):
        result = call_main(compare.main)
    assert result.code == 0
    assert pipeline.run_id in result.stdout


def test_training_leaves_a_complete_run(pipeline: Pipeline) -> None:
    with act_as(pipeline.owner):
        client = MlflowClient()
        run = client.get_run(pipeline.run_id)
        (model,) = client.search_logged_models([run.info.experiment_id])
        history = client.get_metric_history(pipeline.run_id, "train_loss")
    assert run.info.status == "FINISHED"
    assert model.status == "READY"
    assert {metric.key for metric in model.metrics or []} >= {"test_accuracy", "test_loss"}
    assert [point.step for point in history] == [1, 2, 3, 4, 5]


def test_one_process_has_the_lock(pipeline: Pipeline, tmp_path: Path) -> None:
    clients = [pipeline.owner, pipeline.decider] * 2
    assert race_for_lock(clients, tmp_path / "marker", rounds=4) == [0] * 4


def test_too_old_server_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with run_open_server("2.22", tmp_path) as server, act_as(server.admin):
        result = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", 1)
        assert "2.22" in result.error
        assert MlflowClient().search_runs(["0"]) == []
        assert [experiment.name for experiment in MlflowClient().search_experiments()] == ["Default"]
