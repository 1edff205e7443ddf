"""The rules of the gate, a row each: which figure of a version is compared with a floor or a ceiling. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np

from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.promotion.policy import Policy

Bound = Literal["floor", "ceiling"]


@dataclass(frozen=True)
class Figure:
    """A figure of a version; ``text`` says what it is, for people."""

    value: float
    text: str


def _measure_accuracy(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the share of test images that the model has right."""
    evaluation = version.require_evaluation()
    text = f"{evaluation.is_correct.sum():,} of {len(evaluation.labels):,} right"
    return Figure(evaluation.accuracy, text)


def _measure_accuracy_lower_end(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the lower end of the accuracy's Wilson interval at the policy's confidence."""
    if policy.confidence is None:
        raise ValueError("the policy has no confidence")
    low, _ = version.require_evaluation().accuracy_interval(policy.confidence)
    return Figure(low, f"the lower end of its {policy.confidence:.0%} interval")


def _measure_lowest_recall(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the lowest recall of a class."""
    evaluation = version.require_evaluation()
    return _find_lowest_score(evaluation.class_recall, evaluation.classes)


def _measure_lowest_f1(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the lowest F1 of a class."""
    evaluation = version.require_evaluation()
    return _find_lowest_score(evaluation.class_f1, evaluation.classes)


def _find_lowest_score(scores: np.ndarray, classes: tuple[str, ...]) -> Figure:
    index = int(scores.argmin())
    return Figure(float(scores[index]), f"class {classes[index]!r}")


def _measure_loss(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the mean cross-entropy in nats."""
    return Figure(version.require_evaluation().loss, "mean cross-entropy")


def _measure_generalisation_gap(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return training minus validation accuracy."""
    return Figure(version.generalisation_gap, "training minus validation accuracy")


def _count_test_images(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the number of test images."""
    return Figure(len(version.require_evaluation().labels), "test images")


def _measure_test_overlap(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the share of test images that the model was trained on."""
    images = len(version.require_evaluation().labels)
    if math.isnan(version.overlap):
        return Figure(math.nan, "how many test images are training images")
    return Figure(version.overlap / images, f"{version.overlap:,.0f} of {images:,} test images are training images")


@dataclass(frozen=True)
class Rule:
    """A rule about one figure of the candidate.

    Attributes
    ----------
    name : of the check, and of the attribute of the policy that has the threshold.
    bound : whether the threshold is a floor or a ceiling.
    measure : returns the figure of a version.
    """

    name: str
    bound: Bound
    measure: Callable[[EvaluatedVersion, Policy], Figure]


RULES = (
    Rule("min_accuracy", "floor", _measure_accuracy),
    Rule("min_accuracy_lower_end", "floor", _measure_accuracy_lower_end),
    Rule("min_class_recall", "floor", _measure_lowest_recall),
    Rule("min_class_f1", "floor", _measure_lowest_f1),
    Rule("max_loss", "ceiling", _measure_loss),
    Rule("max_generalisation_gap", "ceiling", _measure_generalisation_gap),
    Rule("min_test_images", "floor", _count_test_images),
    Rule("max_test_overlap", "ceiling", _measure_test_overlap),
)


@dataclass(frozen=True)
class CostRule:
    """A ceiling of a cost of the candidate, as a multiple of the champion's.

    Attributes
    ----------
    name : of the check, and of the attribute of the policy that has the ceiling.
    get_cost : returns the cost of a version.
    unit : of the cost.
    """

    name: str
    get_cost: Callable[[EvaluatedVersion], float]
    unit: str


COST_RULES = (
    CostRule("max_parameters_ratio", attrgetter("parameters"), ""),
    CostRule("max_latency_ratio", attrgetter("latency"), " s"),
)
