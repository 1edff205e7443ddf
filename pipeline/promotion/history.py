"""What was in Production when, by the decisions; and which version a rollback restores. Pure."""

from collections.abc import Sequence
from datetime import datetime

from pipeline.errors import UserError
from pipeline.promotion.decision_tags import MOVES, ROLLED_BACK, Decision

Period = tuple[Decision, datetime | None]  # the decision that began it, and when it ended


def production_history(decisions: Sequence[Decision]) -> list[Period]:
    """Return what was in Production when: each decision that put a version there, with the time of the next one."""
    moves = [decision for decision in decisions if decision.kind in MOVES]
    ends: list[datetime | None] = [move.time for move in moves[1:]]
    return list(zip(moves, [*ends, None], strict=False))


def decision_in_force(decisions: Sequence[Decision], when: datetime) -> Decision | None:
    """Return the decision by which a version was in Production at that time, or None."""
    for decision, end in production_history(decisions):
        if decision.time <= when and (end is None or when < end):
            return decision
    return None


def rollback_target(decisions: Sequence[Decision], number: int | None) -> Decision:
    """Return the promotion of the version that a rollback restores: version ``number``, or the one before the present.

    Rolling back undoes: after promotions of 1, 2 and 3 it goes back to 2, and once more to 1.

    Raises
    ------
    UserError
        There is no such version.
    """
    moves = [decision for decision, _ in production_history(decisions)]
    if number is not None:
        return _find_earlier_move(moves, number)
    stack = _undo_rollbacks(moves)
    if len(stack) < 2:
        raise UserError("no earlier version was in Production to go back to; promote.py --history shows why")
    return stack[-2]


def _find_earlier_move(moves: Sequence[Decision], number: int) -> Decision:
    """Return the newest decision that put this version in Production, if another one is there now."""
    is_present = bool(moves) and moves[-1].version == number
    earlier = [move for move in moves if move.version == number]
    if is_present or not earlier:
        raise UserError(f"version {number} was not in Production before; promote.py --history lists what was")
    return earlier[-1]


def _undo_rollbacks(moves: Sequence[Decision]) -> list[Decision]:
    """Return the promotions that are not undone, the present one last."""
    stack: list[Decision] = []
    for move in moves:
        versions = [decision.version for decision in stack]
        if move.kind == ROLLED_BACK and move.version in versions:
            index = versions.index(move.version)
            stack = stack[: index + 1]
        else:
            stack.append(move)
    return stack
