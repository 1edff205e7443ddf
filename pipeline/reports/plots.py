"""Figures of numbers: an evaluation, a training, several runs.

Only this module and `image_plots` import matplotlib. They do without pyplot: no global state, no window, no display.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.metrics import Evaluation
from pipeline.text import printable

if TYPE_CHECKING:  # evaluate.py draws figures too, and it must not import anything that trains
    from pipeline.reports.comparison import RunGroup
    from pipeline.training.loop import EpochResult

MAX_LABELLED_CLASSES = 20  # with more, names and numbers would overlap
MAX_LEGEND_RUNS = 20
MAX_NAME_LENGTH = 40  # characters; more leave no room for the figure
MAX_TITLE_LENGTH = 120


class QuietFigure(Figure):
    """A figure without warnings about letters that its font lacks: class names may be in any script."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Write the figure to a file."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            super().savefig(*arguments, **options)


def escape_text(text: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Return a name as matplotlib shows it: in one line, cut to ``max_length`` characters.

    Matplotlib would read a text between two dollars as a formula.
    """
    line = printable(text)
    if len(line) > max_length:
        line = f"{line[:max_length]}..."
    return line.replace("$", r"\$")


# --- an evaluation ---------------------------------------------------------------------------------------------------


def plot_confusion_matrix(evaluation: Evaluation) -> Figure:
    """Return the confusion matrix: truth in rows, prediction in columns, colour by share of the row."""
    counts = evaluation.confusion
    row_sums = counts.sum(1, keepdims=True)
    shares = counts / row_sums.clip(min=1)
    low, high = evaluation.interval
    accuracy = f"accuracy {evaluation.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})"
    figure = QuietFigure(figsize=(8, 7.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axes.set(xlabel="prediction", ylabel="truth", title=f"{len(evaluation.labels):,} images, {accuracy}")
    if len(evaluation.classes) <= MAX_LABELLED_CLASSES:
        _label_matrix(axes, evaluation, shares)
    return figure


def _label_matrix(axes: Axes, evaluation: Evaluation, shares: np.ndarray) -> None:
    """Write the class names at the axes and the count in each cell."""
    names = [escape_text(name) for name in evaluation.classes]
    positions = range(len(names))
    axes.set_xticks(positions, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(positions, names)
    for (row, column), count in np.ndenumerate(evaluation.confusion):
        if shares[row, column] > 0.5:  # on dark blue
            colour = "white"
        elif count:
            colour = "black"
        else:
            colour = "lightgrey"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)


def plot_reliability(evaluation: Evaluation) -> Figure:
    """Return the share of right predictions by confidence; the area of a point grows with its number of images."""
    bins = evaluation.reliability_bins()
    confidence = [entry["confidence"] for entry in bins]
    accuracy = [entry["accuracy"] for entry in bins]
    images = np.array([entry["images"] for entry in bins])
    figure = QuietFigure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="lightgrey", label="calibrated")
    axes.scatter(confidence, accuracy, 10 + 300 * images / images.sum())
    axes.plot(confidence, accuracy, alpha=0.5, label="this model")
    axes.set(xlabel="confidence (probability of the prediction)", ylabel="share that is right", title="Reliability")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


# --- a training ------------------------------------------------------------------------------------------------------


def plot_training_curves(history: "Sequence[EpochResult]") -> Figure:
    """Return loss and accuracy over the epochs, of training and of validation."""
    figure = QuietFigure(figsize=(11, 4.5), layout="constrained")
    epochs = [result.epoch for result in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, marker in (("train", "o"), ("validation", "s")):
            values = [getattr(result, f"{split}_{metric}") for result in history]
            axes.plot(epochs, values, marker=marker, markersize=4, label=split)
        axes.set(xlabel="epoch", ylabel=metric, title=metric.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


# --- several runs ----------------------------------------------------------------------------------------------------


def plot_comparison(groups: "Sequence[RunGroup]", losses: Mapping[str, Sequence[float]], metric: str) -> Figure:
    """Return a row of two plots for each group of runs: validation loss by epoch, and a metric by training seconds.

    Parameters
    ----------
    groups
        From `pipeline.reports.comparison.group_runs`.
    losses
        Run id -> the validation loss of each epoch.
    metric
        A column of the groups' tables. A line joins the runs that no other run beats in both metric and seconds.
    """
    figure = QuietFigure(figsize=(12, 4.5 * len(groups)), layout="constrained")
    rows = figure.subplots(len(groups), 2, squeeze=False)
    for (curve_axes, cost_axes), group in zip(rows, groups, strict=True):
        _plot_losses(curve_axes, group, losses)
        _plot_costs(cost_axes, group, metric)
        for axes in (curve_axes, cost_axes):
            axes.grid(alpha=0.3)
            if len(group.table) <= MAX_LEGEND_RUNS:
                axes.legend(fontsize=8)
    return figure


def _plot_losses(axes: Axes, group: "RunGroup", losses: Mapping[str, Sequence[float]]) -> None:
    for run_id, name in group.table["name"].items():
        epochs = range(1, len(losses[run_id]) + 1)
        axes.plot(epochs, losses[run_id], marker=".", label=escape_text(name))
    axes.set(xlabel="epoch", ylabel="validation loss", yscale="log", title=escape_text(group.title, MAX_TITLE_LENGTH))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plot_costs(axes: Axes, group: "RunGroup", metric: str) -> None:
    from pipeline.reports.comparison import is_lower_better, pareto_front  # pandas, which other figures do without

    table = group.table.dropna(subset=["training_seconds", metric])
    seconds = table["training_seconds"].to_numpy()
    values = table[metric].to_numpy()
    front = pareto_front(seconds, values, lower_is_better=is_lower_better(metric))
    axes.plot(seconds[front], values[front], drawstyle="steps-post", color="grey", label="Pareto front")
    run_ids = list(group.table.index)
    for run_id, second, value in zip(table.index, seconds, values, strict=True):
        colour = f"C{run_ids.index(run_id) % 10}"  # that of the run's curve
        axes.plot(second, value, "o", color=colour)
    axes.set(xlabel="training seconds", ylabel=metric.replace("_", " "), title="What it costs")
