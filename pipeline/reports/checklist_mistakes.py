"""Two of the five questions of the checklist, answered from the predictions: is it balanced, which errors does it make.

docs/metrics.md explains the questions and their limits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.metrics import Evaluation
from pipeline.reports.checklist import POOR, WATCH, Answer, Finding, build_answer

# --- is it balanced? -------------------------------------------------------------------------------------------------


def check_balance(evaluation: Evaluation) -> Answer:
    """Answer whether the model is good at every class."""
    names = evaluation.classes
    f1 = evaluation.class_f1
    support = evaluation.class_support
    weakest = int(f1.argmin())
    findings = _find_lost_classes(evaluation)
    behind = evaluation.f1 - f1[weakest]
    if behind > 0.05:
        sentence = f"{names[weakest]!r} is its weakest class: F1 {f1[weakest]:.3f}, mean of all {evaluation.f1:.3f}."
        findings.append((POOR if behind > 0.2 else WATCH, sentence))
    largest, smallest = int(support.argmax()), int(support.argmin())
    if support[largest] > 10 * support[smallest]:
        sizes = f"{names[largest]!r} has {support[largest]:,} test images, {names[smallest]!r} {support[smallest]:,}"
        findings.append((WATCH, f"{sizes}: accuracy depends little on the small classes."))
    if evaluation.accuracy - evaluation.f1 > 0.05:
        sentence = (
            f"Accuracy alone is misleading: it is {evaluation.accuracy:.2%}, the macro F1 is {evaluation.f1:.3f}."
        )
        findings.append((WATCH, sentence))
    figures = {
        "macro_f1": evaluation.f1,
        "f1_spread": float(f1.max() - f1.min()),
        "weakest": _describe_weakest_classes(evaluation),
        "images": _count_by_class(evaluation, support),
        "predicted": _count_by_class(evaluation, evaluation.confusion.sum(0)),
    }
    good = (
        f"No class is much weaker than the others: the weakest, {names[weakest]!r}, has an F1 of {f1[weakest]:.3f}, "
        f"the mean of all is {evaluation.f1:.3f}."
    )
    return build_answer("balance", findings, good, figures)


def _find_lost_classes(evaluation: Evaluation) -> list[Finding]:
    predicted = evaluation.confusion.sum(0)
    findings: list[Finding] = []
    for index, name in enumerate(evaluation.classes):
        images = int(evaluation.class_support[index])
        if predicted[index] < 0.1 * images:
            times = f"{predicted[index]:,} times for {images:,} images"
            findings.append((POOR, f"It almost never predicts {name!r}: {times}."))
        elif images and evaluation.class_recall[index] < 0.5:
            recall = f"{evaluation.class_recall[index]:.0%}"
            findings.append((POOR, f"It finds only {recall} of the images of {name!r}."))
    return findings


def _describe_weakest_classes(evaluation: Evaluation) -> list[dict[str, Any]]:
    weakest = np.argsort(evaluation.class_f1, kind="stable")[:3]
    result = []
    for index in weakest:
        f1 = float(evaluation.class_f1[index])
        recall = float(evaluation.class_recall[index])
        result.append({"class": evaluation.classes[index], "f1": f1, "recall": recall})
    return result


def _count_by_class(evaluation: Evaluation, counts: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(evaluation.classes, counts, strict=True)}


# --- which errors does it make? --------------------------------------------------------------------------------------


def check_errors(evaluation: Evaluation) -> Answer:
    """Answer which errors the model makes, and whether its confidence fits its accuracy."""
    wrong = int((~evaluation.is_correct).sum())
    mean_confidence = float(evaluation.confidence.mean())
    confusions = evaluation.most_frequent_confusions(10)
    findings = [
        *_find_dominant_confusion(confusions, wrong),
        *_find_miscalibration(evaluation, mean_confidence),
        *_find_certain_mistakes(evaluation),
    ]
    bins = evaluation.reliability_bins()
    figures = {
        "mistakes": wrong,
        "confusions": confusions,
        "expected_calibration_error": compute_calibration_error(bins),
        "reliability": bins,
        "brier_score": compute_brier_score(evaluation),
        "mean_confidence": mean_confidence,
        "most_confident_mistakes": _describe_confident_mistakes(evaluation),
    }
    good = (
        f"{wrong:,} mistakes, no pair of classes stands out, and the mean confidence ({mean_confidence:.2%}) "
        f"is close to the accuracy ({evaluation.accuracy:.2%})."
    )
    return build_answer("errors", findings, good, figures)


def compute_calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """Return the expected calibration error (Guo et al., https://arxiv.org/abs/1706.04599) of reliability bins."""
    images = sum(entry["images"] for entry in bins)
    total = 0.0
    for entry in bins:
        total += abs(entry["confidence"] - entry["accuracy"]) * entry["images"]
    return float(total / images)


def compute_brier_score(evaluation: Evaluation) -> float:
    """Return the mean squared distance of the probabilities from the truth, 0 to 2.

    Brier (1950), Monthly Weather Review 78:1.
    """
    from sklearn.metrics import brier_score_loss  # slow to import

    score = brier_score_loss(
        evaluation.labels,
        evaluation.probabilities,
        labels=np.arange(len(evaluation.classes)),
        scale_by_half=False,
    )
    return float(score)


def _find_dominant_confusion(confusions: Sequence[Mapping[str, Any]], wrong: int) -> list[Finding]:
    if not confusions or confusions[0]["count"] <= max(4, wrong / 4):
        return []
    largest = confusions[0]
    pair = f"{largest['label']!r} called {largest['prediction']!r}"
    return [(WATCH, f"{largest['count']:,} of {wrong:,} mistakes are one pair: {pair}.")]


def _find_miscalibration(evaluation: Evaluation, mean_confidence: float) -> list[Finding]:
    gap = mean_confidence - evaluation.accuracy
    low, high = evaluation.interval
    may_be_chance = low <= mean_confidence <= high
    if abs(gap) <= 0.01 or may_be_chance:
        return []
    kind = "overconfident" if gap > 0 else "underconfident"
    sentence = f"It is {kind}: mean confidence {mean_confidence:.2%}, {evaluation.accuracy:.2%} are right."
    return [(POOR if abs(gap) > 0.05 else WATCH, sentence)]


def _find_certain_mistakes(evaluation: Evaluation) -> list[Finding]:
    is_certain = evaluation.confidence > 0.99
    certain = int(is_certain.sum())
    wrong = int((is_certain & ~evaluation.is_correct).sum())
    if wrong <= max(4, 0.01 * certain):
        return []
    return [(POOR, f"Of {certain:,} predictions with a confidence above 99%, {wrong:,} are wrong.")]


def _describe_confident_mistakes(evaluation: Evaluation) -> list[dict[str, Any]]:
    mistakes = []
    for index in evaluation.most_confident_mistakes(10):
        mistake = {
            "index": int(index),
            "label": evaluation.classes[evaluation.labels[index]],
            "prediction": evaluation.classes[evaluation.predictions[index]],
            "probability": float(evaluation.confidence[index]),
        }
        mistakes.append(mistake)
    return mistakes
