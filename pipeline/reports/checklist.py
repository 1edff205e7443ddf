"""The checklist: five questions about an evaluation, answered from figures. docs/metrics.md explains their limits.

A question is a pure function. Three of them are here: is the goal met, does it generalise, at what cost. The other two
are in `checklist_mistakes`; `checklist_evidence` gathers what all of them need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.evaluation.metrics import Evaluation, wilson_interval

GOOD, UNKNOWN, WATCH, POOR = "good", "unknown", "watch", "poor"
SEVERITY = (GOOD, UNKNOWN, WATCH, POOR)  # from the best verdict to the worst; unknown: a figure is missing
QUESTIONS = {
    "goal": "Is the goal met?",
    "generalisation": "Does it generalise?",
    "balance": "Is it balanced?",
    "errors": "Which errors does it make?",
    "cost": "At what cost?",
}
CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")  # metrics for each epoch
MAX_PEERS = 200  # that are compared, the most accurate ones; a store has no request that only counts
CLOCK_TOLERANCE = 0.9  # a cost is higher than another if their ratio is below this: clocks are not exact

Verdict = Annotated[str, Field(pattern=rf"^({'|'.join(SEVERITY)})$")]
Finding = tuple[str, str]  # a verdict, and a sentence


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes
    ----------
    question : goal, generalisation, balance, errors or cost.
    verdict : good, watch or poor; unknown if a figure that the answer needs is missing.
    sentences : the findings in words, the worst first.
    figures : what the answer is based on, ready for JSON.
    """

    question: str
    verdict: Verdict
    sentences: Annotated[tuple[str, ...], Field(min_length=1)]
    figures: dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """Another run of the experiment, scored on the same test images.

    Attributes
    ----------
    run_id, name : of the run.
    accuracy : on the test images.
    costs : by name, only those that can be compared with the costs of the evaluated model.
    """

    run_id: str
    name: str
    accuracy: float
    costs: Mapping[str, float]


def build_answer(question: str, findings: Sequence[Finding], good_sentence: str, figures: dict[str, Any]) -> Answer:
    """Return the answer with the verdict of the worst finding; good, with ``good_sentence``, if there is none."""
    if not findings:
        return Answer(question, GOOD, (good_sentence,), figures)
    ordered = sorted(findings, key=lambda finding: SEVERITY.index(finding[0]), reverse=True)
    sentences = tuple(sentence for _, sentence in ordered)
    return Answer(question, ordered[0][0], sentences, figures)


# --- is the goal met? ------------------------------------------------------------------------------------------------


def check_goal(evaluation: Evaluation, floor: float | None, peers: Sequence[Peer]) -> Answer:
    """Answer whether the goal is met.

    Parameters
    ----------
    evaluation
        On the test images.
    floor
        The policy's ``min_accuracy``; None if it has none.
    peers
        The other runs, the most accurate `MAX_PEERS` of them. If there may be more, the figure ``runs`` is None, and so
        is ``rank`` if all of these are more accurate than the model.
    """
    accuracy = evaluation.accuracy
    low, high = evaluation.interval
    support = evaluation.class_support
    majority = float(support.max() / support.sum())
    images = f"{len(evaluation.labels):,} test images"
    result = f"{accuracy:.2%} of {images} are right (95% interval {low:.2%} to {high:.2%})"
    findings: list[Finding] = []
    if low <= majority:
        constant = f"predicting {evaluation.classes[int(support.argmax())]!r} for every image ({majority:.2%})"
        findings.append((POOR, f"{result}: not clearly better than {constant}."))
    if floor is None:
        findings.append((UNKNOWN, f"{result}; gates.toml has no floor to compare that with."))
    elif accuracy < floor:
        findings.append((POOR, f"{result}: below the floor of {floor:.2%}, promote.py refuses it."))
    elif low < floor:
        findings.append((WATCH, f"{result}: above the floor of {floor:.2%}, but the lower end is not."))
    better = sum(peer.accuracy > accuracy for peer in peers)
    is_complete = len(peers) < MAX_PEERS
    figures = {
        "accuracy": accuracy,
        "interval_low": low,
        "interval_high": high,
        "floor": floor,
        "random_guessing": 1 / len(evaluation.classes),
        "majority_class": majority,
        "rank": 1 + better if is_complete or better < len(peers) else None,
        "runs": 1 + len(peers) if is_complete else None,
    }
    good = f"{result}: even the lower end is above the floor of {floor or 0:.2%}."
    return build_answer("goal", findings, good, figures)


