"""The report of a decision: a run of the experiment ``<model>-promotions``, for people. Nothing is decided by it.

Anybody may create an experiment of that name first. If the account may not write to it, or if it was deleted, the
reports go to ``<model>-promotions-2`` and so on. The model has the tag ``promotions.experiment_id``, which says where
they are. Runs there that no decision names are ignored.
"""

import logging
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.promotion.decision_tags import Decision, read_decisions
from pipeline.promotion.verdict import format_verdict_files
from pipeline.tracking import artifacts, runs, tags
from pipeline.tracking.failures import explain_failure, is_outage
from pipeline.tracking.store import StoreError, limit_requests

logger = logging.getLogger(__name__)

EXPERIMENT_TAG = "promotions.experiment_id"  # of the registered model
EXPERIMENT_ID = re.compile("[0-9]{1,18}")
MAX_EXPERIMENTS = 20  # with a number; then comes a random name, which nobody can create first
NONCE_TAG = "decision.nonce"  # of the run: the ticket of the process that decides
KIND_TAG = "decision.kind"  # set at the end
CHECKS_TAG = "decision.checks"
MAX_TEXT_LENGTH = 2000  # characters in a tag; the files have the complete text
SIGNATURE_FILE = "model.sig"
CLEANUP_TIMEOUT = 5  # seconds, of a request after an exception
HIDDEN_FIELDS = ("kind", "applied", "decision_run_id")  # the first is set at the end; the run has the others anyway


@dataclass(frozen=True)
class Report:
    """What people can read about a decision.

    Attributes
    ----------
    record : the content of ``verdict.json``.
    checks : the checks, in one line.
    metrics : the values of the checks.
    signature : of the model, or None.
    """

    record: Mapping[str, Any]
    checks: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    signature: bytes | None = None


# --- where the reports are ------------------------------------------------------------------------------------------


def create_report_run(model_name: str, run_tags: Mapping[str, str]) -> str:
    """Create a run for a report; return its id."""
    for experiment_id in _iterate_experiments(model_name):
        try:
            return runs.create_run(experiment_id, run_tags)
        except StoreError as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
        logger.info("your account may not write to experiment %s; the report goes to another one", experiment_id)
    raise UserError(f"no experiment takes the reports about {model_name}; ask the administrator of the store")


def _iterate_experiments(model_name: str) -> Iterator[str]:
    """Yield the experiment where the last report went, then others; each is remembered before it is yielded."""
    remembered = _parse_experiment_id(tags.read_model_tags(model_name))
    if remembered is not None and runs.is_active_experiment(remembered):
        yield remembered
    names = [f"{model_name}-promotions"]
    names += [f"{model_name}-promotions-{number}" for number in range(2, MAX_EXPERIMENTS + 1)]
    names.append(f"{model_name}-promotions-{uuid.uuid4().hex}")
    for name in names:
        experiment_id = _open_experiment(name)
        if experiment_id is not None and experiment_id != remembered:
            tags.set_model_tag(model_name, EXPERIMENT_TAG, experiment_id)
            yield experiment_id


def _parse_experiment_id(model_tags: Mapping[str, str]) -> str | None:
    experiment_id = model_tags.get(EXPERIMENT_TAG, "")
    return experiment_id if EXPERIMENT_ID.fullmatch(experiment_id) else None


def _open_experiment(name: str) -> str | None:
    """Return the id of the experiment, which is created if it is missing; None if it was deleted or is not ours."""
    try:
        return runs.get_or_create_experiment(name)
    except UserError as error:  # it was deleted, and the earlier reports with it
        logger.warning("%s; the report of this decision goes to another experiment", error)
        return None
    except StoreError as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        return None


# --- write a report -------------------------------------------------------------------------------------------------


