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

WHITE = 255
GOOD_SIDE, FOUND_SIDE = 64, 84  # pixels of a picture on a contact sheet
Picture = tuple[np.ndarray | None, str]  # uint8 [height, width] or [height, width, 3] or None, and a caption


def _show_sheet(axes: Axes, sheet: np.ndarray) -> None:
    """Show grey levels or colours as they are, without ticks or a frame."""
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=WHITE)
    axes.axis("off")


def _blank_sheet(height: int, width: int, *, colour: bool) -> np.ndarray:
    """Return a white image, uint8 [height, width] or [height, width, 3]."""
    return np.full((height, width, 3) if colour else (height, width), WHITE, np.uint8)


def _paste(sheet: np.ndarray, picture: np.ndarray, top: int, left: int) -> None:
    """Copy a picture into the sheet; a grey one also into a sheet of colours."""
    if sheet.ndim == 3 and picture.ndim == 2:
        picture = picture[..., None]
    sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def plot_misclassified(evaluation: Evaluation, images: Tensor) -> Figure:
    """Return the 25 most confident mistakes, with truth, prediction and probability.

    ``images``, uint8 [N, channels, height, width], are those that were evaluated.
    """
    columns = 5
    _, channels, height, width = images.shape
    text_height = round(3 / 7 * max(height, width))  # of the pixels of the sheet, which is always as wide
    row_height, column_width = height + text_height, round(10 / 7 * max(height, width))
    mistakes = evaluation.most_confident_mistakes(columns * columns)
    wrong = int((~evaluation.is_correct).sum())
    figure = QuietFigure(figsize=(10, 10.5))
    axes = figure.add_axes((0.01, 0.02, 0.98, 0.93))
    axes.set_title(f"The most confident of {wrong:,} mistakes in {len(evaluation.labels):,} images")
    sheet = _blank_sheet(columns * row_height, columns * column_width, colour=channels == 3)
    for position, index in enumerate(mistakes):
        row, column = divmod(position, columns)
        top = row * row_height + row_height - height
        left = column * column_width + (column_width - width) // 2
        _paste(sheet, arrange_for_display(images[index].numpy()), top, left)
        text = _describe_mistake(evaluation, int(index))
        axes.text(left + width / 2, top - text_height / 6, text, ha="center", va="bottom", fontsize=9)
    _show_sheet(axes, sheet)
    return figure


def _describe_mistake(evaluation: Evaluation, index: int) -> str:
    truth = escape_text(evaluation.classes[evaluation.labels[index]])
    prediction = escape_text(evaluation.classes[evaluation.predictions[index]])
    return f"truth: {truth}\nguess: {prediction} ({evaluation.confidence[index]:.1%})"


def plot_confusions(evaluation: Evaluation, images: Tensor) -> Figure:
    """Return the most frequent pairs of truth and prediction, one in a row, with their most confident examples.

    ``images``, uint8 [N, channels, height, width], are those that were evaluated.
    """
    pairs = evaluation.most_frequent_confusions(8)
    rows = max(len(pairs), 1)
    columns = 10
    _, channels, height, width = images.shape
    row_height, column_width = round(8 / 7 * height), round(8 / 7 * width)  # a picture with its margin
    # compressed: the only layout that makes room for the texts beside an image of fixed proportions
    figure = QuietFigure(figsize=(9, 0.6 + 0.75 * rows), layout="compressed")
    axes = figure.subplots()
    axes.set_title("The most frequent confusions and their most confident examples" if pairs else "No mistakes")
    sheet = _blank_sheet(rows * row_height, columns * column_width, colour=channels == 3)
    for row, pair in enumerate(pairs):
        top = row * row_height
        examples = _find_examples(evaluation, pair["label"], pair["prediction"])
        for column, index in enumerate(examples[:columns]):
            _paste(sheet, arrange_for_display(images[index].numpy()), top, column * column_width)
        label, prediction = escape_text(pair["label"]), escape_text(pair["prediction"])
        text = f"{label} called {prediction}: {pair['count']:,}"
        axes.text(-width / 5, top + height / 2, text, ha="right", va="center")
    _show_sheet(axes, sheet)
    return figure


def _find_examples(evaluation: Evaluation, label: str, prediction: str) -> np.ndarray:
    """Return the indices of the images of one class that were called another, the most confident first."""
    mistakes = evaluation.most_confident_mistakes(len(evaluation.labels))
    is_label = evaluation.labels[mistakes] == evaluation.classes.index(label)
    is_prediction = evaluation.predictions[mistakes] == evaluation.classes.index(prediction)
    return np.asarray(mistakes[is_label & is_prediction])


def plot_contact_sheet(
    classes: Sequence[tuple[str, str, Sequence[np.ndarray]]], problems: Sequence[tuple[str, Sequence[Picture]]]
) -> Figure:
    """Return a sheet with good pictures of each class, and below them those with a problem.

    Parameters
    ----------
    classes
        Name, size in words, and up to ten images of each class, uint8 [height, width] or [height, width, 3]: a row.
    problems
        A title and up to eight pictures with captions for each problem.
    """
    columns, cell = 8, 120  # pixels of a picture of a problem with its caption
    good_cell, title_height = 72, 24
    start = 2 * title_height + len(classes) * good_cell
    height, width = start + max(len(problems), 1) * cell, columns * cell
    figure = QuietFigure(figsize=(10, height / 96 + 0.2))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    pictures = [picture for _, _, row in classes for picture in row]
    pictures += [picture for _, row in problems for picture, _ in row if picture is not None]
    sheet = _blank_sheet(height, width, colour=any(picture.ndim == 3 for picture in pictures))
    title = "As the model sees them: the first training images of each class"
    axes.text(2, 4, title, va="top", fontsize=11, weight="bold")
    for row, (name, size, images) in enumerate(classes):
        top = title_height + row * good_cell
        text = f"{escape_text(name, 30)}\n{size}"
        axes.text(2, top + GOOD_SIDE / 2, text, va="center", fontsize=8)
        for column, picture in enumerate(images[:10]):
            small = _fit(picture, GOOD_SIDE)
            _paste(sheet, small, top + (GOOD_SIDE - len(small)) // 2, width - (10 - column) * good_cell)
    title = "What was found, and the first images of each problem" if problems else "Nothing was found"
    axes.text(2, start - title_height + 4, title, va="top", fontsize=11, weight="bold")
    for row, (problem, found) in enumerate(problems):
        top = start + row * cell
        axes.text(2, top + 2, escape_text(problem), va="top", fontsize=9, weight="bold")
        for column, (pixels, caption) in enumerate(found[:columns]):
            _add_picture(axes, sheet, column * cell, top + 16, (pixels, caption))
    _show_sheet(axes, sheet)
    return figure


def _fit(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a picture resized so that its longer side has ``side`` pixels; an enlarged one shows its pixels."""
    image = Image.fromarray(picture)
    size = [max(1, round(side * length / max(image.size))) for length in image.size]
    resample = Image.Resampling.BOX if max(image.size) > side else Image.Resampling.NEAREST
    return np.asarray(image.resize((size[0], size[1]), resample))


def _add_picture(axes: Axes, sheet: np.ndarray, left: int, top: int, picture: Picture) -> None:
    """Copy a picture into the sheet, small, and write its caption below."""
    side = FOUND_SIDE
    pixels, caption = picture
    if pixels is None:
        axes.text(left + side / 2, top + side / 2, "no picture", ha="center", va="center", fontsize=7)
    else:
        _paste(sheet, _fit(pixels, side), top, left)
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
