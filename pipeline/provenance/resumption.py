"""Resume a training: find its folder, check that it may go on, and record that it did."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.context import host_name, is_process_alive, user_name, utc_now
from pipeline.errors import UserError
from pipeline.provenance.source import CodeState
from pipeline.tracking import artifacts, runs
from pipeline.tracking.delivery import RESULT_FILE, TrainingResult, is_complete, read_result
from pipeline.tracking.runs import Run
from pipeline.training.checkpoint import BEST_FILE, LAST_FILE, Checkpoint, load_checkpoint

CHECKPOINTS_FOLDER = "checkpoints"  # of a run's artifacts
RUN_ID = re.compile(r"[0-9A-Za-z_-]+")


@dataclass(frozen=True)
class Resumption:
    """A training that goes on.

    Attributes
    ----------
    run : as the store has it.
    folder : of its checkpoints.
    checkpoint : where it goes on; None if the training is complete and only has to be logged.
    result : what has to be logged; None if the training goes on.
    """

    run: Run
    folder: Path
    checkpoint: Checkpoint | None
    result: TrainingResult | None


def find_folder(run_id: str, checkpoint_dir: Path) -> Path:
    """Return the folder of a training's checkpoints; with the id ``last``, of the one that wrote a checkpoint last.

    Raises
    ------
    UserError
        The id cannot be one, or ``checkpoint_dir`` has no checkpoint for ``last``.
    """
    if run_id != "last":
        if not RUN_ID.fullmatch(run_id):
            raise UserError(f"{run_id!r} is no run id; look it up in mlflow ui")
        return checkpoint_dir / run_id
    files = [*checkpoint_dir.glob(f"*/{LAST_FILE}"), *checkpoint_dir.glob(f"*/{RESULT_FILE}")]
    if not files:
        raise UserError(f"there is no checkpoint in {checkpoint_dir}; name its directory with --checkpoint-dir")
    return max(files, key=lambda file: file.stat().st_mtime).parent


def load_resumption(folder: Path) -> Resumption:
    """Return the training whose checkpoints are in ``folder``, which is named by its run.

    A checkpoint that is not there is taken from the artifacts of the run, if it logged any.

    Raises
    ------
    UserError
        There is no such run or no checkpoint; the run has finished, or its process is still alive.
    """
    run = runs.get_run(folder.name)
    _check_status(run)
    if is_complete(folder):
        return Resumption(run, folder, None, read_result(folder))
    if not (folder / LAST_FILE).exists():
        _download_checkpoints(run, folder)
    checkpoint = load_checkpoint(folder / LAST_FILE)
    if checkpoint.job.run_id != run.info.run_id:
        raise UserError(f"{checkpoint.path} is of run {checkpoint.job.run_id}; rename its folder to that id")
    return Resumption(run, folder, checkpoint, None)


def check_options(checkpoint: Checkpoint, given: Mapping[str, Any]) -> None:
    """Check that no option contradicts the training; ``given`` has those of the command line, by name.

    Raises
    ------
    UserError
        An option has another value than the training.
    """
    job = checkpoint.job
    fixed = asdict(job.config) | {name: getattr(job, name) for name in ("experiment", "run_name", "model_name")}
    fixed["register"] = job.model_name is not None
    for name, value in given.items():
        if name not in fixed or value == "auto":
            continue
        option = f"--{name.replace('_', '-')} {_format_option(value)}"
        expected = _format_option(fixed[name])
        if _format_option(value) == expected:
            continue
        if name == "epochs":
            raise UserError(
                f"{option} contradicts the training, whose learning rate is one cycle of {expected} epochs; "
                "leave it out, or train on in a new run with --from"
            )
        if name == "register":
            raise UserError("--no-register contradicts the training, which registers its model; leave it out")
        raise UserError(f"{option} contradicts the training, which has {expected}; leave it out")


def _format_option(value: Any) -> str:
    """Return the value as it is typed."""
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def describe_resumption(resumption: Resumption, code: CodeState, epoch: int) -> dict[str, str]:
    """Return the tags that say when, where and with which code the training went on after ``epoch`` epochs."""
    earlier = [name for name in resumption.run.data.tags if name.startswith("resumed.")]
    commit = code.tags.get("commit") or "unknown"
    changes = " with changes" if code.tags.get("dirty") == "true" else ""
    text = f"{utc_now()} after epoch {epoch}, {user_name()} on {host_name()}, commit {commit}{changes}"
    return {f"resumed.{len(earlier) + 1}": text}


def _check_status(run: Run) -> None:
    run_id = run.info.run_id
    if run.info.status == runs.FINISHED:
        raise UserError(f"run {run_id} is FINISHED; to train on, start a new run from its weights with --from {run_id}")
    process = run.data.tags.get("invocation.process", "")
    if run.info.status == runs.RUNNING and is_process_alive(process):
        raise UserError(f"run {run_id} is still training, in process {process.split()[0]}; stop it first")


def _download_checkpoints(run: Run, folder: Path) -> None:
    """Take the checkpoints from the artifacts of the run, if it logged any."""
    for file in (LAST_FILE, BEST_FILE):
        path = f"{CHECKPOINTS_FOLDER}/{file}"
        if path in artifacts.list_artifact_paths(run.info.run_id, CHECKPOINTS_FOLDER):
            downloaded = artifacts.download_artifact(run.info.run_id, path, folder)
            downloaded.replace(folder / file)
    if (folder / CHECKPOINTS_FOLDER).is_dir():
        (folder / CHECKPOINTS_FOLDER).rmdir()
    if not (folder / LAST_FILE).exists():
        raise UserError(
            f"run {run.info.run_id} has no checkpoint in {folder.parent}, and none among its artifacts; "
            "name its directory with --checkpoint-dir"
        )
