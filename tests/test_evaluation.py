import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from pipeline import UserError
from pipeline.evaluation import choose_device, evaluate, multiply_adds, predict

CLASSES = ("cat", "dog", "bird")
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(200, 3, generator=GENERATOR)
LABELS = torch.randint(3, (200,), generator=GENERATOR)


def test_metrics_equal_scikit_learns() -> None:
    evaluation = evaluate(LOGITS, LABELS, CLASSES)
    guesses = LOGITS.argmax(1)
    assert evaluation.accuracy == accuracy_score(LABELS, guesses)
    assert evaluation.precision == pytest.approx(precision_score(LABELS, guesses, average="macro"))
    assert evaluation.recall == pytest.approx(recall_score(LABELS, guesses, average="macro"))
    assert evaluation.f1 == pytest.approx(f1_score(LABELS, guesses, average="macro"))
    assert evaluation.loss == pytest.approx(log_loss(LABELS, LOGITS.double().softmax(1)))


def test_interval_is_wilsons() -> None:
    # Wilson (1927), JASA 22:209; worked by hand for 9 of 10 at 95%
    logits = torch.tensor([[1.0, 0.0]] * 10)
    labels = torch.tensor([0] * 9 + [1])
    assert evaluate(logits, labels, ("a", "b")).interval == pytest.approx((0.59585, 0.98212), abs=1e-5)


def test_confusion_has_truth_in_rows_and_its_pairs_are_sorted_by_count() -> None:
    truth = torch.tensor([0, 0, 0, 1, 1, 2])
    guess = torch.tensor([1, 1, 0, 1, 2, 2])
    evaluation = evaluate(torch.eye(3)[guess], truth, CLASSES)
    assert evaluation.confusion.tolist() == [[1, 2, 0], [0, 1, 1], [0, 0, 1]]
    assert evaluation.confusions(10) == [
        {"label": "cat", "prediction": "dog", "count": 2},
        {"label": "dog", "prediction": "bird", "count": 1},
    ]
    assert len(evaluation.confusions(1)) == 1


def test_mistakes_come_most_confident_first() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [5.0, 0.0, 0.0], [3.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    evaluation = evaluate(logits, torch.tensor([1, 1, 1, 0]), CLASSES)
    assert evaluation.mistakes().tolist() == [1, 2, 0]
    assert evaluation.mistakes(2).tolist() == [1, 2]


def test_a_class_without_images_is_reported_as_zero_not_as_an_error() -> None:
    evaluation = evaluate(torch.eye(3)[[0, 1]], torch.tensor([0, 1]), CLASSES)
    assert evaluation.report["bird"]["support"] == 0
    assert "bird" in evaluation.text()


def test_probabilities_sum_to_one_and_do_not_underflow_in_the_loss() -> None:
    evaluation = evaluate(torch.tensor([[1000.0, -1000.0, 0.0]]), torch.tensor([1]), CLASSES)
    assert evaluation.probabilities.sum(1) == pytest.approx(np.ones(1))
    assert evaluation.loss == pytest.approx(2000.0)


def test_nan_logits_are_refused() -> None:
    with pytest.raises(UserError, match="infinite or NaN"):
        evaluate(torch.full((2, 3), torch.nan), torch.tensor([0, 1]), CLASSES)


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(200, 3\) where \(200, 2\)"):
        evaluate(LOGITS, LABELS, ("cat", "dog"))


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    images = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=GENERATOR)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    every = predict(network, images, device=torch.device("cpu"), batch_size=50)
    for batch_size in (1, 7, 49, 1000):
        logits = predict(network, images, device=torch.device("cpu"), batch_size=batch_size)
        assert torch.allclose(logits, every, atol=1e-3)  # of values around 100


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(UserError, match="no device 'mps'; choose --device cpu or auto"):
        choose_device("mps")
    assert choose_device("cpu").type == "cpu"


def test_reliability_has_confidence_accuracy_and_number_of_each_bin() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]]).log()
    evaluation = evaluate(logits.clamp(min=-100), torch.tensor([0, 1, 0, 0]), ("a", "b"))
    bins = [tuple(round(value, 6) for value in each.values()) for each in evaluation.reliability(10)]
    assert bins == [(0.6, 1.0, 1), (0.933333, 0.666667, 3)]


def test_multiply_adds_are_those_of_the_layers() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 26 * 26, 10))
    assert multiply_adds(network) == 4 * 26 * 26 * 9 + 4 * 26 * 26 * 10
