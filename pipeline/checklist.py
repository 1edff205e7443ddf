"""The five questions that docs/metrics.md asks of every evaluation, answered from figures; it explains the limits too.

A question is a pure function; `answers` gathers what they need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlflow.entities import Run

from pipeline import UserError, cli, gate, tracking
from pipeline.data import Dataset
from pipeline.evaluation import Evaluation, latencies, multiply_adds, parameters, wilson

GOOD, UNKNOWN, WATCH, POOR = "good", "unknown", "watch", "poor"  # from best to worst; unknown: a figure is missing
_ORDER = (GOOD, UNKNOWN, WATCH, POOR)
NOISE = 0.9  # a cost has to be under this share of another to count as lower: clocks are not exact

CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")  # a run's metrics by epoch
MACHINE = ("cpu", "gpu", "threads")  # seconds are compared only where these are the same
COSTS = ("training_seconds", "model_parameters", "model_multiply_adds")

Finding = tuple[str, str]  # how bad, and a sentence


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes
    ----------
    question : goal, generalisation, balance, errors or cost.
    verdict : good, watch or poor; unknown where a figure is missing that the answer needs.
    sentences : what a newcomer has to know, the worst first.
    figures : what the answer rests on; for JSON.
    """

    question: str
    verdict: str
    sentences: tuple[str, ...]
    figures: dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """Another run of the experiment, scored on the same test images; costs that cannot be compared are left out."""

    run_id: str
    name: str
    accuracy: float
    costs: Mapping[str, float]


def _answer(question: str, findings: list[Finding], otherwise: str, figures: dict[str, Any]) -> Answer:
    findings = sorted(findings, key=lambda finding: -_ORDER.index(finding[0])) or [(GOOD, otherwise)]
    return Answer(question, findings[0][0], tuple(sentence for _, sentence in findings), figures)


def goal(evaluation: Evaluation, floor: float | None, peers: Sequence[Peer]) -> Answer:
    """Is the goal met? ``floor`` is the policy's ``min_accuracy``."""
    accuracy, (low, high) = evaluation.accuracy, evaluation.interval
    counts = np.bincount(evaluation.labels, minlength=len(evaluation.classes))
    constant = float(counts.max() / counts.sum())
    about = f"{accuracy:.2%} of {len(evaluation.labels):,} test images are right (95% interval {low:.2%} to {high:.2%})"
    findings = []
    if low <= constant:
        largest = evaluation.classes[int(counts.argmax())]
        findings.append((POOR, f"{about}: calling everything {largest!r} would give {constant:.2%}, no worse."))
    if floor is None:
        findings.append((UNKNOWN, f"{about}; gates.toml has no floor to compare that with."))
    elif accuracy < floor:
        findings.append((POOR, f"{about}: below the floor of {floor:.2%}, promote.py refuses it."))
    elif low < floor:
        findings.append((WATCH, f"{about}: above the floor of {floor:.2%}, but with so few images that may be luck."))
    figures = {
        "accuracy": accuracy,
        "interval_low": low,
        "interval_high": high,
        "floor": floor,
        "random_guessing": 1 / len(evaluation.classes),
        "majority_class": constant,
        "rank": 1 + sum(peer.accuracy > accuracy for peer in peers),
        "runs": 1 + len(peers),
    }
    return _answer("goal", findings, f"{about}: even the lower end is above the floor of {floor or 0:.2%}.", figures)


