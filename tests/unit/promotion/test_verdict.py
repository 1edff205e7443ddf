from typing import Any

import pytest

from pipeline.promotion.gate import judge_candidate
from pipeline.promotion.verdict import format_verdict
from support.promotions import build_candidate_decision, build_policy, build_version, evaluate_pets

CONTEXT: dict[str, Any] = {
    "reason": "because",
    "user": "ada",
    "host": "laptop",
    "job_url": None,
    "time": "2026-11-17T12:00:00.000+00:00",
}


@pytest.fixture
def record() -> dict[str, Any]:
    """Return the record of a refusal of version 2."""
    decision = build_candidate_decision(2, 1, passes=False)
    data = {"dataset": "digits", "dataset_digest": "d" * 64, "policy": decision.describe_policy()}
    return {**decision.as_dict(), **CONTEXT, **data}


def test_text_begins_with_decision_and_reason(record: dict[str, Any]) -> None:
    assert format_verdict(record).splitlines()[:3] == ["# digits-classifier version 2: refused", "", "because"]


def test_text_has_row_and_sentence_of_each_check(record: dict[str, Any]) -> None:
    text = format_verdict(record)
    assert "| min_accuracy | 0.9000 | - | 0.9900 | **refused** |" in text
    assert "- min_accuracy: 0.9000 (9 of 10 right) is below 0.9900" in text


def test_text_says_who_decided_on_what(record: dict[str, Any]) -> None:
    text = format_verdict(record)
    assert "- Decided at 2026-11-17T12:00:00.000+00:00 by ada on laptop\n" in text
    assert f"- Candidate: version 2, run 8f1c, model SHA-256 {'f' * 64}; evidence: its recorded evaluation" in text
    assert f"- Test set: digits, SHA-256 {'d' * 64}" in text
    assert "      min_accuracy = 0.99\n" in text
    assert "Nothing was in Production" not in text


def test_text_links_the_ci_job(record: dict[str, Any]) -> None:
    record["job_url"] = "https://ci.example.org/7"
    assert "by ada on laptop, [CI job](https://ci.example.org/7)" in format_verdict(record)


def test_text_links_nothing_else(record: dict[str, Any]) -> None:
    record["job_url"] = "javascript:x](https://x.example)"
    assert r"by ada on laptop, CI job javascript:x\](https\://x.example)" in format_verdict(record)


def test_text_counts_what_only_one_model_has_right(record: dict[str, Any]) -> None:
    candidate, champion = build_version(evaluate_pets(9, 10)), build_version(evaluate_pets(10, 10))
    comparison = judge_candidate(candidate, champion, build_policy(regression="better")).comparison
    assert comparison is not None
    record["comparison"] = vars(comparison)
    sentence = (
        "Of 10 test images the candidate has 9 right, the champion 10; 0 only the candidate, 1 only the champion."
    )
    assert sentence in format_verdict(record)


def test_text_names_classes_that_are_left_out(record: dict[str, Any]) -> None:
    comparison = judge_candidate(
        build_version(evaluate_pets(9, 10)), build_version(evaluate_pets(9, 10)), build_policy()
    )
    assert comparison.comparison is not None
    record["comparison"] = vars(comparison.comparison) | {"left_out": ("owl", "ant")}
    assert "the images whose class both know; left out: owl, ant." in format_verdict(record)


def test_text_has_notices_in_bold(record: dict[str, Any]) -> None:
    record["notices"] = ["new test set: digits"]
    assert "because\n\n- **new test set: digits**\n\n| check |" in format_verdict(record)


def test_text_says_what_is_switched_off(record: dict[str, Any]) -> None:
    assert "      regression = 'off'\n" in format_verdict(record)


def test_counts_have_no_decimals(record: dict[str, Any]) -> None:
    record["checks"][0]["value"] = 10_000
    assert "| min_accuracy | 10,000 | - | 0.9900 |" in format_verdict(record)


def test_text_says_that_nothing_was_in_production(record: dict[str, Any]) -> None:
    record["previous_version"] = None
    assert "- Nothing was in Production\n" in format_verdict(record)
