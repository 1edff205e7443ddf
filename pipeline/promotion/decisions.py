"""Decisions about a model: a run each, in the experiment ``<model>-promotions``.

A decision is written into its run before anything moves. If the process dies after that, the next one completes it.
Decisions are made under the lock of the model (`pipeline.promotion.lock`), so one at a time.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.context import describe_context, utc_now
from pipeline.errors import UserError
from pipeline.promotion.evidence import PROMOTED, REFUSED, UNCHANGED, CandidateDecision
from pipeline.promotion.lock import CLEANUP_TIMEOUT, PromotionLock, read_lock_owner
from pipeline.promotion.verdict import format_verdict_files
from pipeline.tracking import artifacts, registry, runs
from pipeline.tracking.failures import explain_failure
from pipeline.tracking.runs import Run
from pipeline.tracking.store import StoreError, limit_requests

ROLLED_BACK, UNLOCKED = "rolled back", "unlocked"
MOVES = (PROMOTED, ROLLED_BACK)  # the kinds that put a version in Production

__all__ = ["MOVES", "PROMOTED", "REFUSED", "ROLLED_BACK", "UNCHANGED", "UNLOCKED", "Decision"]

# Tags of the run. The kind is set last: with it the decision is made.
KIND_TAG = "decision.kind"
NUMBER_TAG = "decision.number"
FIELDS = (
    "version",
    "previous_version",
    "time",
    "user",
    "host",
    "job_url",
    "reason",
    "accuracy",
    "model_sha256",
    "checks",
)
MAX_TEXT_LENGTH = 2000  # characters in a tag; the files have the complete text


@dataclass(frozen=True)
class Decision:
    """A decision, as its run says.

    Attributes
    ----------
    number : decisions about a model are numbered in their order.
    kind : "promoted", "refused", "unchanged", "rolled back" or "unlocked".
    version : that was decided about; None if a lock was removed.
    previous_version : that was in Production before, or None.
    time : when it took effect; UTC.
    user, host, job_url : who decided, on which machine, in which CI job, or None.
    reason : why.
    accuracy : of the version on its test set, or None.
    model_sha256 : of the version's file; empty if there is no version.
    decision_run_id : the run.
    """

    number: int
    kind: str
    version: int | None
    previous_version: int | None
    time: datetime
    user: str
    host: str
    job_url: str | None
    reason: str
    accuracy: float | None
    model_sha256: str
    decision_run_id: str


# --- make a decision -------------------------------------------------------------------------------------------------


def record_candidate_decision(lock: PromotionLock, decision: CandidateDecision, reason: str) -> str:
    """Record what the gate decided; return the id of the run."""
    record = decision.as_dict()
    record["reason"] = reason
    record.update(describe_context())
    record["time"] = utc_now()
    record["dataset"] = decision.dataset
    record["dataset_digest"] = decision.dataset_digest
    record["policy"] = decision.describe_policy()
    checks = decision.verdict.checks
    tags = {
        "accuracy": record["candidate"]["accuracy"],
        "model_sha256": record["candidate"]["model_sha256"],
        "checks": "; ".join(str(check) for check in checks),
    }
    metrics = {check.name: check.value for check in checks if math.isfinite(check.value)}
    return _record_decision(record, tags, metrics, before_commit=lock.check_held)


def record_rollback(lock: PromotionLock, target: Decision, reason: str) -> tuple[str, dict[str, Any]]:
    """Record that the version of ``target`` goes back to Production; return the id of the run, and the record."""
    record = _start_record(lock.model_name, ROLLED_BACK, target.version, reason)
    record["promoted_by"] = target.decision_run_id
    record["model_sha256"] = target.model_sha256
    tags = {
        "accuracy": target.accuracy,
        "model_sha256": target.model_sha256,
        "checks": "none, by rollback",
    }
    return _record_decision(record, tags, {}, before_commit=lock.check_held), record


def force_unlock(model_name: str, reason: str) -> tuple[str, dict[str, Any]]:
    """Remove the lock of a model, whichever process has it, and record that; return the id of the run, and the record.

    Raises
    ------
    UserError
        The model is not locked.
    """
    owner = read_lock_owner(model_name)
    if owner is None:
        raise UserError(f"{model_name} is not locked, so there is nothing to unlock; run promote.py without --unlock")
    lock = PromotionLock(model_name, owner)
    record = _start_record(model_name, UNLOCKED, None, reason)
    record["lock_owner"] = str(owner)
    tags = {"checks": f"none, the lock of {owner} was removed"}

    def remove_lock() -> None:
        lock.check_held()
        lock.remove()

    return _record_decision(record, tags, {}, before_commit=remove_lock), record


def _start_record(model_name: str, kind: str, version: int | None, reason: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "model_name": model_name,
        "version": version,
        "decision": kind,
        "checks": [],
        "previous_version": registry.alias_version(model_name),
        "reason": reason,
    }
    record.update(describe_context())
    record["time"] = utc_now()
    return record


def _record_decision(
    record: Mapping[str, Any],
    tags: Mapping[str, Any],
    metrics: Mapping[str, float],
    *,
    before_commit: Callable[[], None],
) -> str:
    """Write the decision into a run of its own; call ``before_commit``; then set the tag that makes it a decision.

    After an exception before the last step the run is deleted, so that the experiment holds decisions only.
    """
    files = format_verdict_files(record)
    decision_run_id = _create_decision_run(record["model_name"])
    try:
        runs.log_metrics(decision_run_id, metrics)
        runs.set_tags(decision_run_id, _build_tags(record, tags, files["verdict.md"]))
        _log_files(decision_run_id, files)
        before_commit()
    except BaseException:
        with suppress(StoreError), limit_requests(retries=2, timeout=CLEANUP_TIMEOUT):  # the store may be what failed
            runs.end_run(decision_run_id, runs.KILLED)
            runs.delete_run(decision_run_id)
        raise
    runs.set_tags(decision_run_id, {KIND_TAG: record["decision"]})
    return decision_run_id


def _log_files(decision_run_id: str, files: Mapping[str, str]) -> None:
    try:
        for file, text in files.items():
            artifacts.log_text(decision_run_id, text, file)
    except OSError as error:  # of a local folder, or of a server's
        failure = explain_failure(error)
        raise UserError(f"the decision is not made: {failure.reason}; {failure.advice}") from None


def _create_decision_run(model_name: str) -> str:
    experiment_id = runs.get_or_create_experiment(f"{model_name}-promotions")
    numbers = [_read_number(run) for run in runs.search_runs(experiment_id)]
    tags = {
        NUMBER_TAG: str(max(numbers, default=0) + 1),
        "mlflow.user": str(describe_context()["user"]),
        "mlflow.source.name": "promote.py",
    }
    return runs.create_run(experiment_id, tags)


def _build_tags(record: Mapping[str, Any], tags: Mapping[str, Any], note: str) -> dict[str, str]:
    values = {**record, **tags}
    result = {}
    for field in FIELDS:
        if values.get(field) is not None:
            result[f"decision.{field}"] = str(values[field])[:MAX_TEXT_LENGTH]
    subject = "lock" if record["version"] is None else f"version {record['version']}"
    result["mlflow.runName"] = f"{subject} {record['decision']}"
    result["mlflow.note.content"] = note
    return result


# --- carry it out ----------------------------------------------------------------------------------------------------


def apply_decision(model_name: str, decision_run_id: str) -> None:
    """Do what the decision in the run says, or the rest of it; then end the run.

    The alias moves only if it is where it was when the decision was made: a person may have moved it since.
    """
    decision = _read_decision(runs.get_run(decision_run_id))
    if decision.kind in MOVES:
        if registry.alias_version(model_name) == decision.previous_version:
            runs.set_tags(decision_run_id, {"decision.time": utc_now()})
            registry.set_alias(model_name, registry.CHAMPION, _require_version(decision))
        registry.sync_stages(model_name)
    if decision.version is not None and decision.version != decision.previous_version:
        _describe_on_version(model_name, decision_run_id)
    runs.end_run(decision_run_id, runs.FINISHED)


def complete_unfinished_decisions(model_name: str) -> None:
    """Complete what dead processes began: apply their decisions, end their runs without one, make the stages agree.

    Call it under the lock of the model: then every open run is one of a process that has died.
    """
    experiment_id = runs.find_experiment(f"{model_name}-promotions")
    if experiment_id is not None:
        unfinished = runs.search_runs(experiment_id, "attributes.status = 'RUNNING'")
        for run in sorted(unfinished, key=_read_number):
            if KIND_TAG in run.data.tags:
                apply_decision(model_name, run.info.run_id)
            else:
                runs.end_run(run.info.run_id, runs.KILLED)
    registry.sync_stages(model_name)


def _require_version(decision: Decision) -> int:
    if decision.version is None:
        raise ValueError(f"the decision in run {decision.decision_run_id} names no version")
    return decision.version


def _describe_on_version(model_name: str, decision_run_id: str) -> None:
    """Write the decision on the version, where the UI shows it."""
    run = runs.get_run(decision_run_id)
    decision = _read_decision(run)
    link = f"[The decision](#/experiments/{run.info.experiment_id}/runs/{decision_run_id})"
    paragraphs = (
        f"{decision.kind.capitalize()} on {decision.time:%Y-%m-%d %H:%M} UTC by {decision.user}.",
        decision.reason,
        f"{link} has every check, the policy and the evidence.",
    )
    tags = {
        "gate.decision": decision.kind,
        "gate.checks": run.data.tags.get("decision.checks", ""),
        "gate.time": run.data.tags.get("decision.time", ""),
    }
    registry.update_version(model_name, _require_version(decision), "\n\n".join(paragraphs), tags)


# --- read them back --------------------------------------------------------------------------------------------------


def list_decisions(model_name: str) -> list[Decision]:
    """Return every decision about the model, the first one first."""
    experiment_id = runs.find_experiment(f"{model_name}-promotions")
    if experiment_id is None:
        return []
    decisions = []
    for run in runs.search_runs(experiment_id):
        if KIND_TAG in run.data.tags:
            decisions.append(_read_decision(run))
    return sorted(decisions, key=lambda decision: (decision.number, decision.decision_run_id))


def _read_number(run: Run) -> int:
    text = run.data.tags.get(NUMBER_TAG, "")
    return int(text) if text.isdecimal() else 0


def _read_decision(run: Run) -> Decision:
    tags = run.data.tags
    values = {field: tags.get(f"decision.{field}") for field in FIELDS}
    return Decision(
        number=_read_number(run),
        kind=tags[KIND_TAG],
        version=_parse_version(values["version"]),
        previous_version=_parse_version(values["previous_version"]),
        time=datetime.fromisoformat(str(values["time"])),
        user=str(values["user"]),
        host=str(values["host"]),
        job_url=values["job_url"],
        reason=str(values["reason"]),
        accuracy=float(values["accuracy"]) if values["accuracy"] else None,
        model_sha256=values["model_sha256"] or "",
        decision_run_id=run.info.run_id,
    )


def _parse_version(text: str | None) -> int | None:
    return int(text) if text else None
