"""Which version a rollback restores: the one before the present that still loads, or the one that is named."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.errors import UserError
from pipeline.promotion.decision_tags import Decision, list_decisions
from pipeline.promotion.effects import require_version
from pipeline.promotion.history import (
    describe_move_by_hand,
    list_earlier_versions,
    list_restorable,
    production_history,
)
from pipeline.promotion.signature import UnverifiableError, load_verified_model
from pipeline.promotion.signature_policy import read_signature_policy
from pipeline.tracking import registry
from pipeline.tracking.failures import describe_failure, is_outage
from pipeline.tracking.store import StoreError


@dataclass(frozen=True)
class RollbackTarget:
    """What a rollback restores.

    Attributes
    ----------
    decision : that let the version be in Production.
    present : the version that is in Production now, or None.
    notices : what a person has to know, a sentence each: a move by hand, and the versions that are passed over.
    """

    decision: Decision
    present: int | None
    notices: tuple[str, ...]


def choose_target(name: str, number: int | None) -> RollbackTarget:
    """Return what a rollback of the registered model restores: version ``number``; else the one before the present.

    The version loads, and its files are those that were decided about. Call it under the lock of the model.

    Raises
    ------
    UserError
        There is no such version, or it does not load, or it is in Production already.
    """
    decisions = list_decisions(name)
    present = registry.alias_version(name)
    periods = production_history(decisions, present, datetime.now(UTC))
    restorable = list_restorable(decisions)
    notices = [describe_move_by_hand(periods)] if periods and periods[-1].is_by_hand else []
    if number is not None:
        decision = _find_named(name, restorable, number, present)
        _check_loads(name, decision)
        return RollbackTarget(decision, present, tuple(notices))
    earlier = [restorable[version] for version in list_earlier_versions(periods) if version in restorable]
    if not earlier:
        raise UserError(_describe_lack(restorable, present))
    read_signature_policy()  # if gates.toml is bad, no version is to blame
    problems: list[str] = []
    for decision in earlier:
        problem = _find_problem(name, decision)
        if problem is None:
            notices += [f"passed over: {text}" for text in problems]
            return RollbackTarget(decision, present, tuple(notices))
        problems.append(f"version {decision.version} ({problem})")
    raise UserError(f"no earlier version can be restored: {', '.join(problems)}")


def _find_named(name: str, restorable: dict[int, Decision], number: int, present: int | None) -> Decision:
    if number == present:
        raise UserError(f"version {number} of {name} is in Production already, so there is nothing to restore")
    if number not in restorable:
        raise UserError(
            f"version {number} was not in Production by a decision of promote.py, so --rollback cannot restore it; "
            f"to judge it, run: python promote.py --model-name {name} --version {number}"
        )
    return restorable[number]


def _describe_lack(restorable: dict[int, Decision], present: int | None) -> str:
    others = [str(version) for version in sorted(restorable) if version != present]
    if others:
        return (
            f"no earlier version than {present} was in Production to go back to; --to restores one of these: "
            f"{', '.join(others)}"
        )
    return "no earlier version was in Production to go back to; promote.py --history shows why"


def _find_problem(name: str, decision: Decision) -> str | None:
    """Return why the version cannot be restored. What would stop every version, such as an outage, is raised."""
    try:
        _check_loads(name, decision)
    except UnverifiableError:
        raise
    except (UserError, StoreError, OSError) as error:
        if is_outage(error):
            raise
        return str(error) if isinstance(error, UserError) else describe_failure(error)
    return None


def _check_loads(name: str, decision: Decision) -> None:
    """Check that the version loads, and that its files are those that were decided about."""
    version = require_version(decision)
    stored = load_verified_model(registry.reference_version(name, version)).stored
    if stored.sha256 != decision.model_sha256:
        raise UserError(f"the file of version {version} is not the one that was promoted; choose another with --to")