def generalisation(
    evaluation: Evaluation,
    curves: Mapping[str, Sequence[float]],
    floor: float | None,
    validation_size: int | None,
) -> Answer:
    """Does it do on new images what it did on those it learned from?

    ``curves`` are the run's metrics by epoch; ``validation_size`` is None where the test images are not the run's.
    """
    figures: dict[str, Any] = {"test_loss": evaluation.loss, "test_accuracy": evaluation.accuracy}
    if not all(curves.get(name) for name in CURVES):
        missing = ", ".join(name for name in CURVES if not curves.get(name))
        return _answer(
            "generalisation", [(UNKNOWN, f"The run has no {missing}; there is nothing to compare with.")], "", figures
        )
    train, validation = np.array(curves["train_loss"]), np.array(curves["validation_loss"])
    last = {name: curves[name][-1] for name in CURVES}
    lowest = int(validation.argmin())
    rise = float(validation[-2:].min() / validation[lowest]) - 1  # of both of the last two: one epoch is noise
    learned_by_heart = rise > 0.1 and train[-1] < train[lowest]
    findings = []
    if learned_by_heart:
        findings.append(
            (
                POOR if rise > 0.3 else WATCH,
                f"It overfits from epoch {lowest + 2} on: the validation loss rose from {validation[lowest]:.4f} to "
                f"{validation[-1]:.4f} while the training loss went on falling. Fewer epochs, or more variation.",
            )
        )
    if floor is not None and max(last["train_accuracy"], last["validation_accuracy"]) < floor:
        findings.append(
            (
                POOR,
                f"It underfits: {last['train_accuracy']:.2%} of the training and {last['validation_accuracy']:.2%} of "
                f"the validation images are right, both below the floor of {floor:.2%}. Train longer, or a larger net.",
            )
        )
    steep = [1 - curve[-1] / curve[-2] for curve in (train, validation) if len(curve) > 1 and curve[-2]]
    if len(steep) == 2 and min(steep) > 0.2:
        findings.append(
            (WATCH, f"Both losses still fell by {min(steep):.0%} or more in the last epoch: more epochs may help.")
        )
    if validation_size is None:
        findings.append((UNKNOWN, "These are not the test images that its run names: not compared with validation."))
    else:
        low, high = wilson(round(last["validation_accuracy"] * validation_size), validation_size)
        if evaluation.interval[1] < low:
            findings.append(
                (
                    POOR,
                    f"It does clearly worse on the test images ({evaluation.accuracy:.2%}) than on the validation "
                    f"images ({last['validation_accuracy']:.2%}, 95% interval {low:.2%} to {high:.2%}).",
                )
            )
    figures |= last | {
        "epochs": len(validation),
        "lowest_validation_loss": float(validation[lowest]),
        "lowest_validation_loss_epoch": lowest + 1,
        "overfitting_from_epoch": lowest + 2 if learned_by_heart else None,
    }
    return _answer(
        "generalisation",
        findings,
        f"Training ended where the validation loss was at its lowest or near ({last['validation_loss']:.4f}), "
        f"and test ({evaluation.accuracy:.2%}) is no worse than validation ({last['validation_accuracy']:.2%}).",
        figures,
    )


def balance(evaluation: Evaluation) -> Answer:
    """Is it good at every class?"""
    names = evaluation.classes
    f1, recall, support = (
        np.array([each[key] for each in evaluation.per_class]) for key in ("f1-score", "recall", "support")
    )
    predicted = evaluation.confusion.sum(0)
    weakest = int(f1.argmin())
    behind = evaluation.f1 - f1[weakest]
    findings = []
    for number, name in enumerate(names):
        if predicted[number] < 0.1 * support[number]:
            said = f"{predicted[number]:,} times for {support[number]:,.0f} images"
            findings.append((POOR, f"It nearly never says {name!r}: {said}."))
        elif support[number] and recall[number] < 0.5:
            findings.append((POOR, f"It finds only {recall[number]:.0%} of the images of {name!r}."))
    if behind > 0.05:
        verdict = POOR if behind > 0.2 else WATCH
        findings.append(
            (
                verdict,
                f"{names[weakest]!r} is its weakest class: F1 {f1[weakest]:.3f}, all on average {evaluation.f1:.3f}.",
            )
        )
    if support.max() > 10 * support.min():
        sizes = f"{support.max():,.0f} test images, {names[int(support.argmin())]!r} {support.min():,.0f}"
        findings.append(
            (WATCH, f"{names[int(support.argmax())]!r} has {sizes}: accuracy hardly sees the small classes.")
        )
    if evaluation.accuracy - evaluation.f1 > 0.05:
        findings.append(
            (WATCH, f"Accuracy alone misleads: it says {evaluation.accuracy:.2%}, the macro F1 is {evaluation.f1:.3f}.")
        )
    order = np.argsort(f1, kind="stable")[:3]
    figures = {
        "macro_f1": evaluation.f1,
        "f1_spread": float(f1.max() - f1.min()),
        "weakest": [{"class": names[i], "f1": float(f1[i]), "recall": float(recall[i])} for i in order],
        "images": dict(zip(names, map(int, support), strict=True)),
        "predicted": dict(zip(names, map(int, predicted), strict=True)),
    }
    return _answer(
        "balance",
        findings,
        f"No class is left behind: the weakest, {names[weakest]!r}, has an F1 of {f1[weakest]:.3f}, "
        f"all on average {evaluation.f1:.3f}.",
        figures,
    )


