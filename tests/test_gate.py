import math
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline import UserError, gate
from pipeline.gate import Policy


@pytest.mark.parametrize(("accuracy", "passed"), [(0.99, True), (0.98, True), (0.9799, False), (math.nan, False)])
def test_accuracy_has_to_reach_the_floor(accuracy: float, passed: bool) -> None:
    verdict = gate.decide({"accuracy": accuracy}, Policy(0.98))
    assert verdict.passed is passed
    assert verdict.checks[0].threshold == 0.98


@pytest.mark.parametrize("evidence", [{}, {"accuracy": "0.99"}, {"samples": 10}, {"accuracy": 1.5, "samples": 10}])
@pytest.mark.parametrize("confidence", [None, 0.95])
def test_missing_or_impossible_evidence_never_passes(evidence: dict[str, object], confidence: float | None) -> None:
    assert not gate.decide(evidence, Policy(0.0, confidence)).passed


# 351 of 360 is the least whose 95% lower end reaches 0.95; 360 of 360 has one of 0.9894 (docs/metrics.md)
@pytest.mark.parametrize(("correct", "floor", "passed"), [(351, 0.95, True), (350, 0.95, False), (360, 0.9999, False)])
def test_with_a_confidence_luck_alone_does_not_pass(correct: int, floor: float, passed: bool) -> None:
    evidence = {"accuracy": correct / 360, "samples": 360}
    assert gate.decide(evidence, Policy(floor)).passed  # the accuracy itself reaches it
    accuracy, low = gate.decide(evidence, Policy(floor, 0.95)).checks
    assert (accuracy.name, accuracy.value, accuracy.passed) == ("min_accuracy", correct / 360, True)
    assert (low.name, low.threshold, low.passed) == ("min_accuracy_lower_end", floor, passed)


def test_another_floor_replaces_the_one_in_the_file_and_keeps_the_rest() -> None:
    text = "[mnist]\nmin_accuracy = 0.98\nconfidence = 0.9\n"
    assert gate.parse(text, "mnist", min_accuracy=0.5) == Policy(0.5, 0.9)
    assert gate.parse(text, "another", min_accuracy=0.5) == Policy(0.5)


def test_a_check_says_in_words_what_it_found() -> None:
    (check,) = gate.decide({"accuracy": 0.97}, Policy(0.98)).checks
    assert str(check) == "min_accuracy: 0.9700 is below 0.9800"


@pytest.mark.parametrize(("dataset", "floor"), [("mnist", 0.98), ("fashion-mnist", 0.90), ("digits", 0.95)])
def test_the_policy_in_the_repository_names_every_data_set(dataset: str, floor: float) -> None:
    assert gate.parse((ROOT / "gates.toml").read_text(), dataset) == Policy(floor, 0.95)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mnist]\nmin_accuracy = \n", "line 2"),
        ("# one\n\n[digits]\nmin_accuracy = 0.5\n[mnist]\nmin_accuracy = 'high'\n", "line 6: min_accuracy = 'high'"),
        ("[mnist]\nmin_accuracy = 98\n", "line 2: min_accuracy = 98 is not a number from 0 to 1"),
        ("[mnist]\nmin_accuracy = true\n", "line 2"),
        ("[mnist]\nmin_accuracy = nan\n", "line 2"),
        ("[mnist]\nmin_acuracy = 0.9\n", "line 2: there is no rule 'min_acuracy'"),
        ("[mnist]\nmin_accuracy = 0.9\nconfidence = 1\n", "line 3: confidence = 1 is not between"),
        ("\n[mnist]\n", "line 2: .* has no min_accuracy"),
        ("[digits]\nmin_accuracy = 0.9\n", r"no table \[mnist\]"),
        ("mnist = 0.9\n", r"no table \[mnist\]"),
    ],
)
def test_a_malformed_policy_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gate.parse(text, "mnist")


def test_the_gate_is_pure() -> None:
    source = Path(gate.__file__).read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= {"math", "re", "tomllib", "collections.abc", "dataclasses", "typing", "pipeline", "scipy.stats"}
