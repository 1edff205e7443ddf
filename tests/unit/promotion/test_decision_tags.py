import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.promotion.decision_tags import (
    Decision,
    PendingDecision,
    allocate_number,
    find_decision_in_force,
    list_decisions,
    write_decision,
    write_pending,
)
from pipeline.promotion.tag_values import warn_unreadable
from pipeline.tracking import registry, tags
from support.promotions import NAME, register_version

DECISION = Decision(
    number=1,
    kind="promoted",
    version=1,
    previous_version=None,
    time=datetime(2026, 11, 17, 12, tzinfo=UTC),
    user="ada",
    host="laptop",
    job_url=None,
    reason="because",
    accuracy=0.9,
    model_sha256="f" * 64,
    dataset="digits",
    dataset_digest="d" * 64,
    signer="ada's key",
    decision_run_id="8f1c",
    applied=True,
)


@pytest.fixture(autouse=True)
def version(store: object) -> int:
    """Register version 1."""
    warn_unreadable.cache_clear()
    return register_version()


def set_version_tag(tag: str, value: str, version: int = 1) -> None:
    MlflowClient().set_model_version_tag(NAME, str(version), tag, value)


def find_in_force(version: int = 1) -> Decision | None:
    return find_decision_in_force(registry.get_version(NAME, version))


# --- read and write -------------------------------------------------------------------------------------------------


def test_decision_reads_as_it_was_written() -> None:
    write_decision(NAME, DECISION)
    assert list_decisions(NAME) == [DECISION]
    assert json.loads(registry.get_version(NAME, 1).tags["decision.1"])["reason"] == "because"


def test_decision_about_no_version_is_on_the_model() -> None:
    unlocked = replace(DECISION, kind="unlocked", version=None, accuracy=None, model_sha256="", number=3)
    write_decision(NAME, unlocked)
    assert "decision.3" in tags.read_model_tags(NAME)
    assert list_decisions(NAME) == [unlocked]


@pytest.mark.parametrize(
    "reason", ["x" * 9000, '"' * 9000, "\x00" * 9000, "ö😀" * 9000], ids=["x", "quote", "nul", "wide"]
)
def test_long_reason_is_cut_to_fit_the_tag(reason: str) -> None:
    write_decision(NAME, replace(DECISION, reason=reason))
    assert len(registry.get_version(NAME, 1).tags["decision.1"]) <= 5000
    (decision,) = list_decisions(NAME)
    assert reason.startswith(decision.reason)
    assert len(decision.reason) > 600


def test_longest_fields_fit_the_tag() -> None:
    line = "\\" * 250
    long = replace(DECISION, user=line, host=line, job_url=line, dataset=line, signer=line, reason="x" * 9000)
    write_decision(NAME, long)
    assert len(registry.get_version(NAME, 1).tags["decision.1"]) <= 5000
    assert len(list_decisions(NAME)) == 1