def errors(evaluation: Evaluation) -> Answer:
    """Which errors does it make, and does it know when it may be wrong?"""
    from sklearn.metrics import brier_score_loss

    mistaken = evaluation.predictions != evaluation.labels
    wrong = int(mistaken.sum())
    confidence = evaluation.confidence
    gap = float(confidence.mean()) - evaluation.accuracy
    reliability = evaluation.reliability()
    ece = sum(abs(each["confidence"] - each["accuracy"]) * each["images"] for each in reliability) / len(confidence)
    certain = confidence > 0.99
    certain_wrong = int((certain & mistaken).sum())
    pairs = evaluation.confusions(10)
    findings = []
    if pairs and pairs[0]["count"] > max(4, wrong / 4):
        label, guess, count = pairs[0]["label"], pairs[0]["prediction"], pairs[0]["count"]
        findings.append((WATCH, f"{count:,} of {wrong:,} mistakes are one pair: {label!r} called {guess!r}."))
    low, high = evaluation.interval
    if abs(gap) > 0.01 and not low <= confidence.mean() <= high:  # else it may be chance
        verdict = POOR if abs(gap) > 0.05 else WATCH
        kind = "too sure of itself" if gap > 0 else "too modest"
        findings.append(
            (verdict, f"It is {kind}: mean confidence {confidence.mean():.2%}, {evaluation.accuracy:.2%} are right.")
        )
    if certain_wrong > max(4, 0.01 * certain.sum()):
        findings.append(
            (POOR, f"Of {certain.sum():,} images that it is more than 99% sure of, it has {certain_wrong:,} wrong.")
        )
    figures = {
        "mistakes": wrong,
        "confusions": pairs,
        "expected_calibration_error": float(ece),
        "reliability": reliability,
        "brier_score": float(
            brier_score_loss(
                evaluation.labels,
                evaluation.probabilities,
                labels=np.arange(len(evaluation.classes)),
                scale_by_half=False,
            )
        ),
        "mean_confidence": float(confidence.mean()),
        "most_confident_mistakes": [
            {
                "index": int(index),
                "label": evaluation.classes[evaluation.labels[index]],
                "prediction": evaluation.classes[evaluation.predictions[index]],
                "probability": float(confidence[index]),
            }
            for index in evaluation.mistakes(10)
        ],
    }
    return _answer(
        "errors",
        findings,
        f"{wrong:,} mistakes, no pair of classes stands out, and its confidence ({confidence.mean():.2%} on average) "
        f"is about as high as it is right ({evaluation.accuracy:.2%}).",
        figures,
    )


def cost(
    evaluation: Evaluation, costs: Mapping[str, float], more: Mapping[str, float], peers: Sequence[Peer]
) -> Answer:
    """What does it cost, and is there a run that is as good for less?

    A peer is as good where its accuracy is in this model's 95% interval or above. It is cheaper by the largest ratio
    among the ``costs`` that both have, if none of its own is higher. ``more`` are figures that nobody compares.
    """
    cheaper: list[dict[str, Any]] = []
    for peer in peers:
        ratios = {name: costs[name] / peer.costs[name] for name in costs if peer.costs.get(name)}
        if peer.accuracy >= evaluation.interval[0] and ratios and min(ratios.values()) >= NOISE:
            name = max(ratios, key=lambda each: ratios[each])
            which = {"run_id": peer.run_id, "name": peer.name, "accuracy": peer.accuracy}
            if ratios[name] >= 1.5:
                cheaper.append(which | {"cost": name, "times_cheaper": ratios[name]})
    cheaper.sort(key=lambda each: -each["times_cheaper"])
    findings: list[Finding] = []
    if cheaper:
        best = cheaper[0]
        about = f"{best['name']} ({best['run_id']}) is as good, {best['accuracy']:.2%}"
        less = f"{best['times_cheaper']:.1f} times less ({best['cost'].replace('_', ' ')})"
        findings.append((POOR if best["times_cheaper"] >= 3 else WATCH, f"Run {about}, at {less}."))
    if "training_seconds" not in costs:
        findings.append((UNKNOWN, "The run does not say how long it was trained."))
    return _answer(
        "cost",
        findings,
        f"No other run on these test images (there are {len(peers):,}) is as good for clearly less."
        if peers
        else "There is no other run on these test images to compare with.",
        dict(costs) | dict(more) | {"cheaper_runs": cheaper[:10]},
    )


