"""What the answers of a model on labelled images say about it. Imports no PyTorch, so that the gate starts fast."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.text import printable

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE_LEVEL = 0.95  # of the interval around the accuracy
SMALLEST_PROBABILITY = np.finfo(float).tiny  # keeps the logarithm finite
SUMMARY_METRICS = ("loss", "accuracy", "precision", "recall", "f1")


def wilson_interval(correct: int, total: int, confidence: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Return the ends of the score interval of a proportion, by Wilson (1927), JASA 22:209."""
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Evaluation:
    """The answers of a model on labelled images, and every metric that follows from them.

    If there are no images, or a probability is not finite, the evaluation is not usable and its metrics are NaN.

    Attributes
    ----------
    classes : the class names, in the order of the labels.
    labels : int64 [N], the truth, 0 to len(classes) - 1.
    probabilities : float64 [N, classes].
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def from_logits(cls, logits: "Tensor", labels: "Tensor", classes: Sequence[str]) -> "Evaluation":
        """Return the evaluation of ``logits``, float32 [N, classes], against ``labels``, int64 [N].

        Raises
        ------
        UserError
            The logits are not finite, or not one for each class and image.
        """
        expected = (len(labels), len(classes))
        if logits.shape != expected:
            raise UserError(
                f"the model gives logits of shape {tuple(logits.shape)}, but {expected} are needed; "
                "evaluate it on the data set that it was trained on"
            )
        if not logits.isfinite().all():
            raise UserError("the model gives logits that are infinite or NaN; train it again with a smaller --lr")
        probabilities = logits.double().softmax(1)
        return cls(tuple(classes), labels.numpy(), probabilities.numpy())

    # --- for each image ---------------------------------------------------------------------------------------------

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable class of each image, int64 [N]."""
        return np.asarray(self.probabilities.argmax(1))

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of each prediction, float64 [N]."""
        return np.asarray(self.probabilities.max(1))

    @cached_property
    def is_correct(self) -> np.ndarray:
        """Which predictions are right, bool [N]."""
        return np.asarray(self.predictions == self.labels)

    # --- over all images --------------------------------------------------------------------------------------------

    @cached_property
    def is_usable(self) -> bool:
        """Whether there are images and every probability is finite."""
        return len(self.labels) > 0 and bool(np.isfinite(self.probabilities).all())

    @cached_property
    def accuracy(self) -> float:
        """The share of images whose prediction is right."""
        return float(self.is_correct.mean()) if self.is_usable else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95% Wilson interval of the accuracy."""
        return self.accuracy_interval(CONFIDENCE_LEVEL)

    def accuracy_interval(self, confidence: float) -> tuple[float, float]:
        """Return the ends of the Wilson interval of the accuracy at this confidence, 0 to 1."""
        if not self.is_usable:
            return math.nan, math.nan
        return wilson_interval(int(self.is_correct.sum()), len(self.labels), confidence)

    @cached_property
    def loss(self) -> float:
        """The mean cross-entropy in nats; a probability of 0 counts as the smallest positive float."""
        if not self.is_usable:
            return math.nan
        of_the_truth = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(of_the_truth, SMALLEST_PROBABILITY)).mean())

    @cached_property
    def confusion(self) -> np.ndarray:
        """How often each class was called which, int64 [classes, classes]: truth in rows, prediction in columns."""
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    # --- for each class ---------------------------------------------------------------------------------------------

    @cached_property
    def class_support(self) -> np.ndarray:
        """The number of images of each class, int64 [classes]."""
        return np.asarray(self.confusion.sum(1))

    @cached_property
    def class_precision(self) -> np.ndarray:
        """The share of the predictions of each class that are right, float64 [classes]; 0 if there are none."""
        return self._divide(self.confusion.diagonal(), self.confusion.sum(0))

    @cached_property
    def class_recall(self) -> np.ndarray:
        """The share of the images of each class that are found, float64 [classes]; 0 if there are none."""
        return self._divide(self.confusion.diagonal(), self.class_support)

    @cached_property
    def class_f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall of each class, float64 [classes]."""
        return self._divide(2 * self.confusion.diagonal(), self.class_support + self.confusion.sum(0))

    def _divide(self, counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
        if not self.is_usable:
            return np.full(len(self.classes), math.nan)
        return np.asarray(counts / np.maximum(totals, 1))

    # --- averages in which each class counts the same ---------------------------------------------------------------

    @cached_property
    def precision(self) -> float:
        """The macro average of the precision."""
        return self._macro_average(self.class_precision)

    @cached_property
    def recall(self) -> float:
        """The macro average of the recall."""
        return self._macro_average(self.class_recall)

    @cached_property
    def f1(self) -> float:
        """The macro average of the F1."""
        return self._macro_average(self.class_f1)

    def _macro_average(self, scores: np.ndarray) -> float:
        return float(scores.mean())

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Return loss, accuracy and the macro averages, named ``<prefix>_<metric>`` as MLflow shows them."""
        return {f"{prefix}_{name}": getattr(self, name) for name in SUMMARY_METRICS}

    # --- mistakes ---------------------------------------------------------------------------------------------------

    def most_frequent_confusions(self, limit: int = 10) -> list[dict[str, Any]]:
        """Return the most frequent mistakes as ``{"label", "prediction", "count"}``, the most frequent first."""
        mistakes = self.confusion.copy()
        np.fill_diagonal(mistakes, 0)
        order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
        confusions = []
        for row, column in zip(*np.unravel_index(order, mistakes.shape), strict=True):
            count = int(mistakes[row, column])
            if count:
                confusions.append({"label": self.classes[row], "prediction": self.classes[column], "count": count})
        return confusions

    def most_confident_mistakes(self, limit: int = 25) -> np.ndarray:
        """Return the indices of wrong predictions, int64 [up to ``limit``], the most confident first."""
        mistakes = np.flatnonzero(~self.is_correct)
        order = np.argsort(-self.confidence[mistakes], kind="stable")
        return np.asarray(mistakes[order][:limit])

    def reliability_bins(self, bins: int = 15) -> list[dict[str, Any]]:
        """Return mean ``confidence``, ``accuracy`` and number of ``images`` in equal bins of confidence, none empty.

        A calibrated model is right as often as it is confident (Guo et al., https://arxiv.org/abs/1706.04599).
        """
        index = np.minimum((self.confidence * bins).astype(int), bins - 1)
        images = np.bincount(index, minlength=bins)
        confidence = np.bincount(index, self.confidence, bins)
        correct = np.bincount(index, self.is_correct, bins)
        result = []
        for i in np.flatnonzero(images):
            count = int(images[i])
            result.append({"confidence": confidence[i] / count, "accuracy": correct[i] / count, "images": count})
        return result

    # --- scikit-learn's report --------------------------------------------------------------------------------------

    def classification_report(self) -> dict[str, Any]:
        """Return scikit-learn's classification report as a dictionary, by class name and averaged."""
        from sklearn.metrics import classification_report  # slow to import

        indices = range(len(self.classes))
        report: dict[str, Any] = classification_report(
            self.labels, self.predictions, labels=indices, output_dict=True, zero_division=0
        )
        scores_by_class = [report.pop(str(index)) for index in indices]  # by index: a class may be called "accuracy"
        named = {}
        for name, scores in zip(self.classes, scores_by_class, strict=True):
            key = f"{name} (class)" if name in report else name
            named[key] = scores
        return named | report

    def classification_report_text(self) -> str:
        """Return scikit-learn's classification report as a table."""
        from sklearn.metrics import classification_report  # slow to import

        return str(
            classification_report(
                self.labels,
                self.predictions,
                labels=range(len(self.classes)),
                target_names=[printable(name) for name in self.classes],
                digits=4,
                zero_division=0,
            )
        )
