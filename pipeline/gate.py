"""The quality gate: evidence and policy in, verdict out. Pure: no files, no network, no MLflow."""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Policy:
    """What a model has to reach. A rule that is None is not applied.

    Attributes
    ----------
    min_accuracy : floor of the test accuracy, 0 to 1.
    confidence : the lower end of the accuracy's Wilson interval at this confidence has to reach ``min_accuracy`` too:
        a model that is above it by luck alone does not pass.
    min_class_recall, min_class_f1 : floors of every class's recall and F1, 0 to 1. A class without test images has 0.
    max_loss : ceiling of the mean cross-entropy on the test set, in nats.
    max_generalisation_gap : ceiling of training minus validation accuracy after the last epoch.
    regression : beside the model in Production: "not_worse" refuses a model that is significantly worse, "better"
        demands one that is significantly better, by McNemar's exact test.
    alpha : significance level of that test.
    max_parameters_ratio, max_latency_ratio : ceilings of parameters and seconds for one image, as a multiple of the
        champion's. A model that is significantly more accurate may cost more.
    """

    min_accuracy: float | None = None
    confidence: float | None = None
    min_class_recall: float | None = None
    min_class_f1: float | None = None
    max_loss: float | None = None
    max_generalisation_gap: float | None = None
    regression: Literal["not_worse", "better"] | None = None
    alpha: float = 0.05
    max_parameters_ratio: float | None = None
    max_latency_ratio: float | None = None

    @property
    def compares(self) -> bool:
        """Whether a rule needs the model in Production."""
        return any((self.regression, self.max_parameters_ratio, self.max_latency_ratio))


@dataclass(frozen=True)
class Evidence:
    """What is known of a model: what it said of every test image, and what it costs.

    Attributes
    ----------
    labels : int64 [N], the truth.
    probabilities : float64 [N, classes].
    classes : the class names, in the order of the labels.
    gap : training minus validation accuracy after the last epoch; NaN where it is not known.
    parameters : how many the model has.
    latency : seconds for one image; NaN where it was not measured.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    gap: float = math.nan
    parameters: float = math.nan
    latency: float = math.nan

    @cached_property
    def usable(self) -> bool:
        """Whether there are images and every probability is a number."""
        return bool(len(self.labels) and np.isfinite(self.probabilities).all())

    @cached_property
    def correct(self) -> np.ndarray:
        """Which images it names right, bool [N]."""
        return np.asarray(self.probabilities.argmax(1) == self.labels)

    @property
    def accuracy(self) -> float:
        """The share of images that it names right; NaN where the evidence is not usable, as everywhere here."""
        return float(self.correct.mean()) if self.usable else math.nan

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats; no probability counts as less than the smallest float that is not 0."""
        truth = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(truth, np.finfo(float).tiny)).mean()) if self.usable else math.nan

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """``recall`` and ``f1`` of each class, float64 [classes]; 0 where they are not defined."""
        classes = len(self.classes)
        if not self.usable:
            return dict.fromkeys(("recall", "f1"), np.full(classes, math.nan))
        hits = np.bincount(self.labels[self.correct], minlength=classes)
        truths = np.bincount(self.labels, minlength=classes)
        guesses = np.bincount(self.probabilities.argmax(1), minlength=classes)
        return {"recall": hits / np.maximum(truths, 1), "f1": 2 * hits / np.maximum(truths + guesses, 1)}

    def weakest(self, score: str) -> str:
        """Return the name of the class with the lowest ``recall`` or ``f1``."""
        return self.classes[int(self.scores[score].argmin())]


def for_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for JSON, which has no NaN: None stands for it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def evidence(
    record: Mapping[str, Any], predictions: "pd.DataFrame", metrics: Mapping[str, float], where: str
) -> Evidence:
    """Return the evidence that lies in what ``evaluate.py`` recorded; every figure is computed from the predictions.

    ``predictions`` has the columns label, prediction and one for each class's probability; ``metrics`` are the run's.

    Raises UserError, naming ``where``, where ``record`` says something else than its predictions.
    """
    labels, guesses = (predictions.iloc[:, column].to_numpy() for column in (0, 1))
    classes = predictions.shape[1] - 2
    if not all(kind.kind in "if" for kind in predictions.dtypes) or not np.isin(labels, np.arange(classes)).all():
        raise UserError(f"predictions.csv of {where} is not a table of labels, predictions and probabilities")
    found = Evidence(
        labels=labels,
        probabilities=predictions.iloc[:, 2:].to_numpy(),
        classes=tuple(record["classes"])
        if len(record.get("classes", ())) == classes
        else tuple(predictions.columns[2:]),
        gap=metrics.get("train_accuracy", math.nan) - metrics.get("validation_accuracy", math.nan),
        parameters=record.get("parameters", math.nan),
    )
    recorded = {name: record.get(name) for name in ("samples", "accuracy", "loss")}
    computed = {"samples": len(labels), "accuracy": found.accuracy, "loss": found.loss}
    for score, name in (("recall", "recall"), ("f1", "f1-score")):
        for number, each in enumerate(found.classes):
            recorded[f"{score} of class {each!r}"] = record.get("classes", {}).get(each, {}).get(name)
            computed[f"{score} of class {each!r}"] = float(found.scores[score][number])
    for name, value in recorded.items():
        # the table has nine digits of each probability
        if not isinstance(value, int | float) or not math.isclose(value, computed[name], rel_tol=1e-6, abs_tol=1e-7):
            raise UserError(
                f"evaluation.json of {where} says {name} {value}, its predictions give {computed[name]:.6g}: "
                "it was altered; run evaluate.py --log-mlflow again"
            )
    if not np.array_equal(guesses, found.probabilities.argmax(1)):
        raise UserError(
            f"predictions.csv of {where} has predictions that are not the most probable class: it was altered; "
            "run evaluate.py --log-mlflow again"
        )
    return found


