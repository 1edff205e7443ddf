import re
from pathlib import Path

import pytest

from pipeline.data.catalog import DATASET_NAMES
from pipeline.data.datasets import load_test_split
from pipeline.errors import UserError
from pipeline.promotion.policy import POLICY_FILE, Policy, find_table_name, has_table, parse_policy
from support.promotions import build_policy
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


@pytest.mark.parametrize("text", ["", "[own]\nmax_loss = 1\n"], ids=["no table", "a table without them"])
def test_four_rules_hold_unless_named(text: str) -> None:
    policy = parse_policy(text, "own", min_accuracy=0.5)
    assert (policy.confidence, policy.regression) == (0.95, "not_worse")
    assert (policy.min_test_images, policy.max_test_overlap) == (100, 0)


@pytest.mark.parametrize("rule", ["confidence", "regression", "min_test_images", "max_test_overlap"])
def test_rule_is_switched_off_by_name(rule: str) -> None:
    policy = parse_policy(f"[own]\nmin_accuracy = 0.5\n{rule} = 'off'\n", "own")
    assert getattr(policy, rule) is None
    assert policy.describe()[rule] == "off"


def test_keys_outside_of_tables_are_ignored() -> None:
    text = "require_signature = true\nmnist = 1\n"
    assert parse_policy(text, "mnist", min_accuracy=0.5) == Policy(min_accuracy=0.5)
    assert not has_table(text, "require_signature")


def test_table_is_found_by_the_last_part() -> None:
    assert find_table_name("digits") == "digits"
    assert find_table_name("/data/my cats") == "my cats"


@pytest.mark.parametrize("dataset", ["/data/mnist", "./digits", "fashion-mnist/"])
def test_own_data_cannot_use_another_table(dataset: str) -> None:
    with pytest.raises(UserError, match=r"has the name of the data set .*; rename the directory, then train"):
        find_table_name(dataset)


def test_test_set_of_digits_is_that_of_the_policy(tmp_path: Path) -> None:
    policy = parse_policy(POLICY_FILE.read_text(), "digits")
    assert policy.test_digest == load_test_split("digits", tmp_path).digest


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_test_sets_are_those_of_the_policy(dataset: str, real_data: Path) -> None:
    policy = parse_policy(POLICY_FILE.read_text(), dataset)
    assert policy.test_digest == load_test_split(dataset, real_data).digest


FLOORS = {
    "mnist": 0.98,
    "fashion-mnist": 0.90,
    "kmnist": 0.94,
    "emnist-letters": 0.90,
    "emnist-balanced": 0.82,
    "cifar10": 0.75,
    "digits": 0.95,
}


@pytest.mark.parametrize("dataset", DATASET_NAMES)
def test_every_data_set_has_a_table(dataset: str) -> None:
    assert has_table(POLICY_FILE.read_text(), dataset)


@pytest.mark.parametrize(("dataset", "floor"), FLOORS.items())
def test_repository_has_a_policy_for_each_dataset(dataset: str, floor: float) -> None:
    policy = parse_policy(POLICY_FILE.read_text(), dataset)
    assert policy.min_accuracy == floor
    assert policy.confidence == 0.95
    assert policy.regression == "not_worse"


@pytest.mark.parametrize("rule", Policy.model_fields)
def test_each_rule_is_explained_in_the_policy(rule: str) -> None:
    assert rule in str(Policy.__doc__)


def test_rules_that_compare_need_a_champion() -> None:
    assert not build_policy(min_accuracy=0.5, max_loss=1.0).compares
    assert build_policy(regression="better").compares
    assert build_policy(max_parameters_ratio=1.5).compares
    assert build_policy(max_latency_ratio=1.5).compares


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
        ("confidence = 0.9", "has no rule"),
        ("regression = 'off'\ntest_digest = '" + "a" * 64 + "'", "has no rule"),
        ("max_loss = 1\nconfidence = 0.9", "has a confidence but no min_accuracy"),
        ("min_accuracy = 0.9\nregression = 'off'\nalpha = 0.1", "has an alpha but no rule that compares"),
        ("min_accuracy = 0.9\nconfidence = 'none'", "confidence = 'none' should be a valid number"),
        ("min_accuracy = 0.9\nmin_test_images = 0", "min_test_images = 0 should be greater than or equal to 1"),
        ("min_accuracy = 0.9\nmax_test_overlap = 7", "max_test_overlap = 7 should be less than or equal to 1"),
        ("min_accuracy = 0.9\ntest_digest = 'abc'", "test_digest = 'abc' should match pattern"),
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
