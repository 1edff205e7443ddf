import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss, recall_score

from pipeline import UserError, gate
from pipeline.gate import Evidence, Policy

CLASSES = ("cat", "dog", "owl")


def evidence(right: int, images: int, **more: Any) -> Evidence:
    """Return a model that names the first ``right`` of ``images`` cats and dogs, in turn, right and the rest wrong."""
    labels = np.arange(images) % 2
    guesses = np.where(np.arange(images) < right, labels, 1 - labels)
    return Evidence(labels, np.eye(2)[guesses] * 0.8 + 0.1, ("cat", "dog"), **more)


def only(rule: str, threshold: Any) -> Policy:
    """Return the policy with this rule alone."""
    return Policy(**{rule: threshold})


def without(model: Evidence, field: str) -> Evidence:
    """Return the model with this cost unknown."""
    unknown: dict[str, Any] = {field: math.nan}
    return replace(model, **unknown)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Evidence, Evidence]:
    """Draw two models, of any cost, measured on the same images of three classes."""
    images = draw(st.integers(1, 40))
    labels = np.array(draw(st.lists(st.integers(0, 2), min_size=images, max_size=images)))

    def model() -> Evidence:
        scores = draw(st.lists(st.integers(0, 9), min_size=3 * images, max_size=3 * images))
        probabilities = np.array(scores).reshape(images, 3) + 0.5
        costs = {name: draw(st.floats(0.1, 100)) for name in ("parameters", "latency")}
        gap = draw(st.floats(-1, 1))
        return Evidence(labels, probabilities / probabilities.sum(1, keepdims=True), CLASSES, gap=gap, **costs)

    return model(), model()


shares = st.none() | st.floats(0, 1)
policies = st.builds(
    Policy,
    min_accuracy=st.floats(0, 1),
    confidence=st.none() | st.floats(0.01, 0.99),
    min_class_recall=shares,
    min_class_f1=shares,
    max_loss=st.none() | st.floats(0, 10),
    max_generalisation_gap=shares,
    regression=st.sampled_from([None, "not_worse", "better"]),
    alpha=st.floats(0.01, 0.5),
    max_parameters_ratio=st.none() | st.floats(0.1, 10),
    max_latency_ratio=st.none() | st.floats(0.1, 10),
)
STRICTER = {name: 1 if name.startswith("min") else -1 for name in gate.RULES if name.startswith(("min", "max"))}


# --- for all models and policies ------------------------------------------------------------------------------------


@given(pairs(), policies, st.sampled_from(sorted(STRICTER)), st.floats(0, 1))
def test_a_stricter_threshold_never_turns_a_refusal_into_a_pass(
    models: tuple[Evidence, Evidence], policy: Policy, rule: str, by: float
) -> None:
    old = getattr(policy, rule)
    change: dict[str, Any] = {rule: by if old is None else old + by * STRICTER[rule]}
    stricter = replace(policy, **change)
    if not gate.decide(*models, policy).passed:
        assert not gate.decide(*models, stricter).passed


@given(pairs(), policies)
def test_a_higher_confidence_never_turns_a_refusal_into_a_pass(
    models: tuple[Evidence, Evidence], policy: Policy
) -> None:
    surer = replace(policy, confidence=(1 + (policy.confidence or 0)) / 2)
    if not gate.decide(*models, policy).passed:
        assert not gate.decide(*models, surer).passed


@given(pairs(), st.floats(0.001, 0.999), st.floats(1, 10))
def test_a_model_compared_with_itself_is_never_a_regression(
    models: tuple[Evidence, Evidence], alpha: float, ratio: float
) -> None:
    policy = Policy(regression="not_worse", alpha=alpha, max_parameters_ratio=ratio, max_latency_ratio=ratio)
    verdict = gate.decide(models[0], models[0], policy)
    assert verdict.passed
    assert [check.name for check in verdict.checks] == ["regression", "max_parameters_ratio", "max_latency_ratio"]
    assert verdict.comparison is not None and verdict.comparison.p == 1


@given(pairs(), policies, st.randoms())
def test_the_order_of_the_images_does_not_matter(
    models: tuple[Evidence, Evidence], policy: Policy, random: Any
) -> None:
    order = list(range(len(models[0].labels)))
    random.shuffle(order)
    first, second = (
        replace(each, labels=each.labels[order], probabilities=each.probabilities[order]) for each in models
    )
    one, other = gate.decide(*models, policy), gate.decide(first, second, policy)
    assert [(check.name, check.passed) for check in one.checks] == [
        (check.name, check.passed) for check in other.checks
    ]
    assert [check.value for check in one.checks] == pytest.approx([check.value for check in other.checks])
    assert one.comparison == other.comparison


