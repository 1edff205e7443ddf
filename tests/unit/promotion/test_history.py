from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.promotion.decisions import PROMOTED, REFUSED, ROLLED_BACK, UNCHANGED, UNLOCKED, Decision
from pipeline.promotion.history import (
    Period,
    describe_move_by_hand,
    list_earlier_versions,
    list_restorable,
    production_history,
)
from support.lineages import build_decision

START = datetime(2026, 11, 17, tzinfo=UTC)
NOW = START + timedelta(hours=20)
HAND = "hand"
Step = tuple[str, int | None]


def build_history(*steps: Step) -> tuple[list[Decision], int | None]:
    """Return decisions, one an hour, and what is in Production after them; a step "hand" moves the alias only."""
    decisions = []
    present: int | None = None
    for hour, (kind, version) in enumerate(steps):
        if kind != HAND:
            time = START + timedelta(hours=hour)
            decision = build_decision(kind, previous_version=present)
            decisions.append(replace(decision, number=hour + 1, version=version, time=time))
        if kind in (HAND, PROMOTED, ROLLED_BACK):
            present = version
    return decisions, present


def list_periods(*steps: Step) -> list[Period]:
    return production_history(*build_history(*steps), NOW)


def hours(period: Period) -> list[int | None]:
    """Return the hours of the four times of a period."""
    times = (period.start, period.known_from, period.known_until, period.end)
    return [time.hour if time else None for time in times]


# --- what was in Production -----------------------------------------------------------------------------------------


def test_a_version_is_in_production_until_the_next() -> None:
    steps = ((PROMOTED, 1), (REFUSED, 2), (UNCHANGED, 1), (UNLOCKED, None), (PROMOTED, 3))
    first, second = list_periods(*steps)
    assert (first.version, hours(first)) == (1, [0, 0, 4, 4])
    assert (second.version, hours(second)) == (3, [4, 4, None, None])
    assert not second.is_by_hand


def test_history_without_decisions_is_empty() -> None:
    assert production_history([], None, NOW) == []


@pytest.mark.parametrize(("hour", "version"), [(-1, None), (0, 1), (2.9, 1), (3, 3), (99, 3)])
def test_one_version_is_in_production_at_a_time(hour: float, version: int | None) -> None:
    periods = list_periods((PROMOTED, 1), (REFUSED, 2), (UNCHANGED, 1), (PROMOTED, 3))
    when = START + timedelta(hours=hour)
    versions = [period.version for period in periods if period.may_include(when)]
    assert versions == ([version] if version else [])


def test_move_by_hand_is_seen_now() -> None:
    first, second = list_periods((PROMOTED, 1), (REFUSED, 2), (HAND, 2))
    assert hours(first) == [0, 0, 1, 20]  # version 1 was there at 1, and is not now
    assert (second.version, second.is_by_hand, hours(second)) == (2, True, [1, 20, None, None])


def test_move_by_hand_stays_in_the_history() -> None:
    versions = [period.version for period in list_periods((PROMOTED, 1), (HAND, 2), (PROMOTED, 3))]
    assert versions == [1, 2, 3]
    _, by_hand, _ = list_periods((PROMOTED, 1), (HAND, 2), (PROMOTED, 3))
    assert (by_hand.is_by_hand, hours(by_hand)) == (True, [0, 2, 2, 2])


def test_removed_alias_is_a_period_without_a_version() -> None:
    _, removed, restored = list_periods((PROMOTED, 1), (HAND, None), (PROMOTED, 1))
    assert (removed.version, removed.is_by_hand) == (None, True)
    assert (restored.version, restored.is_by_hand) == (1, False)


def test_start_by_hand_is_not_known() -> None:
    first, _ = list_periods((HAND, 1), (PROMOTED, 2))
    assert (first.version, hours(first)) == (1, [None, 1, 1, 1])
    assert first.may_include(START - timedelta(days=1))


def test_both_may_have_been_there_between() -> None:
    periods = list_periods((PROMOTED, 1), (HAND, 2), (REFUSED, 3))
    versions = [period.version for period in periods if period.may_include(START + timedelta(hours=1))]
    assert versions == [1, 2]


def test_sight_of_an_unlocking_does_not_count() -> None:
    decisions, _ = build_history((PROMOTED, 1), (UNLOCKED, None))
    unlocked = replace(decisions[1], previous_version=2)
    assert len(production_history([decisions[0], unlocked], 1, NOW)) == 1


@pytest.mark.parametrize(
    ("present", "text"),
    [(2, "version 2 is in Production because somebody moved the alias"), (None, "nothing is in Production: the alias")],
)
def test_move_by_hand_is_described(present: int | None, text: str) -> None:
    description = describe_move_by_hand(list_periods((PROMOTED, 1), (HAND, present)))
    assert description.startswith(text)
    assert description.endswith("it was version 1 before")


# --- what a rollback restores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "earlier"),
    [
        ([], []),
        ([(PROMOTED, 1)], []),
        ([(PROMOTED, 1), (REFUSED, 2)], []),
        ([(PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3)], [2, 1]),
        ([(PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3), (ROLLED_BACK, 2)], [1]),
        ([(PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1)], []),
        ([(PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1), (PROMOTED, 4)], [1]),
        ([(PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3), (HAND, 2)], [1]),
        ([(PROMOTED, 1), (PROMOTED, 2), (HAND, 9)], [2, 1]),
        ([(PROMOTED, 1), (PROMOTED, 2), (HAND, None)], [2, 1]),
        ([(PROMOTED, 1), (HAND, None), (PROMOTED, 2), (HAND, None)], [2, 1]),
        ([(PROMOTED, 1), (PROMOTED, 2), (HAND, None), (PROMOTED, 2)], [1]),
    ],
)
def test_rollback_undoes_the_last_move(steps: list[Step], earlier: list[int]) -> None:
    assert list_earlier_versions(list_periods(*steps)) == earlier


def test_what_was_let_through_can_be_restored() -> None:
    decisions, _ = build_history((PROMOTED, 1), (REFUSED, 2), (ROLLED_BACK, 1), (HAND, 3), (UNCHANGED, 3))
    restorable = list_restorable(decisions)
    assert {version: decision.kind for version, decision in restorable.items()} == {1: ROLLED_BACK, 3: UNCHANGED}
