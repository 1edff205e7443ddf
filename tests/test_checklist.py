import json
from pathlib import Path

import mlflow
import pytest
import torch
from conftest import Pipeline, run_script

from pipeline import checklist, data, tracking
from pipeline.checklist import Answer, Peer
from pipeline.evaluation import Evaluation, evaluate

CLASSES = ("cat", "dog", "bird")


def evaluation_of(labels: list[int], guesses: list[int], confidence: float = 0.9) -> Evaluation:
    """Return the evaluation of a model that is equally sure of every guess."""
    rest = (1 - confidence) / (len(CLASSES) - 1)
    probabilities = torch.full((len(labels), len(CLASSES)), rest).scatter(1, torch.tensor(guesses)[:, None], confidence)
    return evaluate(probabilities.log(), torch.tensor(labels), CLASSES)


def curves(train: list[float], validation: list[float], accuracy: float = 0.99) -> dict[str, list[float]]:
    flat = [accuracy] * len(train)
    return {"train_loss": train, "train_accuracy": flat, "validation_loss": validation, "validation_accuracy": flat}


RIGHT = evaluation_of([0, 1, 2] * 100, [0, 1, 2] * 100)


@pytest.mark.parametrize(
    ("wrong", "floor", "verdict", "words"),
    [
        (0, 0.95, "good", "even the lower end is above the floor of 95.00%"),
        (10, 0.95, "watch", "may be luck"),  # 290 of 300: 96.7%, lower end 94.0%
        (20, 0.95, "poor", "below the floor of 95.00%, promote.py refuses it"),
        (0, None, "unknown", "no floor"),
        (200, 0.1, "poor", "calling everything 'cat' would give 33.33%"),
    ],
)
def test_goal(wrong: int, floor: float | None, verdict: str, words: str) -> None:
    labels = [0, 1, 2] * 100
    guesses = [(label + (place < wrong)) % 3 for place, label in enumerate(labels)]
    answer = checklist.goal(evaluation_of(labels, guesses), floor, [])
    assert answer.verdict == verdict
    assert words in answer.sentences[0]


def test_goal_ranks_the_run_among_those_on_the_same_test_images() -> None:
    peers = [Peer(f"{share}", "", share, {}) for share in (1.0, 0.99, 0.5)]
    labels = [0, 1, 2] * 100
    figures = checklist.goal(evaluation_of(labels, [1, *labels[1:]]), 0.9, peers).figures  # 299 of 300
    assert (figures["rank"], figures["runs"]) == (2, 4)
    assert figures["majority_class"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("train", "validation", "verdict", "from_epoch"),
    [
        ([1.0, 0.5, 0.4, 0.38], [1.0, 0.6, 0.5, 0.5], "good", None),
        ([1.0, 0.5, 0.3, 0.2, 0.18], [1.0, 0.5, 0.55, 0.6, 0.6], "watch", 3),
        ([1.0, 0.5, 0.3, 0.2, 0.18], [1.0, 0.5, 0.7, 0.8, 0.9], "poor", 3),
        ([1.0, 0.5, 0.3, 0.29], [1.0, 0.5, 0.5, 0.9], "good", None),  # one epoch is noise
        ([1.0, 0.5, 0.6, 0.6], [1.0, 0.5, 0.9, 0.9], "good", None),  # the training loss rose too: not by heart
        ([1.0, 0.8, 0.6], [1.0, 0.8, 0.6], "watch", None),  # ended too early
    ],
)
def test_overfitting_is_a_validation_loss_that_rises_while_the_training_loss_falls(
    train: list[float], validation: list[float], verdict: str, from_epoch: int | None
) -> None:
    answer = checklist.generalisation(RIGHT, curves(train, validation), 0.9, 300)
    assert (answer.verdict, answer.figures["overfitting_from_epoch"]) == (verdict, from_epoch)


def test_underfitting_is_training_and_validation_below_the_floor() -> None:
    answer = checklist.generalisation(RIGHT, curves([2.0, 1.9], [2.0, 1.9], accuracy=0.4), 0.9, 300)
    assert (answer.verdict, answer.sentences[0][:13]) == ("poor", "It underfits:")


def test_a_test_result_clearly_below_validation_is_poor_and_one_within_chance_is_not() -> None:
    labels = [0, 1, 2] * 100
    for wrong, verdict in ((6, "good"), (30, "poor")):
        answer = checklist.generalisation(
            evaluation_of(labels, [2] * wrong + labels[wrong:]), curves([0.3, 0.3], [0.3, 0.3]), 0.9, 300
        )
        assert answer.verdict == verdict, answer


