"""Runs that say RUNNING although their training has ended: it was killed, or its machine was."""

import logging
import shlex
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

from pipeline.context import is_process_alive, is_process_gone
from pipeline.tracking.models import list_models_of_run
from pipeline.tracking.outages import describe_failure
from pipeline.tracking.runs import KILLED, RUNNING, Run, find_experiment, search_runs
from pipeline.tracking.store import get_client

logger = logging.getLogger(__name__)

CHECKPOINT_DIR = Path("checkpoints")  # of pytorch_demo.py, unless it is told another
LONGEST_SILENCE = 60 * 60 * 1000  # milliseconds; a training sets the tag `invocation.alive` every ten minutes


def end_lost_runs(experiment: str) -> list[str]:
    """End the runs of the experiment whose process on this machine is gone, as KILLED; return their ids.

    Their pending models are marked as failed. Runs of other machines stay as they are, and so do those that this
    account may not change. If the store fails, the rest stays for the next call.

    Raises
    ------
    UserError
        The experiment was deleted.
    """
    experiment_id = find_experiment(experiment)
    if experiment_id is None:
        return []
    ended = []
    for run in search_runs(experiment_id, f"attributes.status = '{RUNNING}'"):
        try:
            if _is_lost(run) and _end_if_still_lost(run.info.run_id):
                ended.append(run.info.run_id)
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                reason = describe_failure(error)
                logger.warning(
                    "run %s still says RUNNING although its process is gone: the store did not take its new status "
                    "(%s); compare.py tries again",
                    run.info.run_id,
                    reason,
                )
                break
    return ended


def is_silent(run: Run) -> bool:
    """Return whether the run says RUNNING, and nothing shows that it still runs.

    That is so if its process is not on this machine, and its start, its newest metric and the time in its tag
    ``invocation.alive`` are more than an hour ago. It is also so if its process on this machine is gone.
    """
    if run.info.status != RUNNING or is_process_alive(_process(run)):
        return False
    if _is_lost(run):
        return True
    return _now() - _last_sign_of_life(run) > LONGEST_SILENCE


def describe_lost_run(run_id: str, checkpoint_dir: Path = CHECKPOINT_DIR) -> str:
    """Return a line about a run that `end_lost_runs` has ended: what happened, and the command that resumes it."""
    problem = f"run {run_id} said RUNNING, but its process is gone: it is ended as KILLED"
    if not (checkpoint_dir / run_id / "last.pt").exists():
        return f"{problem}; no checkpoint of it is in {checkpoint_dir}"
    return f"{problem}; resume it with: {resume_command(run_id, checkpoint_dir)}"


def resume_command(run_id: str, checkpoint_dir: Path) -> str:
    """Return the command that resumes the training of the run."""
    command = ["python", "pytorch_demo.py", "--resume", run_id]
    if checkpoint_dir != CHECKPOINT_DIR:
        command += ["--checkpoint-dir", str(checkpoint_dir)]
    return shlex.join(command)


def _is_lost(run: Run) -> bool:
    return run.info.status == RUNNING and is_process_gone(_process(run))


def _process(run: Run) -> str:
    return run.data.tags.get("invocation.process", "")


def _end_if_still_lost(run_id: str) -> bool:
    """End the run, unless somebody has ended or resumed it in the meantime; return whether it was ended."""
    client = get_client()
    run = client.get_run(run_id)
    if not _is_lost(run):
        return False
    _fail_pending_models(run)
    client.set_terminated(run_id, KILLED, end_time=_last_sign_of_life(run))
    return True


def _fail_pending_models(run: Run) -> None:
    """Mark the models of which the upload did not end."""
    for model in list_models_of_run(run):
        if model.status == LoggedModelStatus.PENDING:
            get_client().finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)


def _last_sign_of_life(run: Run) -> int:
    """Return when something last showed that the run runs, in milliseconds since 1970; at most now."""
    times = [run.info.start_time or 0]
    for metric in run.data.to_proto().metrics:
        times.append(metric.timestamp)
    with suppress(ValueError, OverflowError):  # the tag is missing, or a person has changed it
        alive = datetime.fromisoformat(run.data.tags.get("invocation.alive", ""))
        times.append(round(alive.timestamp() * 1000))
    return min(max(times), _now())


def _now() -> int:
    return round(time.time() * 1000)
