from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline import plots
from pipeline.evaluation import evaluate
from pipeline.training import Epoch

NAMES = ("T-shirt/top", "Ankle boot", "Bag")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_confusion_matrix_shows_every_count_and_the_class_names() -> None:
    guess = torch.tensor([0, 0, 0, 1, 2, 2])
    figure = plots.confusion_matrix(evaluate(torch.eye(3)[guess], torch.tensor([0, 0, 1, 1, 2, 2]), NAMES))
    assert texts(figure) == ["2", "0", "0", "1", "1", "0", "0", "0", "2"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(NAMES)
    assert "83.33%" in figure.axes[0].get_title()


def test_confusion_matrix_of_many_classes_leaves_the_numbers_out() -> None:
    classes = tuple(str(i) for i in range(100))
    figure = plots.confusion_matrix(evaluate(torch.eye(100), torch.arange(100), classes))
    assert texts(figure) == []


@pytest.mark.parametrize("wrong", [0, 3, 60])
def test_misclassified_shows_truth_guess_and_probability(wrong: int) -> None:
    logits = torch.eye(3)[[1] * wrong + [0] * (100 - wrong)]
    evaluation = evaluate(logits, torch.zeros(100, dtype=torch.int64), NAMES)
    figure = plots.misclassified(evaluation, torch.zeros(100, 1, 28, 28, dtype=torch.uint8))
    assert texts(figure) == ["truth: T-shirt/top\nguess: Ankle boot (57.6%)"] * min(wrong, 25)
    assert figure.axes[0].get_title() == f"The most confident of {wrong} mistakes in 100 images"


def test_misclassified_shows_the_pixels_of_the_mistakes() -> None:
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 28, 28) * 100
    evaluation = evaluate(torch.eye(3)[[1, 0, 1]], torch.tensor([1, 1, 2]), NAMES)  # the second and third are wrong
    (sheet,) = plots.misclassified(evaluation, images).axes[0].images
    levels, counts = np.unique(np.asarray(sheet.get_array()), return_counts=True)
    assert dict(zip(levels, counts, strict=True)) == {100: 28 * 28, 200: 28 * 28, 255: 200 * 200 - 2 * 28 * 28}


def test_training_curves_draw_both_splits(tmp_path: Path) -> None:
    epochs = [Epoch(i, 1 / i, 1 - 1 / i, 2 / i, 1 - 2 / i, 0.01, 1000.0, float(i)) for i in range(1, 4)]
    figure = plots.training_curves(epochs)
    loss, accuracy = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in loss.lines] == [[1, 1 / 2, 1 / 3], [2, 1, 2 / 3]]
    assert [line.get_label() for line in accuracy.lines] == ["train", "validation"]
    figure.savefig(tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").ndim == 3


def test_confusions_show_each_pair_with_its_count_and_examples() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 28, 28) * 40
    evaluation = evaluate(torch.eye(3)[[1, 1, 2, 0, 1, 2]], torch.tensor([0, 0, 0, 0, 1, 2]), NAMES)
    figure = plots.confusions(evaluation, images)
    assert texts(figure) == ["T-shirt/top called Ankle boot: 2", "T-shirt/top called Bag: 1"]
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    assert [sheet[0, 0], sheet[0, 32], sheet[32, 0], sheet[32, 32]] == [0, 40, 80, 255]
    right = evaluate(torch.eye(3)[[0]], torch.tensor([0]), NAMES)
    assert plots.confusions(right, images).axes[0].get_title() == "No mistakes"


def test_reliability_draws_a_point_for_each_bin() -> None:
    evaluation = evaluate(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 1, 1]), NAMES)
    (points,) = plots.reliability(evaluation).axes[0].collections
    assert np.asarray(points.get_offsets()) == pytest.approx(np.array([[0.5761, 2 / 3]]), abs=1e-4)


def test_a_class_may_have_a_name_that_would_be_a_broken_formula(tmp_path: Path) -> None:
    evaluation = evaluate(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 0]), (r"$\frac$", "$"))
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    plots.confusion_matrix(evaluation).savefig(tmp_path / "matrix.png")
    plots.misclassified(evaluation, images).savefig(tmp_path / "mistakes.png")
    plots.confusions(evaluation, images).savefig(tmp_path / "confusions.png")
    assert all(imread(file).std() > 0 for file in tmp_path.iterdir())
