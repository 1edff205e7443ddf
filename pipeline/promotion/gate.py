"""The quality gate: evidence and policy in, verdict out. Pure: no files, no network, no MLflow."""

import math
from dataclasses import dataclass, replace

from pipeline.promotion.comparison import Comparison, compare_models
from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.promotion.policy import Policy
from pipeline.promotion.rules import COST_RULES, RULES, Bound, CostRule, Figure


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
    if champion is None:
        return Verdict(tuple(_check_rules(candidate, None, policy)))
    comparison = compare_models(candidate.require_evaluation(), champion.require_evaluation())
    # the figures of a champion on a part of the images would not be comparable
    checks = _check_rules(candidate, None if comparison.left_out else champion, policy)
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
    if math.isnan(value):
        return Check(name, value, threshold, passed=False, sentence=f"{figure.text} is not known, so it fails")
    if bound == "floor":
        passed = math.isfinite(value) and value >= threshold
        result = "reaches" if passed else "is below"
    else:
        passed = math.isfinite(value) and value <= threshold
        result = "stays within" if passed else "exceeds"
    sentence = f"{format_figure(value)} ({figure.text}) {result} {format_figure(threshold)}"
    return Check(name, value, threshold, passed, sentence)


def format_figure(value: float) -> str:
    """Return a figure for people: a count as it is, any other number with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


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
