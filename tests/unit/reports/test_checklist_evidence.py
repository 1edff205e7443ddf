from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from pipeline.data.datasets import Dataset
from pipeline.data.forms import MNIST_FORM
from pipeline.evaluation.record import EvaluationRecord
from pipeline.reports import checklist_evidence
from pipeline.reports.checklist import Answer
from pipeline.reports.checklist_evidence import answer_checklist
from pipeline.tracking.loading import StoredModel
from pipeline.tracking.runs import get_run
from support.evaluations import CLASSES, LABELS, evaluate_predictions, record_evaluation

TEST = Dataset("digits", torch.zeros(300, 1, 28, 28, dtype=torch.uint8), torch.tensor(LABELS), CLASSES, "")


def build_test_record() -> EvaluationRecord:
    return record_evaluation(evaluate_predictions(LABELS), TEST, parameters=2355)


def build_stored_model() -> StoredModel:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28, 3))
    return StoredModel(module, "m-1", "8f1c", "models:/m-1", CLASSES, MNIST_FORM, "a" * 64, 9000, 2355)


def add_run(
    name: str,
    status: str = "FINISHED",
    digest: str = TEST.digest,
    cpu: str = "EPYC",
    seconds: float = 30,
    accuracy: float = 0.999,
) -> str:
    """Add a run to the current store; return its id."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name("pytorch-demo")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("pytorch-demo")
    run_id: str = client.create_run(experiment_id, run_name=name).info.run_id
    params = {"test_digest": digest, "validation_size": "100", "device": "cpu", "model_parameters": "2355"}
    metrics = {"test_accuracy": accuracy, "training_seconds": seconds, "train_loss": 0.1, "train_accuracy": 0.99}
    metrics |= {"validation_loss": 0.1, "validation_accuracy": 0.99}
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, 0, 1) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag("environment.cpu", cpu)],
    )
    client.set_terminated(run_id, status)
    return run_id


def answer_for(run_id: str) -> dict[str, Answer]:
    """Return the answers about a perfect model of the run, by question."""
    answers = answer_checklist(build_test_record(), build_stored_model(), get_run(run_id))
    return {answer.question: answer for answer in answers}


def test_answers_are_in_the_order_of_questions(store: Path) -> None:
    answers = answer_for(add_run("own"))
    assert list(answers) == ["goal", "generalisation", "balance", "errors", "cost"]
    assert answers["goal"].figures["floor"] == 0.95  # of digits, in gates.toml
    assert answers["generalisation"].figures["epochs"] == 1


def test_cost_is_measured_and_read(store: Path) -> None:
    figures = answer_for(add_run("own"))["cost"].figures
    assert figures["training_seconds"] == 30
    assert figures["model_parameters"] == 2355
    assert figures["model_multiply_adds"] == 2352
    assert figures["model_bytes"] == 9000
    assert 0 < figures["latency_seconds"] < 1


def test_peers_are_finished_runs_on_same_images(store: Path) -> None:
    own = add_run("own")
    add_run("peer")
    add_run("failed", status="FAILED")
    add_run("other images", digest="b" * 64)
    figures = answer_for(own)["goal"].figures
    assert (figures["runs"], figures["rank"]) == (2, 1)


def test_only_the_best_peers_are_loaded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for accuracy in (0.5, 0.8, float("nan"), 2.0, 0.9):
        add_run(f"run {accuracy}", accuracy=accuracy)
    own = add_run("own")
    monkeypatch.setattr(checklist_evidence, "MAX_PEERS", 2)
    monkeypatch.setattr(checklist_evidence, "check_goal", lambda evaluation, floor, peers: peers)
    peers: Any = answer_checklist(build_test_record(), build_stored_model(), get_run(own))[0]
    assert [peer.name for peer in peers] == ["run 0.9", "run 0.8"]


@pytest.mark.parametrize(("cpu", "cheaper"), [("EPYC", ["fast"]), ("Xeon", [])])
def test_seconds_of_other_machines_are_not_compared(cpu: str, cheaper: list[str], store: Path) -> None:
    own = add_run("own")
    add_run("fast", cpu=cpu, seconds=1)
    entries: list[dict[str, Any]] = answer_for(own)["cost"].figures["cheaper_runs"]
    assert [entry["name"] for entry in entries] == cheaper


def test_other_test_images_are_not_compared(store: Path) -> None:
    answer = answer_for(add_run("own", digest="b" * 64))["generalisation"]
    assert answer.verdict == "unknown"
    assert "not compared" in answer.sentences[0]


def test_missing_policy_is_a_warning(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checklist_evidence, "POLICY_FILE", store / "gates.toml")
    answer = answer_for(add_run("own"))["goal"]
    assert answer.verdict == "unknown"
    assert "cannot read" in caplog.text
