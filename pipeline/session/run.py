"""The MLflow run of a training: open it, log where the training comes from, say how to go on after an interruption."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.context import describe_process
from pipeline.data.prepared import find_cleaning_report
from pipeline.errors import UserError
from pipeline.provenance.record import PACKAGES_FILE, PROVENANCE_FOLDER, build_run_tags, write_provenance
from pipeline.provenance.resumption import Resumption, describe_resumption
from pipeline.provenance.source import CodeState
from pipeline.provenance.train_digests import write_train_digests
from pipeline.session.disk_space import check_disk_space
from pipeline.session.training import Training
from pipeline.signals import Stopped, defer_signals
from pipeline.tracking import artifacts, registry, runs
from pipeline.tracking.delivery import RESULT_FILE
from pipeline.tracking.lost_runs import resume_command
from pipeline.tracking.outages import Patience, StoreAway, describe_problem
from pipeline.tracking.store import StoreError, log_store_elsewhere
from pipeline.training.checkpoint import LAST_FILE, CheckpointWriter, lock_folder

logger = logging.getLogger(__name__)


@contextmanager
def open_run(training: Training, patience: Patience, *, system_metrics: bool) -> Iterator[None]:
    """Open the run, new or again; at the end of the block its status is the true one.

    A new run has a first checkpoint before anything else happens, so that it can be resumed from its first moment.
    A signal does not interrupt a request or a file half-way: it waits until the next request, epoch or batch.

    Raises
    ------
    Stopped
        A signal arrived.
    UserError
        The account may not register the model, there is too little room on the disk, or the store failed when the
        training was complete.
    """
    if training.job.model_name:
        registry.check_may_register(training.job.model_name)
    check_disk_space(training, runs.find_artifact_location(training.job.experiment, training.job.run_id or None))
    with explain_interruption(training), defer_signals() as stop, ExitStack() as stack:
        training.stop = stop
        patience.check = stop.raise_if_made
        job = training.job
        run = runs.start_run(
            job.experiment,
            job.run_name,
            run_id=job.run_id or None,
            tags=describe_process_tags(),
            system_metrics=system_metrics,
            patience=patience,
        )
        run_id = stack.enter_context(run)
        if not training.resumption:
            training.job = replace(job, run_id=run_id)
            training.folder = training.checkpoints.directory / run_id
            stack.enter_context(lock_folder(training.folder))
            if training.checkpoints.every:
                CheckpointWriter(training.folder, training.job).write(training.state)
        config = job.config
        images = f"{len(training.splits.train):,} images"
        log_store_elsewhere()
        logger.info("run %s: %s on %s, %s, %s", run_id, config.model, config.dataset, images, config.device)
        if training.resumption:
            logger.info("it goes on after epoch %d of %d", training.state.epoch, config.epochs)
        stop.raise_if_made()
        yield


def describe_process_tags() -> dict[str, str]:
    """Return the tag that tells whether the process of a run is still alive."""
    return {"invocation.process": describe_process()}


@contextmanager
def explain_interruption(training: Training | Resumption) -> Iterator[None]:
    """After a signal, or a failure of the store, say how to go on.

    Raises
    ------
    UserError
        The store was away for too long, or failed when the training was complete.
    """
    try:
        yield
    except Stopped as stop:
        if _can_resume(training.folder):
            stop.advice = f"go on with: {resume_command(training.folder.name, training.folder.parent)}"
        raise
    except (StoreAway, StoreError, OSError, UserError) as error:
        is_complete = (training.folder / RESULT_FILE).exists()
        if not is_complete and not isinstance(error, StoreAway):
            raise
        problem = str(error) if isinstance(error, UserError) else describe_problem(error)
        if not _can_resume(training.folder):
            raise UserError(f"the store did not take everything: {problem}; start the training again") from None
        progress = "is complete" if is_complete else "is saved as far as it was"
        raise UserError(
            f"the store did not take everything: {problem}; the training {progress} in {training.folder}; "
            f"when the store works, run: {resume_command(training.folder.name, training.folder.parent)}"
        ) from None


def _can_resume(folder: Path) -> bool:
    return (folder / LAST_FILE).exists() or (folder / RESULT_FILE).exists()


def log_origin(training: Training, code: CodeState, command: str) -> None:
    """Log where the training comes from: code, environment, command, data, images, and the report on one's own data.

    For a training that goes on, log when, where and with which code it did. May be called again after a failure.
    The artifact store has then taken files, and handed one out again, before the training begins.
    """
    job, resumption = training.job, training.resumption
    if resumption:
        runs.set_tags(job.run_id, describe_resumption(resumption, code, training.state.epoch))
    if resumption is None or "invocation.command" not in resumption.run.data.tags:
        report = find_cleaning_report(job.config.dataset)
        with tempfile.TemporaryDirectory() as folder:
            write_provenance(Path(folder), code.patch, report)
            write_train_digests(Path(folder), training.splits)
            artifacts.log_artifacts(job.run_id, Path(folder), PROVENANCE_FOLDER)
            artifacts.check_artifact(job.run_id, f"{PROVENANCE_FOLDER}/{PACKAGES_FILE}")
        tags = build_run_tags(code, torch.device(job.config.device), command, report)
        runs.set_tags(job.run_id, tags | {"reproduces": job.reproduces})
    runs.log_params(job.run_id, training.params)
    runs.log_inputs({"training": training.splits.train, "testing": training.splits.test})