def answers(
    evaluation: Evaluation, test: Dataset, stored: tracking.StoredModel, run: Run, images_per_second: float
) -> list[Answer]:
    """Answer the questions about a stored model, from ``run``, which made it, and the others of its experiment."""
    try:
        floor = gate.parse(cli.read(cli.POLICY), cli.short_name(test.name)).min_accuracy
    except UserError as error:  # promote.py will insist
        cli.log(f"warning: {error}")
        floor = None
    params = run.data.params
    size = params.get("validation_size") if params.get("test_digest") == test.digest else None
    module = stored.module.cpu()
    costs = {"model_parameters": float(parameters(module)), "model_multiply_adds": float(multiply_adds(module))}
    more = {"latency_seconds": latencies([module])[0], "images_per_second": images_per_second}
    same_test = f"params.test_digest = '{test.digest}' and attributes.status = 'FINISHED'"
    peers = [
        Peer(each.info.run_id, each.info.run_name, each.data.metrics["test_accuracy"], _costs(each, run))
        for each in tracking.runs(run.info.experiment_id, same_test)
        if each.info.run_id != run.info.run_id and "test_accuracy" in each.data.metrics
    ]
    return [
        goal(evaluation, floor, peers),
        generalisation(evaluation, tracking.curves(run.info.run_id, CURVES), floor, int(size) if size else None),
        balance(evaluation),
        errors(evaluation),
        cost(evaluation, _costs(run, run) | costs, more | {"model_bytes": stored.size}, peers),
    ]


def _costs(run: Run, beside: Run) -> dict[str, float]:
    """Return what the run cost, as far as it says; seconds only from a machine like that of ``beside``."""
    known: dict[str, Any] = {name: run.data.params.get(name) for name in COSTS}
    machine = [
        [each.data.params.get("device"), *(each.data.tags.get(f"environment.{name}") for name in MACHINE)]
        for each in (run, beside)
    ]
    if machine[0] == machine[1]:
        known["training_seconds"] = run.data.metrics.get("training_seconds")
    return {name: float(value) for name, value in known.items() if value is not None}


QUESTIONS = {
    "goal": "Is the goal met?",
    "generalisation": "Does it generalise?",
    "balance": "Is it balanced?",
    "errors": "Which errors does it make?",
    "cost": "At what cost?",
}


def markdown(answers: Sequence[Answer], title: str) -> str:
    """Return the answers for people."""
    lines = [f"# {title}", "", "| question | verdict |", "| --- | --- |"]
    lines += [f"| {QUESTIONS[each.question]} | **{each.verdict}** |" for each in answers]
    for number, each in enumerate(answers, start=1):
        lines += ["", f"## {number}. {QUESTIONS[each.question]} {each.verdict.capitalize()}", ""]
        lines += [*each.sentences, "", *_table(each.figures)]
    return "\n".join(lines) + "\n"


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = ["| figure | value |", "| --- | --- |"]
    for name, value in figures.items():
        if name == "reliability":  # reliability.png shows it
            continue
        if isinstance(value, list):
            value = "<br>".join(", ".join(f"{key} {_shown(each[key])}" for key in each) for each in value) or "none"
        elif isinstance(value, dict):
            value = ", ".join(f"{key}: {_shown(each)}" for key, each in value.items())
        rows.append(f"| {name.replace('_', ' ')} | {_shown(value)} |")
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and value > 1 else f"{value:.4g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