# --- does it generalise? ---------------------------------------------------------------------------------------------


def check_generalisation(
    evaluation: Evaluation,
    curves: Mapping[str, Sequence[float]],
    floor: float | None,
    validation_size: int | None,
) -> Answer:
    """Answer whether the model is as good on new images as on its training images.

    Parameters
    ----------
    evaluation
        On the test images.
    curves
        The metrics `CURVES` of the run, a value for each epoch.
    floor
        The policy's ``min_accuracy``.
    validation_size
        The number of validation images; None if the test images are not those of the run.
    """
    figures: dict[str, Any] = {"test_loss": evaluation.loss, "test_accuracy": evaluation.accuracy}
    missing = [name for name in CURVES if not curves.get(name)]
    if missing:
        sentence = f"The run has no {', '.join(missing)}; there is nothing to compare with."
        return build_answer("generalisation", [(UNKNOWN, sentence)], "", figures)
    train_loss = np.array(curves["train_loss"])
    validation_loss = np.array(curves["validation_loss"])
    last = {name: curves[name][-1] for name in CURVES}
    lowest = int(validation_loss.argmin())
    overfitting = _find_overfitting(train_loss, validation_loss)
    overfits = len(overfitting) > 0
    findings = [
        *overfitting,
        *_find_underfitting(last, floor),
        *_find_unfinished_training(train_loss, validation_loss),
        *_find_test_gap(evaluation, last["validation_accuracy"], validation_size),
    ]
    figures.update(last)
    figures["epochs"] = len(validation_loss)
    figures["lowest_validation_loss"] = float(validation_loss[lowest])
    figures["lowest_validation_loss_epoch"] = lowest + 1
    figures["overfitting_from_epoch"] = lowest + 2 if overfits else None
    good = (
        f"The last validation loss ({last['validation_loss']:.4f}) is the lowest or close to it, and the test accuracy "
        f"({evaluation.accuracy:.2%}) is not clearly below the validation accuracy ({last['validation_accuracy']:.2%})."
    )
    return build_answer("generalisation", findings, good, figures)


def _find_overfitting(train_loss: np.ndarray, validation_loss: np.ndarray) -> list[Finding]:
    lowest = int(validation_loss.argmin())
    lowest_loss = validation_loss[lowest]
    rise = float(validation_loss[-2:].min() / lowest_loss) - 1  # of both of the last two: one epoch is noise
    if rise <= 0.1 or train_loss[-1] >= train_loss[lowest]:
        return []
    sentence = (
        f"It overfits from epoch {lowest + 2} on: the validation loss rose from {lowest_loss:.4f} to "
        f"{validation_loss[-1]:.4f} while the training loss fell further. Use fewer epochs or more augmentation."
    )
    return [(POOR if rise > 0.3 else WATCH, sentence)]


def _find_underfitting(last: Mapping[str, float], floor: float | None) -> list[Finding]:
    train_accuracy = last["train_accuracy"]
    validation_accuracy = last["validation_accuracy"]
    if floor is None or max(train_accuracy, validation_accuracy) >= floor:
        return []
    sentence = (
        f"It underfits: {train_accuracy:.2%} of the training and {validation_accuracy:.2%} of the validation images "
        f"are right, both below the floor of {floor:.2%}. Train longer or use a larger network."
    )
    return [(POOR, sentence)]