def test_other_test_images_or_no_curves_make_the_answer_unknown() -> None:
    answer = checklist.generalisation(RIGHT, curves([0.3, 0.3], [0.3, 0.3]), 0.9, None)
    assert (answer.verdict, "not compared" in answer.sentences[0]) == ("unknown", True)
    answer = checklist.generalisation(RIGHT, {"train_loss": [1.0]}, 0.9, 300)
    assert answer.verdict == "unknown"
    assert "no train_accuracy, validation_loss, validation_accuracy" in answer.sentences[0]


def test_balance_names_a_class_that_is_nearly_never_predicted() -> None:
    labels = [0] * 100 + [1] * 100 + [2] * 100
    answer = checklist.balance(evaluation_of(labels, [0] * 100 + [1] * 100 + [2] * 9 + [1] * 91))
    assert answer.verdict == "poor"
    assert answer.sentences[0] == "It nearly never says 'bird': 9 times for 100 images."
    assert answer.figures["weakest"][0]["class"] == "bird"
    assert answer.figures["images"] == {"cat": 100, "dog": 100, "bird": 100}


def test_balance_says_where_accuracy_alone_misleads() -> None:
    answer = checklist.balance(evaluation_of([0] * 900 + [1] * 50 + [2] * 50, [0] * 1000))
    assert any("Accuracy alone misleads: it says 90.00%, the macro F1 is 0.316" in each for each in answer.sentences)
    assert any("'cat' has 900 test images, 'dog' 50" in each for each in answer.sentences)


def test_calibration_and_brier_score_are_those_worked_by_hand() -> None:
    # Two bins: 200 images with 0.9, of which 180 are right; none elsewhere. So the expected calibration error is 0.
    labels = [0, 1] * 100
    answer = checklist.errors(evaluation_of(labels, [2] * 20 + labels[20:], 0.9))
    assert answer.figures["expected_calibration_error"] == pytest.approx(0, abs=1e-6)
    # A right one costs (1 - 0.9)^2 + 2 * 0.05^2 = 0.015, a wrong one 0.9^2 + (1 - 0.05)^2 + 0.05^2 = 1.715.
    assert answer.figures["brier_score"] == pytest.approx((180 * 0.015 + 20 * 1.715) / 200, abs=1e-6)
    assert len(answer.figures["most_confident_mistakes"]) == 10


@pytest.mark.parametrize(
    ("confidence", "wrong", "verdict", "words"),
    [
        (0.9, 100, "good", "no pair of classes stands out"),
        (0.93, 100, "watch", "too sure of itself: mean confidence 93.00%, 90.00% are right"),
        (0.8, 100, "poor", "too modest"),
        (0.999, 100, "poor", "more than 99% sure of, it has 100 wrong"),
        (0.995, 4, "good", ""),  # 99.6% right, 4 wrong although sure of them: as many as to be expected
    ],
)
def test_errors_find_a_model_that_does_not_know_how_sure_it_can_be(
    confidence: float, wrong: int, verdict: str, words: str
) -> None:
    labels = [place % 3 for place in range(1000)]
    guesses = [(label + 1 + place % 2) % 3 if place < wrong else label for place, label in enumerate(labels)]
    answer = checklist.errors(evaluation_of(labels, guesses, confidence))
    assert answer.verdict == verdict, answer.sentences
    assert any(words in sentence for sentence in answer.sentences)


def test_errors_name_a_pair_of_classes_that_stands_out() -> None:
    labels = [0, 1, 2] * 100
    answer = checklist.errors(evaluation_of(labels, [2 if place < 30 else label for place, label in enumerate(labels)]))
    assert answer.figures["confusions"][0] == {"label": "cat", "prediction": "bird", "count": 10}
    assert "10 of 20 mistakes are one pair: 'cat' called 'bird'." in answer.sentences


