"""What a decision changes in the registry: the alias, the stages, the tags and the description of the version.

A decision is carried out by the process that made it, or not at all. It is written on the version before the alias
moves. If the process dies, the next one looks where the alias is: if it has moved, the decision has taken effect, and
what is left to write is written; if not, the decision is withdrawn. Nothing is moved because of what somebody wrote.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime

from pipeline.errors import UserError
from pipeline.promotion.decision_tags import (
    MOVES,
    PENDING_TAG,
    REFUSED,
    ROLLED_BACK,
    Decision,
    PendingDecision,
    read_decisions,
    read_pending,
    write_decision,
)
from pipeline.promotion.report_run import describe_report, finish_report, kill_report
from pipeline.text import escape_markdown
from pipeline.tracking import registry, tags

logger = logging.getLogger(__name__)

SIGNATURE_TAG = "gate.signature_run_id"  # of a version: the run that has its signature


# --- carry it out ---------------------------------------------------------------------------------------------------


def apply_decision(model_name: str, decision: Decision) -> Decision:
    """Carry out the decision that this process has just recorded; return it as applied."""
    _write_digest(model_name, decision)  # before the alias moves: who loads the version after that compares it
    if decision.kind in MOVES:
        registry.set_alias(model_name, registry.CHAMPION, require_version(decision))
        decision = replace(decision, applied=True, time=datetime.now(UTC))
        write_decision(model_name, decision)
    _finish(model_name, decision)
    return decision


def _write_digest(model_name: str, decision: Decision) -> None:
    """Write on the version which model the decision is about, and where its signature is.

    A version that stays in Production although it would be refused now keeps what the earlier decision wrote.
    """
    version = require_version(decision)
    if decision.kind == REFUSED and version == decision.previous_version:
        return
    tags.set_version_tag(model_name, version, registry.DECISION_DIGEST_TAG, decision.model_sha256)
    if decision.signer and decision.kind != ROLLED_BACK:  # a rollback signs nothing
        tags.set_version_tag(model_name, version, SIGNATURE_TAG, decision.decision_run_id)


def _finish(model_name: str, decision: Decision) -> None:
    """Do what is left to do for a decision that has taken effect."""
    if decision.kind in MOVES:
        registry.sync_stages(model_name, is_moved=True)
    if decision.version != decision.previous_version:
        _describe_on_version(model_name, decision)
    finish_report(decision)
    tags.delete_model_tag(model_name, PENDING_TAG)


def _describe_on_version(model_name: str, decision: Decision) -> None:
    """Write the decision on the version, where the UI shows it."""
    link, checks = describe_report(decision.decision_run_id)
    paragraphs = [
        f"{decision.kind.capitalize()} on {decision.time:%Y-%m-%d %H:%M} UTC by {escape_markdown(decision.user)}.",
        escape_markdown(decision.reason),
    ]
    if link:
        paragraphs.append(f"{link} has every check, the policy and the evidence.")
    flat_tags = {
        "gate.decision": decision.kind,
        "gate.checks": checks,
        "gate.time": decision.time.isoformat(timespec="milliseconds"),
    }
    registry.update_version(model_name, require_version(decision), "\n\n".join(paragraphs), flat_tags)


def require_version(decision: Decision) -> int:
    """Return the version that the decision is about; raise ValueError if it names none."""
    if decision.version is None:
        raise ValueError(f"decision {decision.number} names no version")
    return decision.version


# --- after a process died -------------------------------------------------------------------------------------------


def complete_unfinished_decisions(model_name: str) -> None:
    """Finish what dead processes left: decisions that have taken effect are completed, others withdrawn.

    Call it under the lock of the model. It makes the stages agree with the alias, and never moves the alias.
    """
    model_tags = tags.read_model_tags(model_name)
    pending = read_pending(model_name, model_tags)
    decision = _find_decision(model_name, pending) if pending else None
    if decision is not None:
        is_moved = decision.kind in MOVES and registry.alias_version(model_name) == decision.version
        if decision.applied or is_moved:
            _complete(model_name, replace(decision, applied=True))
        else:
            withdraw_decision(model_name, decision)
            kill_report(decision.decision_run_id)
            logger.info("an earlier promote.py died before it moved version %s of %s", decision.version, model_name)
    elif PENDING_TAG in model_tags:
        tags.delete_model_tag(model_name, PENDING_TAG)
    registry.sync_stages(model_name)


def _find_decision(model_name: str, pending: PendingDecision) -> Decision | None:
    try:
        version = registry.get_version(model_name, pending.version)
    except UserError:  # it was deleted
        return None
    decisions = read_decisions(model_name, pending.version, version.tags)
    return next((decision for decision in decisions if decision.number == pending.number), None)


def _complete(model_name: str, decision: Decision) -> None:
    _write_digest(model_name, decision)
    write_decision(model_name, decision)
    _finish(model_name, decision)


def withdraw_decision(model_name: str, decision: Decision) -> None:
    """Remove a decision that has not taken effect. If the account may not, its tag says that it is not applied."""
    if decision.version is None:
        tags.delete_model_tag(model_name, decision.tag)
        return
    is_written = decision.tag in registry.get_version(model_name, decision.version).tags
    if is_written and not tags.delete_version_tag(model_name, decision.version, decision.tag):
        write_decision(model_name, replace(decision, applied=False))
    pending = read_pending(model_name, tags.read_model_tags(model_name))
    if pending == PendingDecision(decision.version, decision.number):
        tags.delete_model_tag(model_name, PENDING_TAG)
