"""Make decisions about a model, one at a time, under its lock (`pipeline.promotion.lock`), and record them.

The record is a tag (`pipeline.promotion.decision_tags`) with a report for people (`pipeline.promotion.report_run`).
What a decision changes is in `pipeline.promotion.effects`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.context import describe_context
from pipeline.errors import UserError
from pipeline.promotion.candidate_decision import CandidateDecision
from pipeline.promotion.decision_tags import (
    MOVES,
    PROMOTED,
    REFUSED,
    ROLLED_BACK,
    UNCHANGED,
    UNLOCKED,
    Decision,
    PendingDecision,
    allocate_number,
    find_decision_in_force,
    list_decisions,
    write_decision,
    write_pending,
)
from pipeline.promotion.effects import (
    apply_decision,
    complete_unfinished_decisions,
    require_version,
    withdraw_decision,
)
from pipeline.promotion.lock import PromotionLock, Ticket, draw_ticket, read_holder, read_tickets, remove_ticket
from pipeline.promotion.report_run import (
    CLEANUP_TIMEOUT,
    NONCE_TAG,
    Report,
    create_report_run,
    delete_report,
    finish_report,
    write_report,
)
from pipeline.promotion.tag_values import format_line
from pipeline.redact import redact
from pipeline.tracking import registry
from pipeline.tracking.store import StoreError, limit_requests

MAX_REASON_LENGTH = 2000  # characters in tags and descriptions; the report has the complete text

__all__ = [
    "MOVES",
    "PROMOTED",
    "REFUSED",
    "ROLLED_BACK",
    "UNCHANGED",
    "UNLOCKED",
    "Decision",
    "apply_decision",
    "complete_unfinished_decisions",
    "find_decision_in_force",
    "list_decisions",
]


# --- make a decision -------------------------------------------------------------------------------------------------


def record_candidate_decision(
    lock: PromotionLock,
    decision: CandidateDecision,
    reason: str,
    *,
    signature: bytes | None = None,
    signer: str = "",
) -> Decision:
    """Record what the gate decided; `apply_decision` carries it out.

    Parameters
    ----------
    lock
        Of the model.
    decision
        What the gate decided.
    reason
        Why.
    signature, signer
        Of the model, if it was signed: the file ``model.sig`` of the report, and who signed.
    """
    facts = _describe_decision(decision.kind, decision.candidate.version, decision.previous_version, reason)
    recorded = replace(
        facts,
        accuracy=decision.candidate.require_evaluation().accuracy,
        model_sha256=decision.candidate.model_sha256 or "",
        dataset=format_line(decision.dataset),
        dataset_digest=decision.dataset_digest,
        signer=format_line(signer),
    )
    record = decision.as_dict() | _describe_context(recorded, reason)
    record["dataset"] = decision.dataset
    record["dataset_digest"] = decision.dataset_digest
    record["policy"] = decision.describe_policy()
    record["signer"] = signer
    checks = decision.verdict.checks
    report = Report(
        record,
        checks="; ".join(str(check) for check in checks),
        metrics={check.name: check.value for check in checks if math.isfinite(check.value)},
        signature=signature,
    )
    return _record_decision(lock, recorded, report)


def record_rollback(
    lock: PromotionLock, target: Decision, previous_version: int | None, reason: str, notices: Sequence[str] = ()
) -> Decision:
    """Record that the version of ``target`` goes back to Production; `apply_decision` carries it out.

    ``previous_version`` is in Production now, or None; ``notices`` are what a person has to know, a sentence each.
    """
    name = lock.model_name
    recorded = replace(
        _describe_decision(ROLLED_BACK, target.version, previous_version, reason),
        accuracy=target.accuracy,
        model_sha256=target.model_sha256,
        dataset=target.dataset,
        dataset_digest=target.dataset_digest,
        signer=target.signer,
    )
    record = _start_record(name, recorded, reason)
    record["promoted_by"] = target.decision_run_id
    record["notices"] = list(notices)
    return _record_decision(lock, recorded, Report(record, checks="none, by rollback"))


def force_unlock(model_name: str, reason: str) -> tuple[Decision, Ticket]:
    """Remove the ticket of the process that has the lock, and record that; return the decision and the ticket.

    Raises
    ------
    UserError
        The model is not locked.
    """
    holder = read_holder(model_name)
    if holder is None:
        raise UserError(f"{model_name} is not locked, so there is nothing to unlock; run promote.py without --unlock")
    with draw_ticket(model_name) as lock:  # if this process dies, the others see it
        decision = _describe_decision(UNLOCKED, None, registry.alias_version(model_name), reason)
        record = _start_record(model_name, decision, reason)
        record["lock_owner"] = str(holder)
        report = Report(record, checks=f"none, the lock of {holder} was removed")
        with _open_report(lock, decision, report) as decision:
            if holder not in read_tickets(model_name):
                raise UserError(f"{holder} has unlocked {model_name} just now, so there is nothing to unlock")
            remove_ticket(model_name, holder)
            decision = replace(decision, applied=True)
            write_decision(model_name, decision)
        finish_report(decision)
    return decision, holder


def _describe_decision(kind: str, version: int | None, previous: int | None, reason: str) -> Decision:
    """Return a decision that has no number and no report yet, with who decides, where, when and why."""
    context = {name: format_line(text) if text else None for name, text in describe_context().items()}
    return Decision(
        number=0,
        kind=kind,
        version=version,
        previous_version=previous,
        time=datetime.now(UTC),
        user=context["user"] or "",
        host=context["host"] or "",
        job_url=context["job_url"],
        reason=_format_reason(reason)[:MAX_REASON_LENGTH],
        accuracy=None,
        model_sha256="",
        dataset="",
        dataset_digest="",
        signer="",
        decision_run_id="",
        applied=False,
    )


def _format_reason(reason: str) -> str:
    """Return the reason without secrets, and without what no store can keep."""
    return redact(reason.encode(errors="replace").decode().replace("\0", "?"))


def _start_record(model_name: str, decision: Decision, reason: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "model_name": model_name,
        "version": decision.version,
        "decision": decision.kind,
        "checks": [],
        "previous_version": decision.previous_version,
        "model_sha256": decision.model_sha256 or None,
    }
    return record | _describe_context(decision, reason)


def _describe_context(decision: Decision, reason: str) -> dict[str, Any]:
    """Return who, where, when and the complete reason, for the record."""
    return {
        "reason": _format_reason(reason),
        "user": decision.user,
        "host": decision.host,
        "job_url": decision.job_url,
        "time": decision.time.isoformat(timespec="milliseconds"),
    }


# --- record it ------------------------------------------------------------------------------------------------------


@contextmanager
def _open_report(lock: PromotionLock, decision: Decision, report: Report) -> Iterator[Decision]:
    """Write the report, and yield the decision with its number and its run; after an exception both are withdrawn."""
    name = lock.model_name
    number = allocate_number(name, decision.version)
    run_id = create_report_run(name, {NONCE_TAG: lock.ticket.nonce, "mlflow.source.name": "promote.py"})
    decision = replace(decision, number=number, decision_run_id=run_id)
    try:
        write_report(decision, report)
        yield decision
    except BaseException:
        with (
            suppress(StoreError, UserError),
            limit_requests(retries=2, timeout=CLEANUP_TIMEOUT),
        ):  # the store may be what failed
            withdraw_decision(name, decision)
        delete_report(run_id)
        raise


def _record_decision(lock: PromotionLock, decision: Decision, report: Report) -> Decision:
    """Write the decision on its version. If it moves nothing, it has taken effect with that."""
    name = lock.model_name
    with _open_report(lock, decision, report) as decision:
        write_pending(name, PendingDecision(require_version(decision), decision.number))
        if decision.kind in MOVES:
            write_decision(name, decision)
            lock.check_held()
            if registry.alias_version(name) != decision.previous_version:
                raise UserError(f"a person has moved the alias champion of {name} just now; run promote.py again")
        else:
            lock.check_held()
            decision = replace(decision, applied=True)
            write_decision(name, decision)
    return decision