def test_cost_counts_a_run_as_cheaper_only_if_it_is_as_good_and_nowhere_dearer() -> None:
    own = {"training_seconds": 30.0, "model_parameters": 1000.0}
    labels = [0, 1, 2] * 100
    evaluation = evaluation_of(labels, [1, *labels[1:]])

    def answer(accuracy: float, seconds: float, parameters: float) -> Answer:
        peer = Peer("8f1c", "small", accuracy, {"training_seconds": seconds, "model_parameters": parameters})
        return checklist.cost(evaluation, own, {}, [peer])

    assert answer(0.996, 9, 1000).verdict == "poor"
    assert (
        "Run small (8f1c) is as good, 99.60%, at 3.3 times less (training seconds)." in answer(0.996, 9, 1000).sentences
    )
    assert answer(0.996, 15, 1000).verdict == "watch"
    assert answer(0.996, 32, 500).verdict == "watch"  # seconds that differ by a few percent are the same
    assert answer(0.996, 28, 1000).verdict == "good"
    assert answer(0.996, 9, 2000).verdict == "good"  # faster, but larger
    assert answer(0.9, 1, 10).verdict == "good"  # cheap, but worse


def test_markdown_has_every_question_verdict_and_figure() -> None:
    answers = [checklist.goal(RIGHT, 0.9, []), checklist.balance(RIGHT), checklist.errors(RIGHT)]
    text = checklist.markdown(answers, "digits: run 8f1c")
    for line in (
        "# digits: run 8f1c",
        "| Is it balanced? | **good** |",
        "| floor | 0.9 |",
        "| most confident mistakes | none |",
    ):
        assert line in text.splitlines(), line


# --- faults planted in real runs --------------------------------------------------------------------------------------


def check(folder: Path, run_id: str) -> dict[str, Answer]:
    result = run_script(folder, "evaluate.py", "--run-id", run_id, "--log-mlflow")
    assert result.code == 0, result
    reports = folder / result.json["output_dir"]
    answers = [Answer(**each) for each in json.loads((reports / "checklist.json").read_text())]
    assert result.json["checklist"] == {each.question: each.verdict for each in answers}
    assert [each.question for each in answers] == ["goal", "generalisation", "balance", "errors", "cost"]
    for name in ("checklist.md", "confusions.png", "reliability.png"):
        assert (reports / name).stat().st_size > 1000
    return {each.question: each for each in answers}


def test_an_overfitted_run_is_found(tmp_path: Path) -> None:
    memorised = [
        "--model",
        "mlp",
        "--limit",
        "150",
        "--epochs",
        "60",
        "--augment",
        "none",
        "--label-smoothing",
        "0",
        "--weight-decay",
        "0",
    ]
    trained = run_script(tmp_path, "pytorch_demo.py", "--dataset", "digits", *memorised)
    answer = check(tmp_path, trained.json["run_id"])["generalisation"]
    assert answer.verdict == "poor"
    assert f"It overfits from epoch {answer.figures['overfitting_from_epoch']} on" in answer.sentences[0]
    assert 2 < answer.figures["overfitting_from_epoch"] < 40


def test_a_model_that_is_dearer_at_equal_accuracy_is_found(pipeline: Pipeline) -> None:
    """The net of the default run on digits has a thirtieth of a residual net's multiply-adds."""
    options = ["--model", "resnet", "--augment", "none", "--epochs", "8"]
    trained = run_script(pipeline.folder, "pytorch_demo.py", "--dataset", "digits", *options)
    answers = check(pipeline.folder, trained.json["run_id"])
    assert answers["cost"].verdict == "poor"
    (cheaper,) = answers["cost"].figures["cheaper_runs"]
    assert (cheaper["run_id"], cheaper["times_cheaper"] > 3) == (pipeline.run_id, True)
    assert answers["goal"].figures["runs"] == 2
    assert check(pipeline.folder, pipeline.run_id)["cost"].verdict == "good"  # and not the other way round


def test_a_class_that_is_nearly_never_predicted_is_found(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pipeline.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{pipeline.folder}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{pipeline.folder}/mlflow.db")
    module = tracking.load_model(tracking.model_of(pipeline.run_id)).module

    class NoFive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.module(images)
            return logits - 50 * torch.nn.functional.one_hot(torch.tensor(5), 10)

    with tracking.run("pytorch-demo", None) as run_id:
        tracking.log_params(run_id, {"dataset": "digits"})
        tracking.log_model(NoFive(), data.load_test("digits", Path("data")).images[:2].float(), tuple("0123456789"))
    answers = check(pipeline.folder, run_id)
    assert answers["balance"].sentences[0] == "It nearly never says '5': 0 times for 37 images."
    assert {name: answers[name].verdict for name in ("goal", "generalisation", "balance", "cost")} == {
        "goal": "poor",
        "generalisation": "unknown",  # this run says nothing of its training
        "balance": "poor",
        "cost": "unknown",
    }
