"""Figures that show pictures: mistakes, confusions, findings of the cleaning, a prediction.

A sheet of many pictures is drawn as one image: a subplot for each picture takes four times as long.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pipeline.data.preparation import arrange_for_display
from pipeline.evaluation.metrics import Evaluation
from pipeline.reports.plots import QuietFigure, escape_text

SIDE = 28  # pixels
WHITE = 255
Picture = tuple[np.ndarray | None, str]  # uint8 [height, width] or None, and a caption


def _show_sheet(axes: Axes, sheet: np.ndarray) -> None:
    """Show grey values as they are, without ticks or a frame."""
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=WHITE)
    axes.axis("off")


def plot_misclassified(evaluation: Evaluation, images: Tensor) -> Figure:
    """Return the 25 most confident mistakes, with truth, prediction and probability.

    ``images``, uint8 [N, 1, 28, 28], are those that were evaluated.
    """
    columns, cell = 5, 40  # pixels of a picture with its text
    mistakes = evaluation.most_confident_mistakes(columns * columns)
    wrong = int((~evaluation.is_correct).sum())
    figure = QuietFigure(figsize=(10, 10.5))
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.93))
    axes.set_title(f"The most confident of {wrong:,} mistakes in {len(evaluation.labels):,} images")
    sheet = np.full((columns * cell, columns * cell), WHITE, np.uint8)
    for position, index in enumerate(mistakes):
        row, column = divmod(position, columns)
        top = row * cell + cell - SIDE
        left = column * cell + (cell - SIDE) // 2
        sheet[top : top + SIDE, left : left + SIDE] = images[index, 0].numpy()
        text = _describe_mistake(evaluation, int(index))
        axes.text(left + SIDE / 2, top - 2, text, ha="center", va="bottom", fontsize=9)
    _show_sheet(axes, sheet)
    return figure


def _describe_mistake(evaluation: Evaluation, index: int) -> str:
    truth = escape_text(evaluation.classes[evaluation.labels[index]])
    prediction = escape_text(evaluation.classes[evaluation.predictions[index]])
    return f"truth: {truth}\nguess: {prediction} ({evaluation.confidence[index]:.1%})"


def plot_confusions(evaluation: Evaluation, images: Tensor) -> Figure:
    """Return the most frequent pairs of truth and prediction, one in a row, with their most confident examples.

    ``images``, uint8 [N, 1, 28, 28], are those that were evaluated.
    """
    pairs = evaluation.most_frequent_confusions(8)
    rows = max(len(pairs), 1)
    columns, cell = 10, 32  # pixels of a picture with its margin
    # compressed: the only layout that makes room for the texts beside an image of fixed proportions
    figure = QuietFigure(figsize=(9, 0.6 + 0.75 * rows), layout="compressed")
    axes = figure.subplots()
    axes.set_title("The most frequent confusions and their most confident examples" if pairs else "No mistakes")
    sheet = np.full((rows * cell, columns * cell), WHITE, np.uint8)
    for row, pair in enumerate(pairs):
        top = row * cell
        examples = _find_examples(evaluation, pair["label"], pair["prediction"])
        for column, index in enumerate(examples[:columns]):
            left = column * cell
            sheet[top : top + SIDE, left : left + SIDE] = images[index, 0].numpy()
        label, prediction = escape_text(pair["label"]), escape_text(pair["prediction"])
        text = f"{label} called {prediction}: {pair['count']:,}"
        axes.text(-6, top + SIDE / 2, text, ha="right", va="center")
    _show_sheet(axes, sheet)
    return figure


def _find_examples(evaluation: Evaluation, label: str, prediction: str) -> np.ndarray:
    """Return the indices of the images of one class that were called another, the most confident first."""
    mistakes = evaluation.most_confident_mistakes(len(evaluation.labels))
    is_label = evaluation.labels[mistakes] == evaluation.classes.index(label)
    is_prediction = evaluation.predictions[mistakes] == evaluation.classes.index(prediction)
    return np.asarray(mistakes[is_label & is_prediction])


def plot_contact_sheet(rows: Sequence[tuple[str, Sequence[Picture]]]) -> Figure:
    """Return pictures in rows, each row with a title; up to eight in a row, each with a caption."""
    columns, cell = 8, 120  # pixels of a picture with its caption
    count = max(len(rows), 1)
    figure = QuietFigure(figsize=(10, 0.8 + 1.25 * count))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.99 - 0.5 / figure.get_figheight()))
    axes.set_title("What was found, and the first images of each problem" if rows else "Nothing was found")
    sheet = np.full((count * cell, columns * cell), WHITE, np.uint8)
    for row, (title, pictures) in enumerate(rows):
        top = row * cell
        axes.text(2, top + 2, escape_text(title), va="top", fontsize=9, weight="bold")
        for column, picture in enumerate(pictures[:columns]):
            _add_picture(axes, sheet, column * cell, top + 16, picture)
    _show_sheet(axes, sheet)
    return figure


def _add_picture(axes: Axes, sheet: np.ndarray, left: int, top: int, picture: Picture) -> None:
    """Copy a picture into the sheet, small, and write its caption below."""
    side = 84  # pixels
    pixels, caption = picture
    if pixels is None:
        axes.text(left + side / 2, top + side / 2, "no picture", ha="center", va="center", fontsize=7)
    else:
        image = Image.fromarray(pixels)
        size = [max(1, side * length // max(image.size)) for length in image.size]
        small = image.resize((size[0], size[1]))
        sheet[top : top + small.height, left : left + small.width] = np.asarray(small)
    if len(caption) > 20:
        caption = f"{caption[:9]}...{caption[-9:]}"
    axes.text(left, top + side + 2, escape_text(caption), va="top", fontsize=6)


def plot_prediction(picture: np.ndarray, pixels: np.ndarray, names: Sequence[str], probabilities: np.ndarray) -> Figure:
    """Return three plots: a picture, the pixels that the model got, and the ten most probable classes.

    Parameters
    ----------
    picture
        uint8 [height, width] or [height, width, 3].
    pixels
        uint8 [channels, height, width], the picture as it was prepared.
    names
        Of the classes.
    probabilities
        float [classes].
    """
    most_probable = np.argsort(-probabilities, kind="stable")[:10]
    figure = QuietFigure(figsize=(9, 3.2), layout="constrained")
    picture_axes, pixel_axes, bar_axes = figure.subplots(1, 3)
    picture_axes.set_title("the picture")
    _show_sheet(picture_axes, picture)
    pixel_axes.set_title("what the model saw")
    _show_sheet(pixel_axes, arrange_for_display(pixels))
    positions = range(len(most_probable))
    bar_axes.barh(positions, probabilities[most_probable])
    bar_axes.set_yticks(positions, [escape_text(names[index]) for index in most_probable])
    bar_axes.invert_yaxis()
    bar_axes.set(xlim=(0, 1), xlabel="probability")
    return figure