@given(pairs(), policies, st.data())
def test_a_nan_never_passes(models: tuple[Evidence, Evidence], policy: Policy, data: st.DataObject) -> None:
    candidate, champion = models
    probabilities = candidate.probabilities.copy()
    probabilities[data.draw(st.integers(0, len(probabilities) - 1)), data.draw(st.integers(0, 2))] = math.nan
    broken = replace(candidate, probabilities=probabilities)
    assert not gate.decide(broken, champion, policy).passed
    assert not gate.decide(broken, None, policy).passed
    for field in ("gap", "parameters", "latency"):
        rule = "max_generalisation_gap" if field == "gap" else f"max_{field}_ratio"
        assert not gate.decide(without(candidate, field), champion, only(rule, 100.0)).passed


@given(pairs())
def test_scores_are_those_of_scikit_learn(models: tuple[Evidence, Evidence]) -> None:
    found, labels = models[0], models[0].labels
    guesses = found.probabilities.argmax(1)
    among: dict[str, Any] = {"labels": range(3), "average": None, "zero_division": 0}
    assert found.scores["recall"] == pytest.approx(recall_score(labels, guesses, **among))
    assert found.scores["f1"] == pytest.approx(f1_score(labels, guesses, **among))
    assert found.loss == pytest.approx(log_loss(labels, found.probabilities, labels=range(3)))


# --- each rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "passed"), [(99, True), (98, True), (97, False)])
def test_accuracy_has_to_reach_the_floor(right: int, passed: bool) -> None:
    (check,) = gate.decide(evidence(right, 100), None, Policy(0.98)).checks
    assert (check.name, check.value, check.threshold, check.passed) == ("min_accuracy", right / 100, 0.98, passed)


# 351 of 360 is the least whose 95% lower end reaches 0.95; 360 of 360 has one of 0.9894 (docs/metrics.md)
@pytest.mark.parametrize(("right", "floor", "passed"), [(351, 0.95, True), (350, 0.95, False), (360, 0.9999, False)])
def test_with_a_confidence_luck_alone_does_not_pass(right: int, floor: float, passed: bool) -> None:
    assert gate.decide(evidence(right, 360), None, Policy(floor)).passed  # the accuracy itself reaches it
    accuracy, low = gate.decide(evidence(right, 360), None, Policy(floor, 0.95)).checks
    assert (accuracy.name, accuracy.value, accuracy.passed) == ("min_accuracy", right / 360, True)
    assert (low.name, low.threshold, low.passed) == ("min_accuracy_lower_end", floor, passed)
    assert low.value == binomtest(right, 360).proportion_ci(0.95, "wilson").low


@pytest.mark.parametrize("score", ["recall", "f1"])
def test_the_class_that_is_left_behind_is_named(score: str) -> None:
    labels = np.array([0] * 10 + [1] * 10)
    guesses = labels.copy()
    guesses[10:17] = 0  # 3 of 10 dogs are found: recall 0.3, F1 2 * 3 / (10 + 3)
    model = Evidence(labels, np.eye(2)[guesses], ("cat", "dog"))
    (check,) = gate.decide(model, model, only(f"min_class_{score}", 0.5)).checks
    assert not check.passed and "'dog'" in str(check)
    assert check.value == check.champion == pytest.approx(0.3 if score == "recall" else 6 / 13)


def test_a_class_without_images_is_left_behind() -> None:
    model = Evidence(np.array([0, 0]), np.eye(2)[[0, 0]], ("cat", "dog"))
    assert not gate.decide(model, None, Policy(min_class_recall=0.1)).passed


def test_a_model_that_is_sure_of_its_mistakes_exceeds_the_loss() -> None:
    labels = np.array([0, 1])
    sure = Evidence(labels, np.array([[1.0, 0.0], [1.0, 0.0]]), ("cat", "dog"))
    unsure = Evidence(labels, np.array([[0.6, 0.4], [0.6, 0.4]]), ("cat", "dog"))
    assert sure.accuracy == unsure.accuracy
    assert [gate.decide(each, None, Policy(max_loss=1.0)).passed for each in (sure, unsure)] == [False, True]