def _find_unfinished_training(train_loss: np.ndarray, validation_loss: np.ndarray) -> list[Finding]:
    falls = []
    for curve in (train_loss, validation_loss):
        if len(curve) < 2 or not curve[-2]:
            return []
        falls.append(1 - curve[-1] / curve[-2])
    if min(falls) <= 0.2:
        return []
    sentence = f"Both losses still fell by {min(falls):.0%} or more in the last epoch: more epochs may help."
    return [(WATCH, sentence)]


def _find_test_gap(evaluation: Evaluation, validation_accuracy: float, validation_size: int | None) -> list[Finding]:
    if validation_size is None:
        sentence = "The run names other test images, so test and validation accuracy are not compared."
        return [(UNKNOWN, sentence)]
    low, high = wilson_interval(round(validation_accuracy * validation_size), validation_size)
    if evaluation.interval[1] >= low:
        return []
    sentence = (
        f"It is clearly worse on the test images ({evaluation.accuracy:.2%}) than on the validation images "
        f"({validation_accuracy:.2%}, 95% interval {low:.2%} to {high:.2%})."
    )
    return [(POOR, sentence)]


# --- at what cost? ---------------------------------------------------------------------------------------------------


def check_cost(
    evaluation: Evaluation, costs: Mapping[str, float], more: Mapping[str, float], peers: Sequence[Peer]
) -> Answer:
    """Answer what the model costs, and whether another run is as good for less.

    A peer is as good if its accuracy is in this model's 95% interval or above. It is cheaper if none of its costs is
    higher; by how much, the largest ratio of two costs says.

    Parameters
    ----------
    evaluation
        On the test images.
    costs
        Of the model, by name; compared with those of the same name.
    more
        Figures that are shown and not compared.
    peers
        The other runs, the most accurate `MAX_PEERS` of them.
    """
    cheaper = _find_cheaper_peers(evaluation, costs, peers)
    findings: list[Finding] = []
    if cheaper:
        best = cheaper[0]
        cost = best["cost"].replace("_", " ")
        sentence = (
            f"Run {best['name']} ({best['run_id']}) is as good ({best['accuracy']:.2%}) "
            f"and costs {best['times_cheaper']:.1f} times less ({cost})."
        )
        findings.append((POOR if best["times_cheaper"] >= 3 else WATCH, sentence))
    if "training_seconds" not in costs:
        findings.append((UNKNOWN, "The run does not record how long the training took."))
    if len(peers) >= MAX_PEERS:
        good = f"None of the {MAX_PEERS} most accurate other runs on these test images is as good for clearly less."
    elif peers:
        good = f"No other run on these test images (there are {len(peers):,}) is as good for clearly less."
    else:
        good = "There is no other run on these test images to compare with."
    figures: dict[str, Any] = {**costs, **more}
    figures["cheaper_runs"] = cheaper[:10]
    return build_answer("cost", findings, good, figures)


def _find_cheaper_peers(
    evaluation: Evaluation, costs: Mapping[str, float], peers: Sequence[Peer]
) -> list[dict[str, Any]]:
    """Return the peers that are as good and at least 1.5 times cheaper, the cheapest first."""
    cheaper = []
    for peer in peers:
        ratios = _divide_costs(costs, peer.costs)
        if peer.accuracy < evaluation.interval[0] or not ratios:
            continue
        if min(ratios.values()) < CLOCK_TOLERANCE:  # one of its costs is higher
            continue
        name = max(ratios, key=lambda name: ratios[name])
        if ratios[name] >= 1.5:
            entry = {
                "run_id": peer.run_id,
                "name": peer.name,
                "accuracy": peer.accuracy,
                "cost": name,
                "times_cheaper": ratios[name],
            }
            cheaper.append(entry)
    return sorted(cheaper, key=lambda entry: -float(entry["times_cheaper"]))


def _divide_costs(costs: Mapping[str, float], peer_costs: Mapping[str, float]) -> dict[str, float]:
    """Return how many times each cost is that of the peer; only costs that both have."""
    ratios = {}
    for name, cost in costs.items():
        if peer_costs.get(name):
            ratios[name] = cost / peer_costs[name]
    return ratios
