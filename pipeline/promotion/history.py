"""What was in Production when: by the decisions, and by what each of them saw there. Pure.

A decision records which version was in Production before it. If that is not what the decision before it left there, a
person moved the alias champion between the two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.promotion.decision_tags import IN_FORCE, MOVES, ROLLED_BACK, UNLOCKED, Decision


@dataclass(frozen=True)
class Period:
    """A time in which a version, or nothing, was in Production.

    Attributes
    ----------
    version : None if nothing was.
    decision : that began it; None if a person moved the alias by hand.
    start, end : it was not there before, and not after. A start of None is not known, an end of None has not come.
    known_from, known_until : it was there all the time between these two. A known_until of None has not come.
    """

    version: int | None
    decision: Decision | None
    start: datetime | None
    known_from: datetime
    known_until: datetime | None = None
    end: datetime | None = None

    @property
    def is_by_hand(self) -> bool:
        """Whether no decision began it."""
        return self.decision is None

    def may_include(self, when: datetime) -> bool:
        """Return whether it may have been this version at that time."""
        has_begun = self.start is None or self.start <= when
        return has_begun and (self.end is None or when < self.end)


def production_history(decisions: Sequence[Decision], present: int | None, now: datetime) -> list[Period]:
    """Return what was in Production when, the first period first; ``present`` is the version that is there ``now``."""
    periods: list[Period] = []
    last_seen: datetime | None = None
    for decision in decisions:
        if decision.kind == UNLOCKED:  # it is made without the lock, while another process may move the alias
            continue
        _see(periods, decision.previous_version, last_seen, decision.time)
        if decision.kind in MOVES:
            if periods:
                periods[-1] = replace(periods[-1], known_until=decision.time, end=decision.time)
            periods.append(Period(decision.version, decision, decision.time, decision.time))
        last_seen = decision.time
    _see(periods, present, last_seen, now)
    return periods


def _see(periods: list[Period], version: int | None, last_seen: datetime | None, seen: datetime) -> None:
    """Add a period if another version is seen in Production than was known before."""
    if version == (periods[-1].version if periods else None):
        return
    if periods:
        periods[-1] = replace(periods[-1], known_until=last_seen, end=seen)
    periods.append(Period(version, None, last_seen, seen))


def describe_move_by_hand(periods: Sequence[Period]) -> str:
    """Return that a person, not a decision, made what is in Production now; it is the last of the periods."""
    present = periods[-1].version
    before = periods[-2].version if len(periods) > 1 else None
    was = f"; as far as the decisions show, it was version {before} before" if before is not None else ""
    if present is None:
        return f"nothing is in Production: the alias champion was removed by hand, or its version was deleted{was}"
    return f"version {present} is in Production because somebody moved the alias champion by hand{was}"


def list_restorable(decisions: Iterable[Decision]) -> dict[int, Decision]:
    """Return the newest decision that let each version be in Production, by version."""
    newest = {}
    for decision in decisions:
        if decision.kind in IN_FORCE and decision.version is not None:
            newest[decision.version] = decision
    return newest


def list_earlier_versions(periods: Sequence[Period]) -> list[int]:
    """Return the versions that were in Production before the present one and are not undone, the last one first.

    A rollback undoes: after promotions of 1, 2 and 3 it goes back to 2, and once more to 1. A person who moves the
    alias back to an earlier version undoes in the same way.
    """
    stack: list[int | None] = []
    for period in periods:
        goes_back = period.decision is None or period.decision.kind == ROLLED_BACK
        if goes_back and period.version is not None and period.version in stack:
            del stack[stack.index(period.version) + 1 :]
        else:
            stack.append(period.version)
    present = stack.pop() if stack else None
    earlier: list[int] = []
    for version in reversed(stack):
        if version is not None and version != present and version not in earlier:
            earlier.append(version)
    return earlier
