import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from pipeline.errors import UserError
from pipeline.evaluation.metrics import Evaluation, wilson_interval

CLASSES = ("cat", "dog", "bird")


def evaluate_predictions(labels: list[int], predictions: list[int]) -> Evaluation:
    """Return the evaluation of a model that is certain of these predictions."""
    return Evaluation(CLASSES, np.array(labels), np.eye(3)[predictions])


@pytest.fixture(scope="module")
def random_evaluation() -> Evaluation:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet((1, 1, 1), 200)
    return Evaluation(CLASSES, generator.integers(0, 3, 200), probabilities)


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    """Draw an evaluation on 1 to 40 images; some classes may have no image."""
    size = draw(st.integers(1, 40))
    labels = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(0, 9), min_size=3 * size, max_size=3 * size))
    weights = np.array(scores).reshape(size, 3) + 0.5
    return Evaluation(CLASSES, np.array(labels), weights / weights.sum(1, keepdims=True))


# --- metrics --------------------------------------------------------------------------------------------------------


@given(evaluations())
def test_class_metrics_equal_those_of_scikit_learn(evaluation: Evaluation) -> None:
    options: dict[str, Any] = {"labels": range(3), "average": None, "zero_division": 0}
    truth = evaluation.labels
    predictions = evaluation.probabilities.argmax(1)
    assert evaluation.class_precision == pytest.approx(precision_score(truth, predictions, **options))
    assert evaluation.class_recall == pytest.approx(recall_score(truth, predictions, **options))
    assert evaluation.class_f1 == pytest.approx(f1_score(truth, predictions, **options))


@given(evaluations())
def test_averages_equal_those_of_scikit_learn(evaluation: Evaluation) -> None:
    options: dict[str, Any] = {"labels": range(3), "average": "macro", "zero_division": 0}
    truth = evaluation.labels
    predictions = evaluation.probabilities.argmax(1)
    assert evaluation.accuracy == accuracy_score(truth, predictions)
    assert evaluation.precision == pytest.approx(precision_score(truth, predictions, **options))
    assert evaluation.recall == pytest.approx(recall_score(truth, predictions, **options))
    assert evaluation.f1 == pytest.approx(f1_score(truth, predictions, **options))


@given(evaluations())
def test_loss_equals_that_of_scikit_learn(evaluation: Evaluation) -> None:
    expected = log_loss(evaluation.labels, evaluation.probabilities, labels=range(3))
    assert evaluation.loss == pytest.approx(expected)


def test_metrics_are_named_with_their_prefix(random_evaluation: Evaluation) -> None:
    metrics = random_evaluation.as_metrics("test")
    assert {"test_loss", "test_accuracy", "test_precision", "test_recall", "test_f1"} <= set(metrics)
    assert metrics["test_f1"] == random_evaluation.f1


def test_a_class_without_images_scores_zero() -> None:
    evaluation = evaluate_predictions([0, 1], [0, 1])
    assert evaluation.class_support.tolist() == [1, 1, 0]
    assert evaluation.class_recall[2] == 0
    assert evaluation.class_f1[2] == 0


def test_a_probability_of_zero_keeps_the_loss_finite() -> None:
    evaluation = evaluate_predictions([1], [0])
    assert evaluation.loss == pytest.approx(708.4, abs=0.1)  # -ln of the smallest positive float


@pytest.mark.parametrize("size", [0, 2])
def test_metrics_without_usable_images_are_nan(size: int) -> None:
    evaluation = Evaluation(CLASSES, np.zeros(size, np.int64), np.full((size, 3), math.nan))
    assert not evaluation.is_usable
    assert all(math.isnan(value) for value in evaluation.as_metrics("test").values())
    assert all(math.isnan(end) for end in evaluation.interval)
    assert np.isnan(evaluation.class_recall).all()


# --- the interval ---------------------------------------------------------------------------------------------------


def test_wilson_interval_equals_one_worked_by_hand() -> None:
    # Wilson (1927), JASA 22:209, for 9 of 10 at 95%
    assert wilson_interval(9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-5)


def test_interval_of_the_accuracy_follows_the_confidence() -> None:
    evaluation = evaluate_predictions([0] * 10, [0] * 9 + [1])
    expected = binomtest(9, 10).proportion_ci(0.8, "wilson")
    assert evaluation.interval == wilson_interval(9, 10)
    assert evaluation.accuracy_interval(0.8) == (expected.low, expected.high)


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_confusion_has_truth_in_rows() -> None:
    evaluation = evaluate_predictions([0, 0, 0, 1, 1, 2], [1, 1, 0, 1, 2, 2])
    assert evaluation.confusion.tolist() == [[1, 2, 0], [0, 1, 1], [0, 0, 1]]


def test_confusions_are_sorted_by_count() -> None:
    evaluation = evaluate_predictions([0, 0, 0, 1, 1, 2], [1, 1, 0, 1, 2, 2])
    expected = [
        {"label": "cat", "prediction": "dog", "count": 2},
        {"label": "dog", "prediction": "bird", "count": 1},
    ]
    assert evaluation.most_frequent_confusions() == expected
    assert evaluation.most_frequent_confusions(limit=1) == expected[:1]


def test_mistakes_are_sorted_by_confidence() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.99, 0.01, 0.0]])
    evaluation = Evaluation(CLASSES, np.array([1, 1, 1, 0]), probabilities)
    assert evaluation.most_confident_mistakes().tolist() == [1, 2, 0]
    assert evaluation.most_confident_mistakes(limit=2).tolist() == [1, 2]


def test_reliability_bins_have_mean_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    evaluation = Evaluation(("a", "b"), np.array([0, 1, 0, 0]), probabilities)
    low, high = evaluation.reliability_bins(bins=10)
    assert low == pytest.approx({"confidence": 0.6, "accuracy": 1, "images": 1})
    assert high == pytest.approx({"confidence": 2.8 / 3, "accuracy": 2 / 3, "images": 3})


# --- logits ---------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_logits() -> None:
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    evaluation = Evaluation.from_logits(logits, torch.zeros(200, dtype=torch.int64), CLASSES)
    assert evaluation.probabilities.dtype == np.float64
    assert evaluation.probabilities.sum(1) == pytest.approx(np.ones(200))
    assert evaluation.predictions.tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(UserError, match="infinite or NaN; train it again"):
        Evaluation.from_logits(torch.full((2, 3), value), torch.tensor([0, 1]), CLASSES)


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(200, 3\), but \(200, 2\) are needed"):
        Evaluation.from_logits(torch.zeros(200, 3), torch.zeros(200), ("cat", "dog"))


# --- scikit-learn's report ------------------------------------------------------------------------------------------


def test_report_has_scores_by_class_name(random_evaluation: Evaluation) -> None:
    report = random_evaluation.classification_report()
    assert report["dog"]["recall"] == pytest.approx(random_evaluation.class_recall[1])
    assert report["macro avg"]["f1-score"] == pytest.approx(random_evaluation.f1)
    assert "bird" in random_evaluation.classification_report_text()


def test_a_class_named_accuracy_does_not_hide_the_accuracy() -> None:
    evaluation = Evaluation(("accuracy", "dog"), np.array([0, 1]), np.eye(2)[[0, 0]])
    report = evaluation.classification_report()
    assert report["accuracy"] == 0.5
    assert report["accuracy (class)"]["recall"] == 1


def test_report_includes_a_class_without_images() -> None:
    evaluation = evaluate_predictions([0, 1], [0, 1])
    assert evaluation.classification_report()["bird"]["support"] == 0
