from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import UserError
from pipeline.promotion.decisions import PROMOTED, REFUSED, ROLLED_BACK, UNCHANGED, UNLOCKED, Decision
from pipeline.promotion.history import decision_in_force, production_history, rollback_target
from support.lineages import build_decision

START = datetime(2026, 11, 17, tzinfo=UTC)


def build_decisions(*kinds: tuple[str, int | None]) -> list[Decision]:
    """Return decisions of these kinds about these versions, one an hour."""
    decisions = []
    for hour, (kind, version) in enumerate(kinds):
        time = START + timedelta(hours=hour)
        decisions.append(replace(build_decision(kind), number=hour + 1, version=version, time=time))
    return decisions


def test_a_version_is_in_production_until_the_next() -> None:
    decisions = build_decisions((PROMOTED, 1), (REFUSED, 2), (UNCHANGED, 1), (UNLOCKED, None), (PROMOTED, 3))
    periods = []
    for decision, end in production_history(decisions):
        periods.append((decision.version, decision.time.hour, end.hour if end else None))
    assert periods == [(1, 0, 4), (3, 4, None)]


def test_history_without_decisions_is_empty() -> None:
    assert production_history([]) == []
    assert decision_in_force([], START) is None


@pytest.mark.parametrize(("hour", "version"), [(-1, None), (0, 1), (2.9, 1), (3, 3), (99, 3)])
def test_decision_in_force_at_a_time(hour: float, version: int | None) -> None:
    decisions = build_decisions((PROMOTED, 1), (REFUSED, 2), (UNCHANGED, 1), (PROMOTED, 3))
    decision = decision_in_force(decisions, START + timedelta(hours=hour))
    assert (decision.version if decision else None) == version


@pytest.mark.parametrize(
    ("kinds", "target"),
    [
        ([(PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3)], 2),
        ([(PROMOTED, 1), (PROMOTED, 2), (PROMOTED, 3), (ROLLED_BACK, 2)], 1),
        ([(PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1), (PROMOTED, 4)], 1),
    ],
)
def test_rollback_undoes_the_last_promotion(kinds: list[tuple[str, int]], target: int) -> None:
    assert rollback_target(build_decisions(*kinds), None).version == target


def test_rollback_goes_to_a_named_version() -> None:
    decisions = build_decisions((PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1), (PROMOTED, 4))
    assert rollback_target(decisions, 2).version == 2
    assert rollback_target(decisions, 1).kind == ROLLED_BACK  # the newest decision about it


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        [(PROMOTED, 1)],
        [(PROMOTED, 1), (REFUSED, 2)],
        [(PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1)],
    ],
)
def test_rollback_needs_an_earlier_version(kinds: list[tuple[str, int]]) -> None:
    with pytest.raises(UserError, match="no earlier version"):
        rollback_target(build_decisions(*kinds), None)


@pytest.mark.parametrize("kinds", [[(PROMOTED, 1), (REFUSED, 2)], [(PROMOTED, 1), (PROMOTED, 2)]])
def test_rollback_needs_a_version_that_was_in_production(kinds: list[tuple[str, int]]) -> None:
    with pytest.raises(UserError, match="version 2 was not in Production before"):
        rollback_target(build_decisions(*kinds), 2)
