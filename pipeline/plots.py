"""Figures. The only room that imports matplotlib, without pyplot: nothing global, no window, no display needed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from pipeline.evaluation import Evaluation

if TYPE_CHECKING:  # evaluate.py draws too, and imports nothing that trains
    from pipeline.comparison import Group
    from pipeline.training import Epoch


class Picture(Figure):
    """A figure that says nothing of letters that its font lacks: classes may have names in any script."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Write the figure to a file."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            super().savefig(*arguments, **options)


MOST_NUMBERED = 20  # classes; with more, names and numbers would overlap


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Return the confusion matrix: truth in rows, prediction in columns, colour by share of the row."""
    counts, names = evaluation.confusion, list(map(_text, evaluation.classes))
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    figure = Picture(figsize=(8, 7.4), layout="constrained")
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
    figure = Picture(figsize=(10, 10.5))
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.93))  # one for all 25: a subplot each takes four times as long
    axes.axis("off")
    axes.set_title(f"The most confident of {wrong:,} mistakes in {len(evaluation.labels):,} images")
    side, cell = 28, 40  # pixels of an image and of its place in the sheet, text included
    sheet = np.full((5 * cell, 5 * cell), 255, np.uint8)
    for place, index in enumerate(mistakes):
        top, left = (cell * position for position in divmod(place, 5))
        top, left = top + cell - side, left + (cell - side) // 2
        sheet[top : top + side, left : left + side] = images[index, 0].numpy()
        guess = evaluation.predictions[index]
        truth, probability = evaluation.labels[index], evaluation.probabilities[index, guess]
        text = f"truth: {evaluation.classes[truth]}\nguess: {evaluation.classes[guess]} ({probability:.1%})"
        axes.text(left + side / 2, top - 2, _text(text), ha="center", va="bottom", fontsize=9)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    return figure


def confusions(evaluation: Evaluation, images: Tensor) -> Figure:
    """Return the most frequent pairs of truth and guess, a row each, with count and their most confident examples.

    ``images``, uint8 [N, 1, 28, 28], are those that were evaluated.
    """
    pairs = evaluation.confusions(8)
    mistakes = evaluation.mistakes(len(images))
    side, cell, columns = 28, 32, 10
    figure = Picture(figsize=(9, 0.6 + 0.75 * max(len(pairs), 1)), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title("The most frequent confusions and their most confident examples" if pairs else "No mistakes")
    sheet = np.full((max(len(pairs), 1) * cell, columns * cell), 255, np.uint8)
    for row, pair in enumerate(pairs):
        label, guess = (evaluation.classes.index(pair[key]) for key in ("label", "prediction"))
        these = mistakes[(evaluation.labels[mistakes] == label) & (evaluation.predictions[mistakes] == guess)]
        for column, index in enumerate(these[:columns]):
            sheet[row * cell :, column * cell :][:side, :side] = images[index, 0].numpy()
        text = f"{pair['label']} called {pair['prediction']}: {pair['count']:,}"
        axes.text(-6, row * cell + side / 2, _text(text), ha="right", va="center")
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    return figure


def contact_sheet(rows: Sequence[tuple[str, Sequence[tuple[np.ndarray | None, str]]]]) -> Figure:
    """Return pictures in rows, each with a title; a picture is uint8 [height, width] or None, and has a caption."""
    columns, cell, side = 8, 120, 84  # of a picture's place and of the picture, in pixels
    figure = Picture(figsize=(10, 0.8 + 1.25 * max(len(rows), 1)))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.99 - 0.5 / figure.get_figheight()))
    axes.axis("off")
    axes.set_title("What was found, and the first images of each" if rows else "Nothing was found")
    sheet = np.full((max(len(rows), 1) * cell, columns * cell), 255, np.uint8)
    for row, (title, pictures) in enumerate(rows):
        axes.text(2, row * cell + 2, _text(title), va="top", fontsize=9, weight="bold")
        for column, (picture, caption) in enumerate(pictures):
            left, top = column * cell, row * cell + 16
            if picture is None:
                axes.text(left + side / 2, top + side / 2, "no picture", ha="center", va="center", fontsize=7)
            else:
                small = Image.fromarray(picture)
                small = small.resize([max(1, side * each // max(small.size)) for each in small.size])
                sheet[top : top + small.height, left : left + small.width] = np.asarray(small)
            caption = caption if len(caption) <= 20 else f"{caption[:9]}...{caption[-9:]}"
            axes.text(left, top + side + 2, _text(caption), va="top", fontsize=6)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    return figure


def _text(name: str) -> str:
    """Return a name that matplotlib shows as it is; between dollars it would read a formula."""
    return name.replace("$", r"\$")


def prediction(picture: np.ndarray, pixels: np.ndarray, names: Sequence[str], probabilities: np.ndarray) -> Figure:
    """Return a picture, uint8 [height, width], beside the ``pixels`` that the model saw and its ten best guesses."""
    best = np.argsort(-probabilities, kind="stable")[:10]
    figure = Picture(figsize=(9, 3.2), layout="constrained")
    for axes, image, title in zip(
        (*figure.subplots(1, 3)[:2],), (picture, pixels), ("the picture", "what the model saw"), strict=True
    ):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title)
        axes.axis("off")
    bars = figure.axes[2]
    bars.barh(range(len(best)), probabilities[best])
    bars.set_yticks(range(len(best)), [_text(names[index]) for index in best])
    bars.invert_yaxis()
    bars.set(xlim=(0, 1), xlabel="probability")
    return figure


def reliability(evaluation: Evaluation) -> Figure:
    """Return how often the model is right against how sure it is; size of a point by its number of images."""
    bins = evaluation.reliability()
    figure = Picture(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="lightgrey", label="calibrated")
    sure, right, images = (np.array([each[key] for each in bins]) for key in ("confidence", "accuracy", "images"))
    axes.scatter(sure, right, 10 + 300 * images / images.sum())
    axes.plot(sure, right, alpha=0.5, label="this model")
    axes.set(xlabel="confidence (probability of the guess)", ylabel="share that is right", title="Reliability")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def comparison(groups: Sequence[Group], curves: Mapping[str, Sequence[float]], metric: str) -> Figure:
    """Return, a row for each group of runs, validation loss over epochs, and ``metric`` against seconds of training.

    ``curves`` are the validation losses by run id. The line on the right joins the runs that no other beats in both.
    """
    from pipeline.comparison import lower_is_better, pareto

    figure = Picture(figsize=(12, 4.5 * len(groups)), layout="constrained")
    for (left, right), group in zip(figure.subplots(len(groups), 2, squeeze=False), groups, strict=True):
        table = group.table.dropna(subset=["training_seconds", metric])
        names = dict(zip(group.table.index, group.table["name"], strict=True))
        for run_id, name in names.items():
            left.plot(range(1, len(curves[run_id]) + 1), curves[run_id], marker=".", label=_text(name))
        left.set(xlabel="epoch", ylabel="validation loss", yscale="log", title=_text(group.title))
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        seconds, values = table["training_seconds"].to_numpy(), table[metric].to_numpy()
        front = pareto(seconds, values, lower=lower_is_better(metric))
        right.plot(seconds[front], values[front], drawstyle="steps-post", color="grey", label="Pareto front")
        for run_id, second, value in zip(table.index, seconds, values, strict=True):
            right.plot(second, value, "o", color=f"C{list(names).index(run_id) % 10}")
        right.set(xlabel="training seconds", ylabel=metric.replace("_", " "), title="What it costs")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        if len(names) <= MOST_NUMBERED:
            left.legend(fontsize=8)
            right.legend(fontsize=8)
    return figure


def training_curves(epochs: Sequence[Epoch]) -> Figure:
    """Return loss and accuracy over the epochs, training beside validation."""
    figure = Picture(figsize=(11, 4.5), layout="constrained")
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
