"""Figures. The only room that imports matplotlib, without pyplot: nothing global, no window, no display needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pipeline.evaluation import Evaluation

if TYPE_CHECKING:  # evaluate.py draws too, and imports nothing that trains
    from pipeline.training import Epoch

MOST_NUMBERED = 20  # classes; with more, names and numbers would overlap


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Return the confusion matrix: truth in rows, prediction in columns, colour by share of the row."""
    counts, names = evaluation.confusion, evaluation.classes
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set(xlabel="prediction", ylabel="truth", title=f"{len(evaluation.labels):,} images, {_accuracy(evaluation)}")
    if len(names) <= MOST_NUMBERED:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if shares[row, column] > 0.5 else "black" if count else "lightgrey"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=shade, fontsize=9)
    return figure


def _accuracy(evaluation: Evaluation) -> str:
    low, high = evaluation.interval
    return f"accuracy {evaluation.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})"


def misclassified(evaluation: Evaluation, images: Tensor) -> Figure:
    """Return the most confident mistakes among ``images``, uint8 [N, 1, 28, 28], with truth, guess and probability."""
    mistakes = evaluation.mistakes(25)
    wrong = int((evaluation.predictions != evaluation.labels).sum())
    figure = Figure(figsize=(10, 11), layout="constrained")
    figure.suptitle(f"The most confident of {wrong:,} mistakes in {len(evaluation.labels):,} images")
    for axes, index in zip(figure.subplots(5, 5).flat, [*mistakes, *[None] * 25], strict=False):
        axes.axis("off")
        if index is not None:
            guess = evaluation.predictions[index]
            truth, probability = evaluation.labels[index], evaluation.probabilities[index, guess]
            axes.imshow(images[index, 0].numpy(), cmap="gray", vmin=0, vmax=255)
            names = evaluation.classes
            axes.set_title(f"truth: {names[truth]}\nguess: {names[guess]} ({probability:.1%})", fontsize=9)
    return figure


def training_curves(epochs: Sequence[Epoch]) -> Figure:
    """Return loss and accuracy over the epochs, training beside validation."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    steps = [epoch.epoch for epoch in epochs]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, marker in (("train", "o"), ("validation", "s")):
            values = [getattr(epoch, f"{split}_{metric}") for epoch in epochs]
            axes.plot(steps, values, marker=marker, markersize=4, label=split)
        axes.set(xlabel="epoch", ylabel=metric, title=metric.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