@pytest.mark.parametrize(("gap", "passed"), [(-0.1, True), (0.05, True), (0.06, False), (math.nan, False)])
def test_training_must_not_run_ahead_of_validation(gap: float, passed: bool) -> None:
    assert gate.decide(evidence(9, 10, gap=gap), None, Policy(max_generalisation_gap=0.05)).passed is passed


# McNemar's exact p of 0 to 5 discordant pairs is 2 / 2**5 = 0.0625, of 0 to 6 it is 2 / 2**6 = 0.03125
@pytest.mark.parametrize(
    ("candidate", "champion", "not_worse", "better"),
    [(94, 100, False, False), (95, 100, True, False), (100, 95, True, False), (100, 94, True, True)],
)
def test_regression_is_judged_by_mcnemars_test(candidate: int, champion: int, not_worse: bool, better: bool) -> None:
    models = evidence(candidate, 100), evidence(champion, 100)
    for rule, passed in (("not_worse", not_worse), ("better", better)):
        verdict = gate.decide(*models, only("regression", rule))
        assert verdict.passed is passed, rule
        difference = abs(candidate - champion)
        assert verdict.comparison == gate.Comparison(
            candidate, champion, 100, max(candidate - champion, 0), max(champion - candidate, 0), 2 / 2**difference
        )
    if not not_worse:
        assert "McNemar p 0.031, significantly worse" in verdict.reason


@pytest.mark.parametrize("rule", ["parameters", "latency"])
def test_a_dearer_model_has_to_be_significantly_better(rule: str) -> None:
    policy = only(f"max_{rule}_ratio", 1.5)
    costs = [{rule: 15.0}, {rule: 16.0}]
    for right, cost, passed in ((95, costs[0], True), (95, costs[1], False), (100, costs[1], True)):
        (check,) = gate.decide(evidence(right, 100, **cost), evidence(94, 100, **{rule: 10.0}), policy).checks
        assert (check.name, check.value, check.passed) == (f"max_{rule}_ratio", cost[rule] / 10, passed)


def test_without_a_champion_nothing_is_compared() -> None:
    verdict = gate.decide(evidence(9, 10), None, Policy(0.5, regression="better", max_parameters_ratio=1.0))
    assert [check.name for check in verdict.checks] == ["min_accuracy"]
    assert verdict.comparison is None


def test_models_measured_on_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not measured on the same images"):
        gate.decide(evidence(9, 10), evidence(9, 11), Policy(regression="better"))


def test_a_verdict_says_in_words_what_it_found() -> None:
    verdict = gate.decide(evidence(97, 100), evidence(97, 100), Policy(0.98, regression="not_worse"))
    assert verdict.reason == "min_accuracy: 0.9700 (97 of 100 right) is below 0.9800"
    passed = gate.decide(evidence(97, 100), evidence(97, 100), Policy(0.9, regression="not_worse"))
    assert passed.reason.startswith("every check passed; regression: alone right on 0 images, the champion on 0")


def test_json_has_no_nan() -> None:
    assert json.dumps(gate.for_json({"a": math.nan, "b": 1.5, "c": None}), allow_nan=False)


# --- the record -----------------------------------------------------------------------------------------------------


