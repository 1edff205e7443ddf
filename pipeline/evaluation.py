"""From images to logits, and from logits and labels to an Evaluation. Knows nothing of training or MLflow."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import UserError

CONFIDENCE = 0.95  # of the interval around the accuracy


@dataclass(frozen=True)
class Evaluation:
    """How a model did on a test set.

    Attributes
    ----------
    classes : the class names, in the order of the labels.
    labels : int64 [N], the truth.
    probabilities : float64 [N, classes], the softmax of the logits.
    predictions : int64 [N], the most probable class.
    accuracy, loss : share of correct predictions; mean cross-entropy in nats.
    interval : the ends of the 95% Wilson score interval of the accuracy.
    precision, recall, f1 : macro averages, each class counting the same.
    per_class : precision, recall, f1-score and support of each class, in the order of the labels.
    report : scikit-learn's classification report as a dictionary: per class, by name, and averaged.
    confusion : int64 [classes, classes], truth in rows, prediction in columns.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    predictions: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    loss: float
    precision: float
    recall: float
    f1: float
    per_class: tuple[dict[str, float], ...]
    report: dict[str, Any]
    confusion: np.ndarray

    def confusions(self, most: int = 10) -> list[dict[str, Any]]:
        """Return the most frequent mistakes as ``{"label", "prediction", "count"}``, the most frequent first."""
        off = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-off, axis=None, kind="stable")[:most]
        pairs = zip(*np.unravel_index(order, off.shape), strict=True)
        return [
            {"label": self.classes[row], "prediction": self.classes[column], "count": int(off[row, column])}
            for row, column in pairs
            if off[row, column]
        ]

    def mistakes(self, most: int = 25) -> np.ndarray:
        """Return the indices of the wrong predictions, int64 [up to ``most``], the most confident first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:most]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each prediction, float64 [N]."""
        return np.asarray(self.probabilities.max(1))

    def reliability(self, bins: int = 15) -> list[dict[str, Any]]:
        """Return mean confidence, accuracy and number of images in equal bins of confidence, none of them empty.

        A calibrated model is right as often as it is confident (Guo et al., https://arxiv.org/abs/1706.04599).
        """
        confidence, correct = self.confidence, self.predictions == self.labels
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        images, sure, right = (np.bincount(place, each, bins) for each in (None, confidence, correct))
        return [
            {"confidence": sure[i] / images[i], "accuracy": right[i] / images[i], "images": int(images[i])}
            for i in np.flatnonzero(images)
        ]

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return loss, accuracy and the macro averages, named ``<prefix>_<metric>`` as MLflow shows them."""
        names = ("loss", "accuracy", "precision", "recall", "f1")
        return {f"{prefix}_{name}": getattr(self, name) for name in names}

    def text(self) -> str:
        """Return scikit-learn's classification report as a table."""
        from sklearn.metrics import classification_report

        return str(classification_report(self.labels, self.predictions, **self._names(), digits=4, zero_division=0))

    def _names(self) -> dict[str, Any]:
        return {"labels": range(len(self.classes)), "target_names": self.classes}


def choose_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``mps``; raise UserError where this machine lacks it."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[name]:
        raise UserError(f"this machine has no device {name!r}; choose --device cpu or auto")
    return torch.device(name)


@torch.inference_mode()
def predict(
    model: Callable[[Tensor], Tensor], images: Tensor, *, device: torch.device, batch_size: int = 500
) -> Tensor:
    """Return the logits, float32 [N, classes] on the CPU, for uint8 ``images`` [N, 1, 28, 28]."""
    batches = images.to(device).split(batch_size)
    return torch.cat([model(b.float().contiguous(memory_format=torch.channels_last)) for b in batches]).float().cpu()


def probabilities(model: Callable[[Tensor], Tensor], images: Tensor, *, device: torch.device) -> np.ndarray:
    """Return the probability of each class, float64 [N, classes], for uint8 ``images`` [N, 1, 28, 28]."""
    return predict(model, images, device=device).double().softmax(1).numpy()


def parameters(model: torch.nn.Module) -> int:
    """Return how many trainable numbers the model has."""
    return sum(each.numel() for each in model.parameters())


@torch.inference_mode()
def multiply_adds(model: Callable[[Tensor], Tensor]) -> int:
    """Return how many the convolutions and matrix products of a model on the CPU take for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 28, 28))
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def latencies(models: list[Callable[[Tensor], Tensor]], repeats: int = 100) -> list[float]:
    """Return the median seconds that each model takes for one image on the CPU; they take turns."""
    image = torch.zeros(1, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    seconds: list[list[float]] = [[] for _ in models]
    for turn in range(-10, repeats):  # the first ones warm up
        for model, times in zip(models, seconds, strict=True):
            start = time.perf_counter()
            model(image)
            if turn >= 0:
                times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in seconds]


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the ends of the 95% score interval of an accuracy, by Wilson (1927), JASA 22:209."""
    from scipy.stats import binomtest

    interval = binomtest(correct, images).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def evaluate(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Evaluation:
    """Return the `Evaluation` of ``logits``, float32 [N, classes], against ``labels``, int64 [N].

    Raises
    ------
    UserError
        The logits are not finite, or not one per class and image.
    """
    from sklearn.metrics import classification_report, confusion_matrix

    if logits.shape != (len(labels), len(classes)):
        raise UserError(
            f"the model gives logits of shape {tuple(logits.shape)} where {(len(labels), len(classes))} are needed; "
            "evaluate it on the data set that it was trained on"
        )
    if not logits.isfinite().all():
        raise UserError("the model gives logits that are infinite or NaN; train it again with a smaller --lr")
    log_probabilities = logits.double().log_softmax(1)
    truth, predictions = labels.numpy(), logits.argmax(1).numpy()
    correct = int((truth == predictions).sum())
    averages: dict[str, Any] = classification_report(
        truth, predictions, labels=range(len(classes)), output_dict=True, zero_division=0
    )
    per_class = tuple(averages.pop(str(number)) for number in range(len(classes)))  # by number: names may be anything
    named = zip(classes, per_class, strict=True)
    macro = averages["macro avg"]
    return Evaluation(
        classes=classes,
        labels=truth,
        probabilities=log_probabilities.exp().numpy(),
        predictions=predictions,
        accuracy=correct / len(truth),
        interval=wilson(correct, len(truth)),
        loss=-log_probabilities.gather(1, labels[:, None]).mean().item(),
        precision=float(macro["precision"]),
        recall=float(macro["recall"]),
        f1=float(macro["f1-score"]),
        per_class=per_class,
        report={f"{name} (class)" if name in averages else name: scores for name, scores in named} | averages,
        confusion=confusion_matrix(truth, predictions, labels=range(len(classes))),
    )
