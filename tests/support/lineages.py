"""Runs and lineages without a store."""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import torch
from mlflow.entities import Metric, Param, RunData, RunInfo, RunTag
from mlflow.entities.model_registry import ModelVersion

from pipeline.data.datasets import Dataset
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import EvaluationRecord, build_record
from pipeline.promotion.decisions import PROMOTED, Decision
from pipeline.provenance.lineage import Lineage
from pipeline.tracking.runs import Run
from pipeline.training.config import TrainingConfig

RUN_ID = "8f1c"
MODEL_URI = "models:/m-1"
MODEL_SHA256 = "a" * 64
START = 1_767_225_600_000  # milliseconds: 2026-01-01 00:00:00 UTC
CONFIG = TrainingConfig("digits", "cnn", epochs=3, lr=0.01, augment=("affine", "erase"), seed=7)
PARAMS = {
    **{name: str(value) for name, value in CONFIG.as_params().items()},
    "optimizer": "AdamW",
    "model_parameters": "41594",
    "train_size": "1257",
    "train_digest": "1" * 64,
    "validation_size": "180",
    "validation_digest": "2" * 64,
    "test_size": "360",
    "test_digest": "3" * 64,
}
TAGS = {
    "code.commit": "c0ffee",
    "code.branch": "main",
    "code.remote": "none",
    "code.dirty": "false",
    "environment.python": "3.11.7",
    "environment.system": "Linux",
    "environment.cpu": "EPYC",
    "environment.gpu": "none",
    "environment.threads": "2",
    "environment.packages_sha256": "4" * 64,
    "invocation.command": "pytorch_demo.py --dataset digits",
    "invocation.user": "me",
    "invocation.host": "laptop",
    "result.weights_sha256": "5" * 64,
    "result.model_sha256": MODEL_SHA256,
}


def build_run(
    params: Mapping[str, str] = PARAMS,
    tags: Mapping[str, str] = TAGS,
    metrics: Mapping[str, float] | None = None,
    status: str = "FINISHED",
) -> Run:
    """Return a run that took 2.5 seconds."""
    info = RunInfo(RUN_ID, "1", "me", status, START, START + 2500, "active", run_name="test")
    data = RunData(
        metrics=[Metric(name, value, START, 0) for name, value in (metrics or {}).items()],
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    return Run(info, data)


def build_evaluation_record() -> EvaluationRecord:
    """Return the record of a model that has three of four images right."""
    labels = torch.tensor([0, 1, 0, 1])
    test = Dataset("digits", torch.zeros(4, 1, 28, 28, dtype=torch.uint8), labels, ("0", "1"), "https://example.org")
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    return build_record(
        Evaluation(test.classes, labels.numpy(), probabilities),
        test,
        model_id="m-1",
        model_uri=MODEL_URI,
        model_sha256=MODEL_SHA256,
        parameters=41594,
        images_per_second=1000.0,
        device="cpu",
    )


def build_decision(
    kind: str = PROMOTED, previous_version: int | None = None, model_sha256: str = MODEL_SHA256
) -> Decision:
    """Return a decision about version 1."""
    return Decision(
        number=1,
        kind=kind,
        version=1,
        previous_version=previous_version,
        time=datetime(2026, 1, 2, tzinfo=UTC),
        user="boss",
        host="server",
        job_url="https://ci.example.org/7",
        reason="every check passed",
        accuracy=0.75,
        model_sha256=model_sha256,
        dataset="digits",
        dataset_digest="3" * 64,
        signer="",
        decision_run_id="d3c1",
        applied=True,
    )


def build_version() -> ModelVersion:
    """Return version 1 of digits-classifier, in Production."""
    return ModelVersion(
        "digits-classifier",
        "1",
        START + 3000,
        source=MODEL_URI,
        run_id=RUN_ID,
        current_stage="Production",
        aliases=["champion"],
    )


def build_lineage() -> Lineage:
    """Return the lineage of a model in Production, in which only the address of the data is unknown."""
    return Lineage(
        run=build_run(),
        version=build_version(),
        model_uri=MODEL_URI,
        model_sha256=MODEL_SHA256,
        evaluation=build_evaluation_record(),
        no_evaluation="",
        checklist=[{"question": "goal", "verdict": "good"}, {"question": "cost", "verdict": "watch"}],
        decisions=[build_decision()],
        verdict={},
    )