def write_report(decision: Decision, report: Report) -> None:
    """Write the report of a decision that is about to be made into its run.

    Raises
    ------
    UserError
        The files cannot be stored.
    """
    run_id = decision.decision_run_id
    files = format_verdict_files(report.record)
    subject = "lock" if decision.version is None else f"version {decision.version}"
    run_tags: dict[str, str] = {
        CHECKS_TAG: report.checks[:MAX_TEXT_LENGTH],
        "mlflow.user": decision.user,
        "mlflow.runName": f"{subject} {decision.kind}",
        "mlflow.note.content": files["verdict.md"],
    }
    for name, value in asdict(decision).items():
        if name not in HIDDEN_FIELDS and value not in (None, ""):
            run_tags[f"decision.{name}"] = str(value)[:MAX_TEXT_LENGTH]
    runs.log_metrics(run_id, report.metrics)
    runs.set_tags(run_id, run_tags)
    try:
        for file, text in files.items():
            artifacts.log_text(run_id, text, file)
        if report.signature is not None:
            _log_signature(run_id, report.signature)
    except (OSError, StoreError) as error:  # of a local folder, or of a server's
        failure = explain_failure(error)
        raise UserError(f"the decision is not made: {failure.reason}; {failure.advice}") from None


def _log_signature(run_id: str, signature: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, SIGNATURE_FILE).write_bytes(signature)
        artifacts.log_artifacts(run_id, Path(directory))


def describe_report(run_id: str) -> tuple[str, str]:
    """Return a link to the report and its checks, as Markdown; empty texts if there is no such run."""
    try:
        run = runs.get_run(run_id)
    except (UserError, StoreError) as error:
        _warn_or_raise(error, run_id)
        return "", ""
    link = f"[The decision](#/experiments/{run.info.experiment_id}/runs/{run_id})"
    return link, run.data.tags.get(CHECKS_TAG, "")


# --- end it ---------------------------------------------------------------------------------------------------------


def finish_report(decision: Decision) -> None:
    """End the run of a decision that has taken effect. If that is not possible, it is only a warning."""
    run_id = decision.decision_run_id
    try:
        if NONCE_TAG in runs.get_run(run_id).data.tags:
            time = decision.time.isoformat(timespec="milliseconds")
            runs.set_tags(run_id, {KIND_TAG: decision.kind, "decision.time": time})
            runs.end_run(run_id, runs.FINISHED)
    except (UserError, StoreError) as error:
        _warn_or_raise(error, run_id)


def kill_report(run_id: str) -> None:
    """End the run of a decision that has not taken effect. If that is not possible, it is only a warning."""
    try:
        if NONCE_TAG in runs.get_run(run_id).data.tags:
            runs.end_run(run_id, runs.KILLED)
    except (UserError, StoreError) as error:
        _warn_or_raise(error, run_id)


def delete_report(run_id: str) -> None:
    """End and delete the run after an exception, so that the experiment holds decisions only."""
    with suppress(StoreError), limit_requests(retries=2, timeout=CLEANUP_TIMEOUT):  # the store may be what failed
        runs.end_run(run_id, runs.KILLED)
        runs.delete_run(run_id)


def end_open_runs(model_name: str, nonce: str) -> None:
    """End the runs that the process with that ticket left open. If that is not possible, it is only a warning.

    The run of a decision about a version that has taken effect is opened again and finished with the decision.
    """
    model_tags = tags.read_model_tags(model_name)
    experiment_id = _parse_experiment_id(model_tags)
    if experiment_id is None:
        return
    unlocked = {decision.decision_run_id: decision for decision in read_decisions(model_name, None, model_tags)}
    try:
        for run in runs.search_runs(experiment_id, f"status = 'RUNNING' and tags.`{NONCE_TAG}` = '{nonce}'"):
            if run.info.run_id in unlocked:
                finish_report(unlocked[run.info.run_id])
            else:
                runs.end_run(run.info.run_id, runs.KILLED)
    except StoreError as error:
        _warn_or_raise(error, f"of experiment {experiment_id}")


def _warn_or_raise(error: UserError | StoreError, run: str) -> None:
    if isinstance(error, StoreError) and is_outage(error):
        raise error
    logger.warning("the report, run %s, stays as it is: %s", run, explain_failure(error).reason)