@dataclass(frozen=True)
class Comparison:
    """McNemar's exact test on two models' answers to the same images.

    Attributes
    ----------
    candidate_correct, champion_correct, images : counts.
    only_candidate, only_champion : the discordant pairs: images that one of the two alone names right.
    p : how probable a split at least as uneven is where both are equally good (two-sided).
    """

    candidate_correct: int
    champion_correct: int
    images: int
    only_candidate: int
    only_champion: int
    p: float

    def __str__(self) -> str:
        alone = f"alone right on {self.only_candidate} images, the champion on {self.only_champion}"
        return f"{alone}: McNemar p {self.p:.2g}"


@dataclass(frozen=True)
class Check:
    """One rule of the policy against what was measured; ``champion`` is the same figure of the model in Production."""

    name: str
    value: float
    threshold: float
    passed: bool
    sentence: str
    champion: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


@dataclass(frozen=True)
class Verdict:
    """The checks, and the comparison where there was a champion; it passed when every check did."""

    checks: tuple[Check, ...]
    comparison: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """Why, in a sentence: the checks that failed, or that none did."""
        failed = [str(check) for check in self.checks if not check.passed]
        beside = [str(check) for check in self.checks if check.name == "regression"]
        return "; ".join(failed or ["every check passed", *beside])


def decide(candidate: Evidence, champion: Evidence | None, policy: Policy) -> Verdict:
    """Return the verdict on ``candidate``, beside the ``champion`` where there is one. A NaN never passes.

    Raises ValueError where the two were not measured on the same images in the same order.
    """
    comparison = compare(candidate, champion) if champion else None
    return Verdict(tuple(_checks(candidate, champion, comparison, policy)), comparison)


def compare(candidate: Evidence, champion: Evidence) -> Comparison:
    """Return McNemar's test (1947, Psychometrika 12:153), exact: a binomial test on the discordant pairs."""
    from scipy.stats import binomtest

    if not np.array_equal(candidate.labels, champion.labels):
        raise ValueError("the two models were not measured on the same images")
    gained = int((candidate.correct & ~champion.correct).sum())
    lost = int((champion.correct & ~candidate.correct).sum())
    p = math.nan
    if candidate.usable and champion.usable:
        p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Comparison(int(candidate.correct.sum()), int(champion.correct.sum()), len(candidate.labels), gained, lost, p)


def _checks(
    candidate: Evidence, champion: Evidence | None, comparison: Comparison | None, policy: Policy
) -> Iterator[Check]:
    def bound(name: str, of: Callable[[Evidence], float], threshold: float, what: str, most: bool = False) -> Check:
        return _bound(name, of(candidate), threshold, what, most, of(champion) if champion else None)

    if policy.min_accuracy is not None:
        right = f"{candidate.correct.sum():,} of {len(candidate.labels):,} right"
        yield bound("min_accuracy", lambda each: each.accuracy, policy.min_accuracy, right)
        if (confidence := policy.confidence) is not None:
            text = f"the lower end of its {confidence:.0%} interval"
            yield bound("min_accuracy_lower_end", lambda each: _lower_end(each, confidence), policy.min_accuracy, text)
    if policy.min_class_recall is not None:
        text = f"class {candidate.weakest('recall')!r}"
        yield bound("min_class_recall", lambda each: each.scores["recall"].min(), policy.min_class_recall, text)
    if policy.min_class_f1 is not None:
        text = f"class {candidate.weakest('f1')!r}"
        yield bound("min_class_f1", lambda each: each.scores["f1"].min(), policy.min_class_f1, text)
    if policy.max_loss is not None:
        yield bound("max_loss", lambda each: each.loss, policy.max_loss, "mean cross-entropy", True)
    if policy.max_generalisation_gap is not None:
        text = "training minus validation accuracy"
        yield bound("max_generalisation_gap", lambda each: each.gap, policy.max_generalisation_gap, text, True)
    if champion is None or comparison is None:
        return
    significant = comparison.p < policy.alpha
    better = significant and comparison.only_candidate > comparison.only_champion
    if policy.regression:
        worse = significant and not better
        word = "significantly worse" if worse else "significantly better" if better else "no significant difference"
        passed = better if policy.regression == "better" else not worse and math.isfinite(comparison.p)
        if policy.regression == "better" and not significant:
            word += ", but it has to be better"
        yield Check("regression", comparison.p, policy.alpha, passed, f"{comparison}, {word}")
    for name, unit in (("parameters", ""), ("latency", " s")):
        ceiling = getattr(policy, f"max_{name}_ratio")
        if ceiling is not None:
            ours, theirs = getattr(candidate, name), getattr(champion, name)
            ratio = ours / theirs if theirs else math.nan
            check = _bound(f"max_{name}_ratio", ratio, ceiling, f"{ours:,.6g}{unit} to {theirs:,.6g}{unit}", True)
            if better and not check.passed and math.isfinite(ratio):
                check = Check(check.name, ratio, ceiling, True, f"{check.sentence}, but it is significantly better")
            yield check


