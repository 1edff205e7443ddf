"""The quality gate: evidence and policy in, verdict out. Pure: no files, no network, no MLflow."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from pipeline.evaluation.metrics import Evaluation
from pipeline.promotion.comparison import Comparison, compare_models
from pipeline.promotion.policy import Policy

Bound = Literal["floor", "ceiling"]


@dataclass(frozen=True)
class EvaluatedVersion:
    """A version of a registered model, with what is known of it.

    Attributes
    ----------
    version : its number.
    run_id : of the run that trained it.
    model_sha256 : of the model's file; None if it cannot be read.
    evaluation : on the candidate's test images; None for a champion that no rule asks for.
    source : where the evaluation comes from.
    generalisation_gap : training minus validation accuracy after the last epoch; NaN if it is not known.
    parameters : how many the model has; NaN if it is not known.
    latency : seconds for one image; NaN if it was not measured.
    """

    version: int
    run_id: str
    model_sha256: str | None
    evaluation: Evaluation | None
    source: str = "its recorded evaluation"
    generalisation_gap: float = math.nan
    parameters: float = math.nan
    latency: float = math.nan

    def require_evaluation(self) -> Evaluation:
        """Return the evaluation; raise ValueError if there is none."""
        if self.evaluation is None:
            raise ValueError(f"version {self.version} has no evaluation")
        return self.evaluation

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        content: dict[str, Any] = {
            "version": self.version,
            "run_id": self.run_id,
            "model_sha256": self.model_sha256,
            "evidence": self.source,
        }
        if self.evaluation:
            figures = {
                "accuracy": self.evaluation.accuracy,
                "loss": self.evaluation.loss,
                "parameters": self.parameters,
                "latency": self.latency,
            }
            content.update(replace_nan(figures))
        return content


def replace_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for JSON, which has no NaN: None stands for it."""
    result = {}
    for name, value in values.items():
        is_number = isinstance(value, float)
        result[name] = None if is_number and not math.isfinite(value) else value
    return result


@dataclass(frozen=True)
class Check:
    """One rule of the policy, applied.

    Attributes
    ----------
    name : of the rule.
    value, threshold : what was measured, and what it has to reach or stay within.
    passed : the result.
    sentence : the result for people.
    champion : the same figure of the model in Production, or None.
    """

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
    """The checks, and the comparison if there was a champion. It passed if every check did."""

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
        if failed:
            return "; ".join(failed)
        comparisons = [str(check) for check in self.checks if check.name == "regression"]
        return "; ".join(["every check passed", *comparisons])


# --- the rules, a row each -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A figure of a version; ``text`` says what it is, for people."""

    value: float
    text: str


