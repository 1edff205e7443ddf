import pytest

from pipeline.reports.checklist import GOOD, POOR, WATCH
from pipeline.reports.checklist_mistakes import check_balance, check_errors
from support.evaluations import LABELS, evaluate_predictions, make_mistakes

SORTED_LABELS = [0] * 100 + [1] * 100 + [2] * 100
UNBALANCED_LABELS = [0] * 900 + [1] * 50 + [2] * 50


# --- is it balanced? ------------------------------------------------------------------------------------------------


def test_class_that_is_almost_never_predicted_is_named() -> None:
    predictions = [0] * 100 + [1] * 100 + [2] * 9 + [1] * 91
    answer = check_balance(evaluate_predictions(predictions, SORTED_LABELS))
    assert answer.verdict == POOR
    assert answer.sentences[0] == "It almost never predicts 'bird': 9 times for 100 images."
    assert answer.figures["weakest"][0]["class"] == "bird"
    assert answer.figures["images"] == {"cat": 100, "dog": 100, "bird": 100}
    assert answer.figures["predicted"] == {"cat": 100, "dog": 191, "bird": 9}


def test_class_found_less_than_half_is_named() -> None:
    predictions = [0] * 100 + [1] * 100 + [2] * 40 + [1] * 60
    answer = check_balance(evaluate_predictions(predictions, SORTED_LABELS))
    assert answer.verdict == POOR
    assert answer.sentences[0] == "It finds only 40% of the images of 'bird'."


@pytest.mark.parametrize(("mistakes", "verdict"), [(0, GOOD), (15, WATCH), (40, POOR)])
def test_weakest_class_is_compared_with_average(mistakes: int, verdict: str) -> None:
    labels = [0] * 400 + [1] * 400 + [2] * 50
    predictions = [2] * mistakes + [0] * (400 - mistakes) + [1] * (400 - mistakes) + [2] * mistakes + [2] * 50
    answer = check_balance(evaluate_predictions(predictions, labels))
    assert answer.verdict == verdict
    assert "weakest" in answer.sentences[0]


def test_misleading_accuracy_and_small_classes_are_reported() -> None:
    answer = check_balance(evaluate_predictions([0] * 1000, UNBALANCED_LABELS))
    text = " ".join(answer.sentences)
    assert "Accuracy alone is misleading: it is 90.00%, the macro F1 is 0.316" in text
    assert "'cat' has 900 test images, 'dog' 50" in text


# --- which errors does it make? -------------------------------------------------------------------------------------


def test_calibration_error_is_that_worked_by_hand() -> None:
    # All 300 images are in one bin, of confidence 0.9; 270 of them are right.
    answer = check_errors(evaluate_predictions(make_mistakes(30), confidence=0.9))
    assert answer.figures["expected_calibration_error"] == pytest.approx(0, abs=1e-9)
    answer = check_errors(evaluate_predictions(make_mistakes(60), confidence=0.9))
    assert answer.figures["expected_calibration_error"] == pytest.approx(0.1)


def test_brier_score_is_that_worked_by_hand() -> None:
    answer = check_errors(evaluate_predictions(make_mistakes(30), confidence=0.9))
    right = (1 - 0.9) ** 2 + 2 * 0.05**2
    wrong = 0.9**2 + (1 - 0.05) ** 2 + 0.05**2
    assert answer.figures["brier_score"] == pytest.approx((270 * right + 30 * wrong) / 300)


def test_most_confident_mistakes_are_listed() -> None:
    answer = check_errors(evaluate_predictions(make_mistakes(30)))
    mistakes = answer.figures["most_confident_mistakes"]
    assert len(mistakes) == 10
    assert mistakes[0] == {"index": 0, "label": "cat", "prediction": "dog", "probability": 0.9}


@pytest.mark.parametrize(
    ("confidence", "mistakes", "verdict", "words"),
    [
        (0.9, 100, GOOD, "no pair of classes stands out"),
        (0.93, 100, WATCH, "overconfident: mean confidence 93.00%, 90.00% are right"),
        (0.8, 100, POOR, "underconfident"),
        (0.999, 100, POOR, "with a confidence above 99%, 100 are wrong"),
        (0.995, 4, GOOD, "4 mistakes"),  # as many as such a confidence promises
    ],
)
def test_confidence_that_does_not_fit_is_reported(confidence: float, mistakes: int, verdict: str, words: str) -> None:
    labels = [index % 3 for index in range(1000)]
    answer = check_errors(evaluate_predictions(make_mistakes(mistakes, labels), labels, confidence))
    assert answer.verdict == verdict
    assert words in " ".join(answer.sentences)


def test_pair_of_classes_that_stands_out_is_named() -> None:
    predictions = [2] * 30 + LABELS[30:]
    answer = check_errors(evaluate_predictions(predictions))
    assert answer.figures["confusions"][0] == {"label": "cat", "prediction": "bird", "count": 10}
    assert "10 of 20 mistakes are one pair: 'cat' called 'bird'." in answer.sentences
