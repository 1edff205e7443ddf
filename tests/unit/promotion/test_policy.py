import re

import pytest

from pipeline.errors import UserError
from pipeline.promotion.policy import POLICY_FILE, Policy, parse_policy
from support.scripts import ROOT

POLICY_TEXT = "[mnist]\nmin_accuracy = 0.98\nconfidence = 0.9\nregression = 'better'\n"


def test_policy_file_is_that_of_the_repository() -> None:
    assert POLICY_FILE == ROOT / "gates.toml"


def test_other_floor_replaces_that_of_the_file() -> None:
    expected = Policy(min_accuracy=0.5, confidence=0.9, regression="better")
    assert parse_policy(POLICY_TEXT, "mnist", min_accuracy=0.5) == expected


def test_floor_is_enough_without_a_table() -> None:
    assert parse_policy(POLICY_TEXT, "another", min_accuracy=0.5) == Policy(min_accuracy=0.5)


def test_whole_numbers_are_accepted() -> None:
    assert parse_policy("[mnist]\nmin_accuracy = 1\n", "mnist") == Policy(min_accuracy=1.0)


@pytest.mark.parametrize(("dataset", "floor"), [("mnist", 0.98), ("fashion-mnist", 0.90), ("digits", 0.95)])
def test_repository_has_a_policy_for_each_dataset(dataset: str, floor: float) -> None:
    policy = parse_policy(POLICY_FILE.read_text(), dataset)
    assert policy.min_accuracy == floor
    assert policy.confidence == 0.95
    assert policy.regression == "not_worse"


@pytest.mark.parametrize("rule", Policy.model_fields)
def test_each_rule_is_explained_in_the_policy(rule: str) -> None:
    assert rule in str(Policy.__doc__)


def test_rules_that_compare_need_a_champion() -> None:
    assert not Policy(min_accuracy=0.5, max_loss=1.0).compares
    assert Policy(regression="better").compares
    assert Policy(max_parameters_ratio=1.5).compares
    assert Policy(max_latency_ratio=1.5).compares


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("min_accuracy = 'high'", "min_accuracy = 'high' should be a valid number"),
        ("min_accuracy = 98", "min_accuracy = 98 should be less than or equal to 1"),
        ("min_accuracy = -0.1", "min_accuracy = -0.1 should be greater than or equal to 0"),
        ("min_accuracy = true", "min_accuracy = True should be a valid number"),
        ("min_accuracy = nan", "min_accuracy = nan should be a finite number"),
        ("min_accuracy = []", r"min_accuracy = \[\] should be a valid number"),
        ("min_acuracy = 0.9", "there is no rule 'min_acuracy'; the rules are min_accuracy, confidence,"),
        ("min_accuracy = 0.9\nconfidence = 1", "confidence = 1 should be less than 1"),
        ("max_loss = 0", "max_loss = 0 should be greater than 0"),
        ("max_latency_ratio = inf", "max_latency_ratio = inf should be a finite number"),
        ("regression = 'worse'", "regression = 'worse' should be 'not_worse' or 'better'"),
        ("regression = []", r"regression = \[\] should be"),
        ("", "has no rule"),
        ("confidence = 0.9", "has a confidence but no min_accuracy"),
        ("min_accuracy = 0.9\nalpha = 0.1", "has an alpha but no rule that compares"),
    ],
)
def test_bad_rule_is_named_with_its_table(rules: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"gates.toml, table \[mnist\]:? {message}"):
        parse_policy(f"[digits]\nmin_accuracy = 0.5\n[mnist]\n{rules}\n", "mnist")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mnist]\nmin_accuracy = \n", "gates.toml is not TOML: .*line 2"),
        ("[digits]\nmin_accuracy = 0.9\n", r"gates.toml has no table \[mnist\]"),
        ("mnist = 0.9\n", r"gates.toml has no table \[mnist\]"),
    ],
)
def test_file_without_a_usable_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_policy(text, "mnist")


def test_missing_table_is_named_as_toml_writes_it() -> None:
    with pytest.raises(UserError, match=r'no table \["my \\"cats\\""\]'):
        parse_policy("", 'my "cats"')


def test_documents_name_only_rules_that_exist() -> None:
    comments = re.findall(r"^# ([a-z_0-9]+)  ", POLICY_FILE.read_text(), re.MULTILINE)
    rows = re.findall(r"^\| (`[^|]*) \|", (ROOT / "docs" / "promotion.md").read_text(), re.MULTILINE)
    documented = re.findall(r"`(\w+)`", " ".join(rows))
    assert set(comments) == set(documented)
    assert set(documented) <= set(Policy.model_fields)