def _bound(name: str, value: float, threshold: float, what: str, most: bool, champion: float | None = None) -> Check:
    """Return the check of a value against its floor, or its ceiling where ``most``."""
    value = float(value)
    passed = math.isfinite(value) and (value <= threshold if most else value >= threshold)
    word = ("stays within" if passed else "exceeds") if most else ("reaches" if passed else "is below")
    if math.isnan(value):
        word = "is not known, so it fails"
    return Check(name, value, threshold, passed, f"{value:.4f} ({what}) {word} {threshold:.4f}", champion)


def _lower_end(evidence: Evidence, confidence: float) -> float:
    """Return the lower end of the accuracy's interval, by Wilson (1927), JASA 22:209."""
    from scipy.stats import binomtest

    if not evidence.usable:
        return math.nan
    correct = int(evidence.correct.sum())
    return float(binomtest(correct, len(evidence.labels)).proportion_ci(confidence, "wilson").low)


# --- the policy's file ----------------------------------------------------------------------------------------------

_SHARE, _INSIDE, _POSITIVE = "a number from 0 to 1", "a number between 0 and 1", "a number above 0"
RULES: dict[str, str | tuple[str, ...]] = {
    "min_accuracy": _SHARE,
    "confidence": _INSIDE,
    "min_class_recall": _SHARE,
    "min_class_f1": _SHARE,
    "max_loss": _POSITIVE,
    "max_generalisation_gap": _SHARE,
    "regression": ("not_worse", "better"),
    "alpha": _INSIDE,
    "max_parameters_ratio": _POSITIVE,
    "max_latency_ratio": _POSITIVE,
}


def parse(text: str, dataset: str, min_accuracy: float | None = None, file: str = "gates.toml") -> Policy:
    """Return the policy for ``dataset`` out of the text of ``file``, with another ``min_accuracy`` where given.

    Raises UserError, naming the line, where the text is bad.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; put it right and run again") from None
    table = tables.get(dataset, {} if min_accuracy is not None else None)
    if not isinstance(table, dict):
        name = dataset if re.fullmatch(r"[\w-]+", dataset, re.ASCII) else '"' + dataset.replace('"', '\\"') + '"'
        raise UserError(f"{file} has no table [{name}]; add it, or give promote.py --min-accuracy")
    for key, value in table.items():
        where = f"{file}, line {_line(text, dataset, key)}"
        wanted = RULES.get(key)
        if wanted is None:
            raise UserError(f"{where}: there is no rule {key!r}; the rules are {', '.join(RULES)}")
        if isinstance(wanted, tuple):
            good, wanted = value in wanted, "one of " + ", ".join(map(repr, wanted))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            good = False
        else:
            good = {_SHARE: 0 <= value <= 1, _INSIDE: 0 < value < 1, _POSITIVE: value > 0}[wanted]
        if not good:
            raise UserError(f"{where}: {key} = {value!r} is not {wanted}; put it right and run again")
    if min_accuracy is not None:
        table["min_accuracy"] = min_accuracy
    policy = Policy(**table)
    where = f"{file}, line {_line(text, dataset)}: [{dataset}]"
    if policy.confidence is not None and policy.min_accuracy is None:
        raise UserError(f"{where} has a confidence but no min_accuracy for it; add one")
    if "alpha" in table and not policy.compares:
        raise UserError(f"{where} has an alpha but no rule that compares with the champion; add regression")
    if not table:
        raise UserError(f"{where} has no rule, so everything would pass; add min_accuracy")
    return policy


def _line(text: str, table: str, key: str | None = None) -> int:
    """Return the number of the line where the table starts, or where its key stands."""
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\s*[\"']?{re.escape(table)}[\"']?\s*\]")
    start = next((i for i, line in enumerate(lines) if header.match(line)), 0)
    if key is None:
        return start + 1
    assignment = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    return next((i for i in range(start, len(lines)) if assignment.match(lines[i])), start) + 1