def test_decisions_of_all_versions_are_listed_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the store answers in pages."""
    search: Any = partial(MlflowClient.search_model_versions, max_results=2)

    def search_two(client: MlflowClient, filter_string: str, page_token: str | None = None) -> Any:
        return search(client, filter_string, page_token=page_token)

    monkeypatch.setattr(MlflowClient, "search_model_versions", search_two)
    for number in range(1, 6):
        version = number if number == 1 else register_version()
        write_decision(NAME, replace(DECISION, number=10 - number, version=version))
    assert [decision.version for decision in list_decisions(NAME)] == [5, 4, 3, 2, 1]


def test_model_without_decisions_has_none() -> None:
    assert list_decisions(NAME) == []
    assert find_in_force() is None


# --- in force -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "number"),
    [
        (["refused"], None),
        (["promoted", "refused"], 1),
        (["promoted", "unchanged", "refused"], 2),
        (["promoted", "rolled back"], 2),
    ],
)
def test_last_decision_for_production_is_in_force(kinds: list[str], number: int | None) -> None:
    for index, kind in enumerate(kinds, start=1):
        write_decision(NAME, replace(DECISION, number=index, kind=kind))
    decision = find_in_force()
    assert (decision.number if decision else None) == number


def test_decision_that_was_not_applied_is_not_in_force() -> None:
    write_decision(NAME, DECISION)
    write_decision(NAME, replace(DECISION, number=2, applied=False))
    assert find_in_force() == DECISION
    assert list_decisions(NAME) == [DECISION]


@pytest.mark.parametrize(("champion", "count"), [(1, 1), (2, 0), (None, 0)])
def test_pending_decision_counts_if_the_alias_has_moved(champion: int | None, count: int) -> None:
    register_version()
    write_decision(NAME, replace(DECISION, applied=False))
    write_pending(NAME, PendingDecision(version=1, number=1))
    if champion:
        registry.set_alias(NAME, "champion", champion)
    assert list_decisions(NAME) == [DECISION] * count


# --- numbers --------------------------------------------------------------------------------------------------------


def test_numbers_count_up() -> None:
    assert [allocate_number(NAME, 1), allocate_number(NAME, None), allocate_number(NAME, 1)] == [1, 2, 3]


@pytest.mark.parametrize("count", [None, "", "garbage", "-3", "1e5", "9" * 30, "٣"])
def test_unreadable_count_is_replaced_by_the_highest_number(count: str | None) -> None:
    register_version()
    write_decision(NAME, replace(DECISION, number=4))
    if count is not None:
        MlflowClient().set_registered_model_tag(NAME, "decision.count", count)
    assert allocate_number(NAME, 2) == 5
    assert allocate_number(NAME, 2) == 6


def test_number_is_above_those_of_the_version() -> None:
    write_decision(NAME, replace(DECISION, number=4))
    MlflowClient().set_registered_model_tag(NAME, "decision.count", "2")
    assert allocate_number(NAME, 1) == 5


@pytest.mark.parametrize("number", [10**9 - 1, 10**9, 9999999999])
def test_highest_number_does_not_end_the_counting(number: int) -> None:
    set_version_tag(f"decision.{number}", "garbage")
    MlflowClient().set_registered_model_tag(NAME, "decision.count", str(number))
    for _ in range(4):
        allocated = allocate_number(NAME, 1)
        write_decision(NAME, replace(DECISION, number=allocated))
    assert len(list_decisions(NAME)) == 4


# --- what others write ----------------------------------------------------------------------------------------------


def forge(**changes: Any) -> str:
    values = asdict(DECISION) | {"time": DECISION.time.isoformat()} | changes
    return json.dumps(values)


def test_forged_tag_is_read_if_it_is_right() -> None:
    """The other tests of this part would prove nothing without this one."""
    set_version_tag("decision.1", forge())
    assert list_decisions(NAME) == [DECISION]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        "{}",
        "[]",
        "null",
        "[" * 4000,
        "{" * 90_000,
        forge(number=2),
        forge(number="1"),
        forge(number=True),
        forge(version=2),
        forge(version=None),
        forge(previous_version=-1),
        forge(kind="loved"),
        forge(kind=None),
        forge(time="yesterday"),
        forge(time="2026-11-17T12:00:00"),
        forge(time="0001-01-01T00:00:00+14:00"),
        forge(user="two\nlines"),
        forge(host="\x1b[31m"),
        forge(accuracy=float("nan")),
        forge(accuracy=1e999),
        forge(accuracy=1.1),
        forge(accuracy="0.9"),
        forge(model_sha256="F" * 64),
        forge(model_sha256="f" * 63),
        forge(decision_run_id="../../x"),
        forge(applied="true"),
        forge(applied=None),
    ],
    ids=lambda value: f"{len(value)} {value[:20]}",
)
def test_unreadable_decision_is_skipped_with_one_warning(caplog: pytest.LogCaptureFixture, value: str) -> None:
    write_decision(NAME, replace(DECISION, number=2))
    set_version_tag("decision.1", value)
    for _ in range(3):
        assert [decision.number for decision in list_decisions(NAME)] == [2]
        assert find_in_force() == replace(DECISION, number=2)
    (message,) = caplog.messages
    assert message.startswith("the tag 'decision.1' of digits-classifier version 1 is not readable (")
    assert len(message) < 300
    assert "\n" not in message


def test_decision_about_a_version_does_not_count_on_the_model(caplog: pytest.LogCaptureFixture) -> None:
    MlflowClient().set_registered_model_tag(NAME, "decision.1", forge())
    assert list_decisions(NAME) == []
    assert caplog.messages == [
        "the tag 'decision.1' of digits-classifier is not readable (it is a decision of another number or version), "
        "so it is skipped"
    ]


@pytest.mark.parametrize("tag", ["decision.", "decision.0", "decision.01", "decision.x", "decision.1.1", "Decision.1"])
def test_tag_of_another_name_is_no_decision(caplog: pytest.LogCaptureFixture, tag: str) -> None:
    set_version_tag(tag, forge())
    assert list_decisions(NAME) == []
    assert caplog.messages == []


@pytest.mark.parametrize("value", ["garbage", "{}", '{"version": 1, "number": "1"}', "[" * 4000])
def test_unreadable_pending_decision_is_skipped(caplog: pytest.LogCaptureFixture, value: str) -> None:
    write_decision(NAME, DECISION)
    MlflowClient().set_registered_model_tag(NAME, "decision.pending", value)
    assert list_decisions(NAME) == [DECISION]
    assert len(caplog.messages) == 1
