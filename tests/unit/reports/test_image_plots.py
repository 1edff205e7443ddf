from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.evaluation.metrics import Evaluation
from pipeline.reports.image_plots import (
    plot_confusions,
    plot_contact_sheet,
    plot_misclassified,
    plot_prediction,
)

CLASSES = ("T-shirt/top", "Ankle boot", "Bag")
PIXELS = 28 * 28


def evaluate_predictions(predictions: list[int], labels: list[int], classes: tuple[str, ...] = CLASSES) -> Evaluation:
    return Evaluation.from_logits(torch.eye(len(classes))[predictions], torch.tensor(labels), classes)


def grey_images(*levels: int) -> torch.Tensor:
    """Return images of one grey level each, uint8 [N, 1, 28, 28]."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def list_texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def read_sheet(figure: Figure) -> np.ndarray:
    """Return the pixels of the one image that the figure shows."""
    (sheet,) = figure.axes[0].images
    return np.asarray(sheet.get_array())


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mistakes", [0, 3, 60])
def test_misclassified_shows_truth_prediction_and_probability(mistakes: int) -> None:
    predictions = [1] * mistakes + [0] * (100 - mistakes)
    figure = plot_misclassified(evaluate_predictions(predictions, [0] * 100), grey_images(*range(100)))
    expected = "truth: T-shirt/top\nguess: Ankle boot (57.6%)"
    assert list_texts(figure) == [expected] * min(mistakes, 25)
    assert figure.axes[0].get_title() == f"The most confident of {mistakes} mistakes in 100 images"


def test_misclassified_shows_pixels_of_mistakes() -> None:
    evaluation = evaluate_predictions([1, 0, 1], [1, 1, 2])  # the second and third are wrong
    sheet = read_sheet(plot_misclassified(evaluation, grey_images(0, 100, 200)))
    levels, counts = np.unique(sheet, return_counts=True)
    assert levels.tolist() == [100, 200, 255]
    assert counts.tolist() == [PIXELS, PIXELS, 200 * 200 - 2 * PIXELS]


def test_confusions_show_pairs_with_counts_and_examples() -> None:
    evaluation = evaluate_predictions([1, 1, 2, 0, 1, 2], [0, 0, 0, 0, 1, 2])
    figure = plot_confusions(evaluation, grey_images(0, 40, 80, 120, 160, 200))
    assert list_texts(figure) == ["T-shirt/top called Ankle boot: 2", "T-shirt/top called Bag: 1"]
    sheet = read_sheet(figure)
    assert (sheet[0, 0], sheet[0, 32]) == (0, 40)
    assert (sheet[32, 0], sheet[32, 32]) == (80, 255)


@pytest.mark.parametrize("length", [1, 10, 25])
def test_confusions_have_room_for_class_names(length: int) -> None:
    classes = ("a" * length, "b" * length, "c" * length)
    predictions = [1, 2, 0, 2, 0, 1, 1, 1]
    evaluation = evaluate_predictions(predictions, [0, 0, 1, 1, 2, 2, 2, 2], classes)
    figure = plot_confusions(evaluation, grey_images(*range(8)))
    figure.draw_without_rendering()
    assert len(figure.axes[0].texts) == 6
    assert min(text.get_window_extent().x0 for text in figure.axes[0].texts) >= 0


def test_confusions_without_mistakes_say_so() -> None:
    figure = plot_confusions(evaluate_predictions([0], [0]), grey_images(0))
    assert figure.axes[0].get_title() == "No mistakes"


def test_class_names_are_not_read_as_formulas(tmp_path: Path) -> None:
    evaluation = evaluate_predictions([0, 1, 1], [0, 1, 0], (r"$\frac$", "$"))
    images = grey_images(0, 0, 0)
    plot_misclassified(evaluation, images).savefig(tmp_path / "mistakes.png")
    plot_confusions(evaluation, images).savefig(tmp_path / "confusions.png")
    for file in tmp_path.iterdir():
        assert imread(file).std() > 0


# --- the cleaning ---------------------------------------------------------------------------------------------------


def test_contact_sheet_shows_pictures_with_captions() -> None:
    black = np.zeros((10, 20), np.uint8)
    figure = plot_contact_sheet([], [("blank: 2", [(black, "7: a.png"), (None, "8: b.png")])])
    assert list_texts(figure)[2:] == ["blank: 2", "7: a.png", "no picture", "8: b.png"]
    levels, counts = np.unique(read_sheet(figure), return_counts=True)
    assert levels.tolist() == [0, 255]
    assert counts[0] == 84 * 42  # twice as wide as high, as the picture


def test_contact_sheet_shows_eight_pictures_at_most() -> None:
    picture = np.zeros((10, 10), np.uint8)
    figure = plot_contact_sheet([], [("blank: 9", [(picture, str(index)) for index in range(9)])])
    assert list_texts(figure)[2:] == ["blank: 9", *"01234567"]


def test_contact_sheet_shortens_long_captions() -> None:
    figure = plot_contact_sheet([], [("blank: 1", [(None, "7: a-file-with-a-long-name.png")])])
    assert list_texts(figure)[-1] == "7: a-file...-name.png"


def test_contact_sheet_without_rows_says_so() -> None:
    assert list_texts(plot_contact_sheet([], []))[-1] == "Nothing was found"


def test_contact_sheet_shows_good_pictures_enlarged() -> None:
    grey = np.array([[0, 100], [200, 50]], np.uint8)
    sheet = read_sheet(plot_contact_sheet([("cat", "1,234 to train on", [grey]), ("dog", "2", [])], []))
    assert sheet.ndim == 2
    for level in (0, 100, 200, 50):
        assert (sheet == level).sum() == 32 * 32


def test_contact_sheet_names_classes_with_their_size() -> None:
    texts = list_texts(plot_contact_sheet([("cat", "1,234 to train on", [])], []))
    assert texts[1] == "cat\n1,234 to train on"


def test_contact_sheet_shows_colours_beside_grey() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 250
    grey = np.full((64, 64), 100, np.uint8)
    sheet = read_sheet(plot_contact_sheet([("cat", "2", [red, grey])], []))
    assert (sheet == (250, 0, 0)).all(axis=2).sum() == 64 * 64
    assert (sheet == (100, 100, 100)).all(axis=2).sum() == 64 * 64


# --- any size, and colours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", [plot_misclassified, plot_confusions])
def test_mistakes_are_shown_in_colour_and_in_any_size(plot: Callable[..., Figure]) -> None:
    evaluation = evaluate_predictions([1, 0], [0, 0])  # the first is wrong
    images = torch.zeros((2, 3, 40, 24), dtype=torch.uint8)
    images[:, 2] = 200
    sheet = read_sheet(plot(evaluation, images))
    assert (sheet == (0, 0, 200)).all(axis=2).sum() == 40 * 24
    assert (sheet == (255, 255, 255)).all(axis=2).sum() == sheet[..., 0].size - 40 * 24


# --- a prediction ---------------------------------------------------------------------------------------------------


def test_prediction_shows_pictures_and_most_probable_classes() -> None:
    picture = np.full((50, 30), 200, np.uint8)
    pixels = np.full((1, 28, 28), 100, np.uint8)
    names = [f"class {index}" for index in range(12)]
    probabilities = np.arange(12) / 66
    left, middle, bars = plot_prediction(picture, pixels, names, probabilities).axes
    assert np.asarray(left.images[0].get_array()).shape == (50, 30)
    assert np.asarray(middle.images[0].get_array()).max() == 100
    assert [label.get_text() for label in bars.get_yticklabels()] == names[:1:-1]
