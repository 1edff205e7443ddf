from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.evaluation.metrics import Evaluation
from pipeline.reports.plots import (
    escape_text,
    plot_confusion_matrix,
    plot_reliability,
    plot_training_curves,
)
from pipeline.training.loop import EpochResult

CLASSES = ("T-shirt/top", "Ankle boot", "Bag")


def evaluate_predictions(predictions: list[int], labels: list[int], classes: tuple[str, ...] = CLASSES) -> Evaluation:
    return Evaluation.from_logits(torch.eye(len(classes))[predictions], torch.tensor(labels), classes)


def list_texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# --- an evaluation --------------------------------------------------------------------------------------------------


def test_confusion_matrix_shows_counts_and_class_names() -> None:
    figure = plot_confusion_matrix(evaluate_predictions([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 2]))
    assert list_texts(figure) == ["2", "0", "0", "1", "1", "0", "0", "0", "2"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(CLASSES)
    assert "83.33%" in figure.axes[0].get_title()


def test_confusion_matrix_of_many_classes_has_no_numbers() -> None:
    classes = tuple(str(index) for index in range(100))
    figure = plot_confusion_matrix(evaluate_predictions(list(range(100)), list(range(100)), classes))
    assert list_texts(figure) == []


def test_reliability_has_a_point_for_each_bin() -> None:
    evaluation = evaluate_predictions([0, 0, 1], [0, 1, 1])
    (points,) = plot_reliability(evaluation).axes[0].collections
    confidence = np.e / (np.e + 2)
    assert np.asarray(points.get_offsets()) == pytest.approx(np.array([[confidence, 2 / 3]]))


# --- a training -----------------------------------------------------------------------------------------------------


def build_history() -> list[EpochResult]:
    history = []
    for epoch in (1, 2, 3):
        values: dict[str, Any] = {field.name: 0.0 for field in fields(EpochResult)}
        values["epoch"] = epoch
        values["train_loss"] = 1 / epoch
        values["train_accuracy"] = 1 - 1 / epoch
        values["validation_loss"] = 2 / epoch
        values["validation_accuracy"] = 1 - 0.5 / epoch
        history.append(EpochResult(**values))
    return history


def test_training_curves_show_both_splits(tmp_path: Path) -> None:
    figure = plot_training_curves(build_history())
    loss, accuracy = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in loss.lines] == [[1, 1 / 2, 1 / 3], [2, 1, 2 / 3]]
    assert [line.get_label() for line in accuracy.lines] == ["train", "validation"]
    figure.savefig(tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").ndim == 3


# --- any figure -----------------------------------------------------------------------------------------------------


def test_class_name_is_not_read_as_formula(tmp_path: Path) -> None:
    figure = plot_confusion_matrix(evaluate_predictions([0, 1, 1], [0, 1, 0], (r"$\frac$", "$")))
    figure.savefig(tmp_path / "matrix.png")  # raises ValueError for a broken formula
    assert imread(tmp_path / "matrix.png").std() > 0
    assert escape_text("2 $ or 3 $") == r"2 \$ or 3 \$"


def test_any_class_name_can_be_drawn(tmp_path: Path) -> None:
    names = ("\x1b[2J\0\n", "\udcff\U0010ffff", "x" * 10_000)
    figure = plot_confusion_matrix(evaluate_predictions([0, 1, 2], [0, 1, 2], names))
    for suffix in ("png", "svg", "pdf"):
        figure.savefig(tmp_path / f"matrix.{suffix}")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [r"\x1b[2J\x00\n", r"\udcff\U0010ffff", "x" * 40 + "..."]


def test_letters_that_the_font_lacks_give_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    figure = plot_confusion_matrix(evaluate_predictions([0, 1], [0, 1], ("\u732b", "\u72ac")))
    figure.savefig(tmp_path / "matrix.png")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