def _measure_accuracy(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the share of test images that the model has right."""
    evaluation = version.require_evaluation()
    text = f"{evaluation.is_correct.sum():,} of {len(evaluation.labels):,} right"
    return Figure(evaluation.accuracy, text)


def _measure_accuracy_lower_end(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the lower end of the accuracy's Wilson interval at the policy's confidence."""
    if policy.confidence is None:
        raise ValueError("the policy has no confidence")
    low, _ = version.require_evaluation().accuracy_interval(policy.confidence)
    return Figure(low, f"the lower end of its {policy.confidence:.0%} interval")


def _measure_lowest_recall(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the lowest recall of a class."""
    evaluation = version.require_evaluation()
    return _find_lowest_score(evaluation.class_recall, evaluation.classes)


def _measure_lowest_f1(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the lowest F1 of a class."""
    evaluation = version.require_evaluation()
    return _find_lowest_score(evaluation.class_f1, evaluation.classes)


def _find_lowest_score(scores: np.ndarray, classes: tuple[str, ...]) -> Figure:
    index = int(scores.argmin())
    return Figure(float(scores[index]), f"class {classes[index]!r}")


def _measure_loss(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return the mean cross-entropy in nats."""
    return Figure(version.require_evaluation().loss, "mean cross-entropy")


def _measure_generalisation_gap(version: EvaluatedVersion, policy: Policy) -> Figure:
    """Return training minus validation accuracy."""
    return Figure(version.generalisation_gap, "training minus validation accuracy")


@dataclass(frozen=True)
class Rule:
    """A rule about one figure of the candidate.

    Attributes
    ----------
    name : of the check, and of the attribute of the policy that has the threshold.
    bound : whether the threshold is a floor or a ceiling.
    measure : returns the figure of a version.
    """

    name: str
    bound: Bound
    measure: Callable[[EvaluatedVersion, Policy], Figure]


RULES = (
    Rule("min_accuracy", "floor", _measure_accuracy),
    Rule("min_accuracy_lower_end", "floor", _measure_accuracy_lower_end),
    Rule("min_class_recall", "floor", _measure_lowest_recall),
    Rule("min_class_f1", "floor", _measure_lowest_f1),
    Rule("max_loss", "ceiling", _measure_loss),
    Rule("max_generalisation_gap", "ceiling", _measure_generalisation_gap),
)


@dataclass(frozen=True)
class CostRule:
    """A ceiling of a cost of the candidate, as a multiple of the champion's.

    Attributes
    ----------
    name : of the check, and of the attribute of the policy that has the ceiling.
    get_cost : returns the cost of a version.
    unit : of the cost.
    """

    name: str
    get_cost: Callable[[EvaluatedVersion], float]
    unit: str


COST_RULES = (
    CostRule("max_parameters_ratio", attrgetter("parameters"), ""),
    CostRule("max_latency_ratio", attrgetter("latency"), " s"),
)


# --- the verdict -----------------------------------------------------------------------------------------------------


def judge_candidate(candidate: EvaluatedVersion, champion: EvaluatedVersion | None, policy: Policy) -> Verdict:
    """Return the verdict on ``candidate``, compared with the ``champion`` if there is one with an evaluation.

    A figure that is NaN never passes.

    Raises
    ------
    ValueError
        The two were not evaluated on the same images in the same order.
    """
    if champion is not None and champion.evaluation is None:
        champion = None
    checks = _check_rules(candidate, champion, policy)
    if champion is None:
        return Verdict(tuple(checks))
    comparison = compare_models(candidate.require_evaluation(), champion.require_evaluation())
    if policy.regression is not None:
        checks.append(_check_regression(comparison, policy))
    checks += _check_costs(candidate, champion, comparison, policy)
    return Verdict(tuple(checks), comparison)


def _check_rules(candidate: EvaluatedVersion, champion: EvaluatedVersion | None, policy: Policy) -> list[Check]:
    checks = []
    for rule in RULES:
        threshold = getattr(policy, rule.name)
        if threshold is None:
            continue
        check = _check_bound(rule.name, rule.bound, rule.measure(candidate, policy), threshold)
        if champion is not None:
            check = replace(check, champion=rule.measure(champion, policy).value)
        checks.append(check)
    return checks


def _check_bound(name: str, bound: Bound, figure: Figure, threshold: float) -> Check:
    """Return the check of a figure against its floor or ceiling."""
    value = figure.value
    if bound == "floor":
        passed = math.isfinite(value) and value >= threshold
        result = "reaches" if passed else "is below"
    else:
        passed = math.isfinite(value) and value <= threshold
        result = "stays within" if passed else "exceeds"
    if math.isnan(value):
        result = "is not known, so it fails"
    return Check(name, value, threshold, passed, f"{value:.4f} ({figure.text}) {result} {threshold:.4f}")


def _check_regression(comparison: Comparison, policy: Policy) -> Check:
    is_better = comparison.is_better(policy.alpha)
    is_worse = comparison.is_worse(policy.alpha)
    if is_worse:
        result = "significantly worse"
    elif is_better:
        result = "significantly better"
    else:
        result = "no significant difference"
    if policy.regression == "better":
        passed = is_better
        if not is_better and not is_worse:
            result += ", but it has to be better"
    else:
        passed = not is_worse and math.isfinite(comparison.p)
    return Check("regression", comparison.p, policy.alpha, passed, f"{comparison}, {result}")


def _check_costs(
    candidate: EvaluatedVersion, champion: EvaluatedVersion, comparison: Comparison, policy: Policy
) -> list[Check]:
    checks = []
    for rule in COST_RULES:
        ceiling = getattr(policy, rule.name)
        if ceiling is None:
            continue
        figure = _measure_ratio(rule, candidate, champion)
        check = _check_bound(rule.name, "ceiling", figure, ceiling)
        may_cost_more = comparison.is_better(policy.alpha) and math.isfinite(figure.value)
        if may_cost_more and not check.passed:
            check = replace(check, passed=True, sentence=f"{check.sentence}, but it is significantly better")
        checks.append(check)
    return checks


def _measure_ratio(rule: CostRule, candidate: EvaluatedVersion, champion: EvaluatedVersion) -> Figure:
    cost = rule.get_cost(candidate)
    champion_cost = rule.get_cost(champion)
    ratio = cost / champion_cost if champion_cost else math.nan
    return Figure(ratio, f"{cost:,.6g}{rule.unit} to {champion_cost:,.6g}{rule.unit}")
