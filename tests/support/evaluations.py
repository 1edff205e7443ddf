"""Evaluations of models that do not exist."""

from collections.abc import Sequence

import numpy as np

from pipeline.data.splits import Dataset
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import EvaluationRecord, build_record

CLASSES = ("cat", "dog", "bird")
LABELS = [0, 1, 2] * 100
MODEL_SHA256 = "a" * 64
REPORT_FILES = {  # that evaluate.py writes
    "checklist.json",
    "checklist.md",
    "classification_report.json",
    "confusion_matrix.png",
    "confusions.png",
    "evaluation.json",
    "misclassified_examples.png",
    "predictions.csv",
    "reliability.png",
}


def evaluate_predictions(
    predictions: Sequence[int], labels: Sequence[int] = LABELS, confidence: float = 0.9
) -> Evaluation:
    """Return the evaluation of a model that gives each of its predictions the same probability."""
    rest = (1 - confidence) / (len(CLASSES) - 1)
    probabilities = np.full((len(labels), len(CLASSES)), rest)
    probabilities[np.arange(len(labels)), predictions] = confidence
    return Evaluation(CLASSES, np.array(labels), probabilities)


def make_mistakes(count: int, labels: Sequence[int] = LABELS) -> list[int]:
    """Return predictions of which the first ``count`` are wrong, spread over all pairs of classes."""
    predictions = list(labels)
    for index in range(count):
        shift = 1 + index // len(CLASSES) % 2
        predictions[index] = (labels[index] + shift) % len(CLASSES)
    return predictions


def record_evaluation(
    evaluation: Evaluation, test: Dataset, *, parameters: int = 7, images_per_second: float = 1000.0
) -> EvaluationRecord:
    """Return the record of an evaluation of a model that does not exist."""
    return build_record(
        evaluation,
        test,
        model_id="m-1",
        model_uri="models:/m-1",
        model_sha256=MODEL_SHA256,
        parameters=parameters,
        images_per_second=images_per_second,
        device="cpu",
    )
