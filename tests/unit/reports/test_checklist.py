import pytest

from pipeline.reports.checklist import (
    GOOD,
    MAX_PEERS,
    POOR,
    UNKNOWN,
    WATCH,
    Answer,
    Peer,
    build_answer,
    check_cost,
    check_generalisation,
    check_goal,
)
from support.evaluations import LABELS, evaluate_predictions, make_mistakes

PERFECT = evaluate_predictions(LABELS)
ONE_MISTAKE = evaluate_predictions(make_mistakes(1))  # 299 of 300


# --- an answer ------------------------------------------------------------------------------------------------------


def test_worst_finding_comes_first_and_is_verdict() -> None:
    findings = [(WATCH, "first watch"), (POOR, "poor"), (UNKNOWN, "unknown"), (WATCH, "second watch")]
    answer = build_answer("goal", findings, "all is good", {})
    assert answer.verdict == POOR
    assert answer.sentences == ("poor", "first watch", "second watch", "unknown")


def test_answer_without_findings_is_good() -> None:
    answer = build_answer("goal", [], "all is good", {"accuracy": 1.0})
    assert answer == Answer("goal", GOOD, ("all is good",), {"accuracy": 1.0})


# --- is the goal met? -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistakes", "floor", "verdict", "words"),
    [
        (0, 0.95, GOOD, "even the lower end is above the floor of 95.00%"),
        (10, 0.95, WATCH, "but the lower end is not"),  # 290 of 300: 96.7%, lower end 94.0%
        (20, 0.95, POOR, "below the floor of 95.00%, promote.py refuses it"),
        (0, None, UNKNOWN, "no floor"),
        (200, 0.1, POOR, "not clearly better than predicting 'cat' for every image (33.33%)"),
    ],
)
def test_goal_compares_interval_with_floor(mistakes: int, floor: float | None, verdict: str, words: str) -> None:
    answer = check_goal(evaluate_predictions(make_mistakes(mistakes)), floor, [])
    assert answer.verdict == verdict
    assert words in answer.sentences[0]


def test_goal_ranks_run_among_its_peers() -> None:
    peers = [Peer(f"run {accuracy}", "", accuracy, {}) for accuracy in (1.0, 0.99, 0.5)]
    figures = check_goal(ONE_MISTAKE, 0.9, peers).figures
    assert (figures["rank"], figures["runs"]) == (2, 4)


@pytest.mark.parametrize(("worst", "rank"), [(0.99, MAX_PEERS), (0.999, None)])
def test_rank_is_unknown_below_many_peers(worst: float, rank: int | None) -> None:
    peers = [Peer(f"run {i}", "", 1.0, {}) for i in range(MAX_PEERS - 1)]
    figures = check_goal(ONE_MISTAKE, 0.9, [*peers, Peer("worst", "", worst, {})]).figures
    assert (figures["rank"], figures["runs"]) == (rank, None)


def test_goal_names_baselines() -> None:
    figures = check_goal(evaluate_predictions([0, 0, 0, 1], labels=[0, 0, 0, 1]), 0.9, []).figures
    assert figures["majority_class"] == 0.75
    assert figures["random_guessing"] == pytest.approx(1 / 3)


# --- does it generalise? --------------------------------------------------------------------------------------------


def build_curves(train: list[float], validation: list[float], accuracy: float = 0.99) -> dict[str, list[float]]:
    accuracies = [accuracy] * len(train)
    return {
        "train_loss": train,
        "train_accuracy": accuracies,
        "validation_loss": validation,
        "validation_accuracy": accuracies,
    }


@pytest.mark.parametrize(
    ("train", "validation", "verdict", "from_epoch"),
    [
        pytest.param([1.0, 0.5, 0.3, 0.2, 0.18], [1.0, 0.5, 0.55, 0.6, 0.6], WATCH, 3, id="rises"),
        pytest.param([1.0, 0.5, 0.3, 0.2, 0.18], [1.0, 0.5, 0.7, 0.8, 0.9], POOR, 3, id="rises far"),
        pytest.param([1.0, 0.5, 0.4, 0.38], [1.0, 0.6, 0.5, 0.5], GOOD, None, id="flattens"),
        pytest.param([1.0, 0.5, 0.3, 0.29], [1.0, 0.5, 0.5, 0.9], GOOD, None, id="one epoch is noise"),
        pytest.param([1.0, 0.5, 0.6, 0.6], [1.0, 0.5, 0.9, 0.9], GOOD, None, id="training loss rises too"),
    ],
)
def test_overfitting_is_rising_validation_loss(
    train: list[float], validation: list[float], verdict: str, from_epoch: int | None
) -> None:
    answer = check_generalisation(PERFECT, build_curves(train, validation), 0.9, 300)
    assert answer.verdict == verdict
    assert answer.figures["overfitting_from_epoch"] == from_epoch


