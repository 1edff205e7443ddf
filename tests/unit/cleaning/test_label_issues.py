"""Wrong labels among digits; models that were trained for a short time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.cleaning import label_issues
from pipeline.cleaning.label_issues import LabelIssue, detect_label_issues
from pipeline.data.datasets import load_splits
from pipeline.training.models import build_model

WRONG = (5, 105, 205, 305)


@pytest.fixture(scope="module")
def issues() -> list[LabelIssue]:
    """Return the issues of 500 digits, four of them with a wrong label."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(label_issues, "TRAINING_STEPS", 100)
        return detect(*load_digits())


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    train = load_splits("digits", Path()).train
    labels = train.labels[:500].numpy().copy()
    for index in WRONG:
        labels[index] = (labels[index] + 5) % 10
    return train.images[:500].numpy(), labels


def detect(pixels: np.ndarray, labels: np.ndarray) -> list[LabelIssue]:
    classes = [f"digit {number}" for number in range(10)]
    return detect_label_issues(pixels, labels, classes, progress=False)


def test_wrong_labels_are_found(issues: list[LabelIssue]) -> None:
    indices = {issue.index for issue in issues}
    assert indices >= set(WRONG)
    assert len(indices) < 20


def test_most_suspicious_comes_first(issues: list[LabelIssue]) -> None:
    assert issues[0].index in WRONG


def test_detail_names_the_true_class(issues: list[LabelIssue]) -> None:
    labels = load_splits("digits", Path()).train.labels
    for issue in issues:
        if issue.index in WRONG:
            assert issue.detail.startswith(f"looks like 'digit {labels[issue.index]}' (")
            assert issue.detail.endswith("%)")


def test_same_images_give_same_issues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "TRAINING_STEPS", 15)
    first = detect(*load_digits())
    torch.manual_seed(1)
    np.random.seed(1)
    assert detect(*load_digits()) == first


def test_wrong_labels_are_found_among_large_colour_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "build_model", lambda _, classes, images: build_model("mlp", classes, images))
    monkeypatch.setattr(label_issues, "MAX_TRAIN_BYTES", 60 * 3 * 50 * 33)  # of reduced images: 60 of 200 are learned
    monkeypatch.setattr(label_issues, "JUDGED_AT_ONCE", 30)
    monkeypatch.setattr(label_issues, "TRAINING_STEPS", 60)
    true_labels = np.arange(300) % 3
    pixels = np.random.default_rng(0).integers(0, 200, (300, 3, 100, 66), np.uint8)
    pixels[np.arange(300), true_labels] += 50
    labels = true_labels.copy()
    labels[[7, 100, 201]] = [0, 2, 1]  # in truth 1, 1, 0
    found = detect_label_issues(pixels, labels, ["red", "green", "blue"], progress=False)
    issues = {issue.index: issue.detail for issue in found}
    assert issues.keys() >= {7, 100, 201}
    assert issues[201].startswith("looks like 'red' (")
    assert len(issues) < 20