def recorded(model: Evidence) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return what evaluate.py would have recorded of the model."""
    guesses = model.probabilities.argmax(1)
    table = pd.DataFrame({"label": model.labels, "prediction": guesses})
    for number, name in enumerate(model.classes):
        table[name] = model.probabilities[:, number]
    scores = {
        name: {"recall": model.scores["recall"][number], "f1-score": model.scores["f1"][number]}
        for number, name in enumerate(model.classes)
    }
    record = {"samples": len(guesses), "accuracy": model.accuracy, "loss": model.loss, "classes": scores}
    return record | {"parameters": 7}, table


def test_evidence_is_computed_from_the_predictions() -> None:
    model = evidence(90, 100)
    found = gate.evidence(*recorded(model), {"train_accuracy": 0.95, "validation_accuracy": 0.9}, "run x")
    assert (found.accuracy, found.loss, found.parameters) == (0.9, model.loss, 7)
    assert found.gap == pytest.approx(0.05)
    assert math.isnan(gate.evidence(*recorded(model), {}, "run x").gap)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 0.91}, "evaluation.json of run x says accuracy 0.91, its predictions give 0.9"),
        ({"loss": 0.1}, "says loss 0.1, its predictions give"),
        ({"samples": 99}, "says samples 99"),
        ({"accuracy": math.nan}, "says accuracy nan"),
        ({"accuracy": None}, "says accuracy None"),
        ({"classes": {}}, "says recall of class 'cat' None"),
    ],
)
def test_a_record_that_says_more_than_its_predictions_is_refused(change: dict[str, Any], message: str) -> None:
    record, table = recorded(evidence(90, 100))
    with pytest.raises(UserError, match=message):
        gate.evidence(record | change, table, {}, "run x")


@pytest.mark.parametrize(
    ("column", "values"),
    [("label", [0, 1, 2]), ("label", [0, 1, -1]), ("cat", ["a", "b", "c"]), ("prediction", [9] * 3)],
)
def test_a_table_that_is_not_one_of_predictions_is_refused(column: str, values: list[Any]) -> None:
    record, table = recorded(evidence(3, 3))
    with pytest.raises(UserError, match=r"predictions.csv of run x"):
        gate.evidence(record, table.assign(**{column: values}), {}, "run x")


def test_predictions_that_do_not_follow_from_their_probabilities_are_refused() -> None:
    record, table = recorded(evidence(90, 100))
    table.loc[95, "prediction"] = table.loc[95, "label"]
    with pytest.raises(UserError, match="not the most probable class"):
        gate.evidence(record, table, {}, "run x")


# --- the policy's file ----------------------------------------------------------------------------------------------


def test_another_floor_replaces_the_one_in_the_file_and_keeps_the_rest() -> None:
    text = "[mnist]\nmin_accuracy = 0.98\nconfidence = 0.9\nregression = 'better'\n"
    assert gate.parse(text, "mnist", min_accuracy=0.5) == Policy(0.5, 0.9, regression="better")
    assert gate.parse(text, "another", min_accuracy=0.5) == Policy(0.5)


@pytest.mark.parametrize(("dataset", "floor"), [("mnist", 0.98), ("fashion-mnist", 0.90), ("digits", 0.95)])
def test_the_policy_in_the_repository_names_every_data_set(dataset: str, floor: float) -> None:
    policy = gate.parse((ROOT / "gates.toml").read_text(), dataset)
    assert (policy.min_accuracy, policy.confidence, policy.regression) == (floor, 0.95, "not_worse")


def test_every_rule_is_explained_where_it_is_set() -> None:
    text = (ROOT / "gates.toml").read_text() + (ROOT / "docs" / "promotion.md").read_text()
    assert [rule for rule in gate.RULES if rule not in text] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mnist]\nmin_accuracy = \n", "line 2"),
        ("# one\n\n[digits]\nmin_accuracy = 0.5\n[mnist]\nmin_accuracy = 'high'\n", "line 6: min_accuracy = 'high'"),
        ("[mnist]\nmin_accuracy = 98\n", "line 2: min_accuracy = 98 is not a number from 0 to 1"),
        ("[mnist]\nmin_accuracy = true\n", "line 2"),
        ("[mnist]\nmin_accuracy = nan\n", "line 2"),
        ("[mnist]\nmin_acuracy = 0.9\n", "line 2: there is no rule 'min_acuracy'"),
        ("[mnist]\nmin_accuracy = 0.9\nconfidence = 1\n", "line 3: confidence = 1 is not a number between 0 and 1"),
        ("[mnist]\nmax_loss = 0\n", "line 2: max_loss = 0 is not a number above 0"),
        ("[mnist]\nmax_latency_ratio = inf\n", "line 2: max_latency_ratio = inf is not a number above 0"),
        ("[mnist]\nregression = 'worse'\n", "line 2: regression = 'worse' is not one of 'not_worse', 'better'"),
        ("[mnist]\nregression = []\n", "line 2: regression = .* is not one of"),
        ("\n[mnist]\n", r"line 2: \[mnist\] has no rule"),
        ("[mnist]\nconfidence = 0.9\n", r"line 1: \[mnist\] has a confidence but no min_accuracy"),
        ("[mnist]\nmin_accuracy = 0.9\nalpha = 0.1\n", r"line 1: \[mnist\] has an alpha but no rule"),
        ("[digits]\nmin_accuracy = 0.9\n", r"no table \[mnist\]"),
        ("mnist = 0.9\n", r"no table \[mnist\]"),
    ],
)
def test_a_malformed_policy_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gate.parse(text, "mnist")


def test_the_gate_is_pure() -> None:
    source = Path(gate.__file__).read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.lstrip().startswith(("import ", "from "))}
    pure = {"math", "re", "tomllib", "collections.abc", "dataclasses", "functools", "typing"}
    assert imported - pure <= {"numpy", "pandas", "pipeline", "scipy.stats"}