def test_overfitting_names_epoch_and_losses() -> None:
    curves = build_curves([1.0, 0.5, 0.3, 0.2], [1.0, 0.5, 0.7, 0.9])
    answer = check_generalisation(PERFECT, curves, 0.9, 300)
    assert answer.sentences[0].startswith(
        "It overfits from epoch 3 on: the validation loss rose from 0.5000 to 0.9000 while the training loss fell"
    )
    assert answer.figures["lowest_validation_loss_epoch"] == 2


def test_losses_that_still_fall_are_to_watch() -> None:
    curves = build_curves([1.0, 0.8, 0.6], [1.0, 0.8, 0.6])
    answer = check_generalisation(PERFECT, curves, 0.9, 300)
    assert answer.verdict == WATCH
    assert "Both losses still fell by 25%" in answer.sentences[0]


def test_underfitting_is_both_accuracies_below_floor() -> None:
    curves = build_curves([2.0, 1.9], [2.0, 1.9], accuracy=0.4)
    answer = check_generalisation(PERFECT, curves, 0.9, 300)
    assert answer.verdict == POOR
    assert answer.sentences[0].startswith("It underfits: 40.00% of the training and 40.00% of the validation images")


@pytest.mark.parametrize(("mistakes", "verdict"), [(6, GOOD), (30, POOR)])
def test_test_accuracy_clearly_below_validation_is_poor(mistakes: int, verdict: str) -> None:
    evaluation = evaluate_predictions(make_mistakes(mistakes))
    answer = check_generalisation(evaluation, build_curves([0.3, 0.3], [0.3, 0.3]), 0.9, 300)
    assert answer.verdict == verdict


def test_other_test_images_are_not_compared() -> None:
    answer = check_generalisation(PERFECT, build_curves([0.3, 0.3], [0.3, 0.3]), 0.9, None)
    assert answer.verdict == UNKNOWN
    assert "not compared" in answer.sentences[0]


def test_run_without_curves_is_unknown() -> None:
    answer = check_generalisation(PERFECT, {"train_loss": [1.0]}, 0.9, 300)
    assert answer.verdict == UNKNOWN
    assert "no train_accuracy, validation_loss, validation_accuracy" in answer.sentences[0]


# --- at what cost? --------------------------------------------------------------------------------------------------


def check_cost_beside(accuracy: float, seconds: float, parameters: float) -> Answer:
    """Return the answer for a model of 30 seconds and 1,000 parameters that has this peer."""
    costs = {"training_seconds": 30.0, "model_parameters": 1000.0}
    peer = Peer("8f1c", "small", accuracy, {"training_seconds": seconds, "model_parameters": parameters})
    return check_cost(ONE_MISTAKE, costs, {}, [peer])


@pytest.mark.parametrize(
    ("accuracy", "seconds", "parameters", "verdict"),
    [
        pytest.param(0.996, 9, 1000, POOR, id="three times faster"),
        pytest.param(0.996, 15, 1000, WATCH, id="twice as fast"),
        pytest.param(0.996, 28, 1000, GOOD, id="as fast"),
        pytest.param(0.996, 32, 500, WATCH, id="smaller, seconds differ by chance"),
        pytest.param(0.996, 9, 2000, GOOD, id="faster, but larger"),
        pytest.param(0.9, 1, 10, GOOD, id="cheap, but worse"),
    ],
)
def test_cheaper_run_is_as_good_and_nowhere_dearer(
    accuracy: float, seconds: float, parameters: float, verdict: str
) -> None:
    assert check_cost_beside(accuracy, seconds, parameters).verdict == verdict


def test_cheaper_run_is_named() -> None:
    answer = check_cost_beside(0.996, 9, 1000)
    assert answer.sentences == ("Run small (8f1c) is as good (99.60%) and costs 3.3 times less (training seconds).",)
    assert answer.figures["cheaper_runs"][0]["run_id"] == "8f1c"


def test_cost_says_which_peers_were_compared() -> None:
    peers = [Peer(f"run {i}", "", 1.0, {}) for i in range(MAX_PEERS)]
    sentence = check_cost(PERFECT, {"training_seconds": 1.0}, {}, peers).sentences[0]
    assert sentence.startswith(f"None of the {MAX_PEERS} most accurate other runs")


def test_costs_that_a_peer_lacks_are_not_compared() -> None:
    peer = Peer("8f1c", "other machine", 0.996, {"model_parameters": 900.0})
    answer = check_cost(ONE_MISTAKE, {"training_seconds": 30.0, "model_parameters": 1000.0}, {}, [peer])
    assert answer.verdict == GOOD


def test_unknown_training_time_is_reported() -> None:
    answer = check_cost(ONE_MISTAKE, {"model_parameters": 1000.0}, {"model_bytes": 5}, [])
    assert answer.verdict == UNKNOWN
    assert answer.figures == {"model_parameters": 1000.0, "model_bytes": 5, "cheaper_runs": []}
