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


def test_a_missing_accuracy_never_passes() -> None:
    assert not gate.decide({}, Policy(0.0)).passed
    assert not gate.decide({"accuracy": "0.99"}, Policy(0.0)).passed


def test_a_check_says_in_words_what_it_found() -> None:
    (check,) = gate.decide({"accuracy": 0.97}, Policy(0.98)).checks
    assert str(check) == "min_accuracy: 0.9700 is below 0.9800"


@pytest.mark.parametrize(("dataset", "floor"), [("mnist", 0.98), ("fashion-mnist", 0.90), ("digits", 0.95)])
def test_the_policy_in_the_repository_names_every_data_set(dataset: str, floor: float) -> None:
    assert gate.parse((ROOT / "gates.toml").read_text(), dataset) == Policy(floor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mnist]\nmin_accuracy = \n", "line 2"),
        ("# one\n\n[digits]\nmin_accuracy = 0.5\n[mnist]\nmin_accuracy = 'high'\n", "line 6: min_accuracy = 'high'"),
        ("[mnist]\nmin_accuracy = 98\n", "line 2: min_accuracy = 98 is not a number from 0 to 1"),
        ("[mnist]\nmin_accuracy = true\n", "line 2"),
        ("[mnist]\nmin_accuracy = nan\n", "line 2"),
        ("[mnist]\nmin_acuracy = 0.9\n", "line 2: there is no rule 'min_acuracy'"),
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
    assert imported <= {"math", "re", "tomllib", "collections.abc", "dataclasses", "typing", "pipeline"}
