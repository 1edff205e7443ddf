"""What a training leaves: test it, write everything to disk, log it, and clean up."""

import json
import logging
import shutil
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from pipeline.data.forms import Form
from pipeline.data.preparation import measure_form
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.evaluation.inference import compute_logits
from pipeline.evaluation.metrics import Evaluation
from pipeline.files import atomic_file
from pipeline.provenance.record import compute_weights_sha256
from pipeline.provenance.resumption import Resumption
from pipeline.redact import redact
from pipeline.session.run import describe_process_tags, explain_interruption
from pipeline.session.training import Training
from pipeline.signals import defer_signals
from pipeline.tracking import runs
from pipeline.tracking.delivery import (
    REPORTS_FOLDER,
    Delivered,
    LoggedEpoch,
    TrainingResult,
    log_reports,
    log_result,
    remove_result,
)
from pipeline.tracking.models import UnsavableNetworkError
from pipeline.tracking.outages import Patience, StoreAway
from pipeline.tracking.store import StoreError
from pipeline.training.calibration import calibrate_temperature
from pipeline.training.models import summarize_model

logger = logging.getLogger(__name__)


def finish(training: Training, patience: Patience) -> tuple[TrainingResult, Delivered]:
    """Test the network, write everything to disk, log it in the order of its value: the model comes first.

    Raises
    ------
    StoreAway, StoreError, OSError, UserError
        The store did not take everything. All of it is in the folder of the training.
    """
    form = _measure_form(training.splits.train)  # before `_score`, which lets go of these images
    evaluation = _score(training)
    result = _write_result(training, evaluation, form)
    try:
        delivered = log_result(training.folder, result, patience)
    except (StoreAway, StoreError, OSError, UserError):
        _write_reports(training, evaluation)
        raise
    _write_reports(training, evaluation)
    log_reports(training.folder, result, patience)
    return result, delivered


def log_complete_training(resumption: Resumption, patience: Patience) -> tuple[TrainingResult, Delivered]:
    """Log a training that is complete on disk, and end its run.

    Raises
    ------
    Stopped
        A signal arrived.
    UserError
        The store did not take everything.
    """
    folder, result = resumption.folder, resumption.result
    if result is None:
        raise ValueError(f"{folder} is not complete")
    logger.info("run %s: the training is complete and only has to be logged", result.run_id)
    run = runs.start_run("", None, run_id=result.run_id, tags=describe_process_tags(), patience=patience)
    with explain_interruption(resumption), defer_signals() as stop, run:
        patience.check = stop.raise_if_made
        delivered = log_result(folder, result, patience)
        log_reports(folder, result, patience)
    return result, delivered


def remove_checkpoints(folder: Path, *, keep: bool) -> None:
    """Remove the folder of a training that has finished; if ``keep``, all but its checkpoints."""
    remove_result(folder)
    if keep:
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # other trainings are there
        folder.parent.rmdir()


def _measure_form(train: Dataset) -> Form:
    return train.form or measure_form(train.images.numpy(), train.kind)


def _score(training: Training) -> Evaluation:
    """Choose the weights, fit the temperature, and score the network on the test images, once."""
    state = training.state
    training.splits = training.splits._replace(train=training.splits.validation)  # makes room for what follows
    if training.job.config.keep == "best" and state.best:
        state.model.load_state_dict(state.best.weights)
    calibrate_temperature(state.model, training.splits.validation, state.device)
    test = training.splits.test
    logits = compute_logits(state.model, test.images, device=state.device)
    return Evaluation.from_logits(logits, test.labels, test.classes)


def _write_result(training: Training, evaluation: Evaluation, form: Form) -> TrainingResult:
    """Write the model, and all that is to be logged with it, to the folder of the training."""
    job, state, test = training.job, training.state, training.splits.test
    model = state.model.cpu().to(memory_format=torch.contiguous_format)  # as torch.export wants it
    metrics = evaluation.as_metrics("test")
    metrics["training_seconds"] = state.training_seconds
    metrics["temperature"] = float(model[-1].get_buffer("value"))
    result = TrainingResult(
        run_id=job.run_id,
        model_name=job.model_name,
        params={name: redact(str(value)) for name, value in training.params.items()},
        epochs=[LoggedEpoch(entry.epoch, entry.time, entry.metrics()) for entry in state.history],
        metrics=metrics,
        time=time.time(),
        tags={"result.weights_sha256": compute_weights_sha256(model.state_dict())},
    )
    examples = test.images[:2].float()
    write = partial(result.write, model=model, examples=examples, classes=test.classes, form=form)
    try:
        write(training.folder)
    except UnsavableNetworkError:
        raise
    except (OSError, RuntimeError, UserError) as error:  # the disk is full, or a shared folder is away
        spare = Path(tempfile.mkdtemp(prefix="training-"), job.run_id)
        logger.warning("cannot write to %s (%s); the model goes to %s", training.folder, error, spare)
        training.folder = spare
        write(spare)
    return result


def _write_reports(training: Training, evaluation: Evaluation) -> None:
    """Write what people look at to the folder of the training. What cannot be written costs nothing else."""
    from pipeline.reports import plots
    from pipeline.reports.figures import save_figures

    state = training.state
    figures = {
        "confusion_matrix.png": partial(plots.plot_confusion_matrix, evaluation),
        "training_curves.png": partial(plots.plot_training_curves, state.history),
    }
    texts = {
        "classification_report.json": json.dumps(evaluation.classification_report(), indent=2),
        "classification_report.txt": evaluation.classification_report_text(),
        "model_summary.txt": summarize_model(state.model, training.splits.test.shape),
    }
    try:
        with atomic_file(training.folder / REPORTS_FOLDER) as folder:
            folder.mkdir()
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
            save_figures(folder, figures)
    except (OSError, UserError) as error:
        logger.warning("cannot write the reports (%s); the model is not affected", error)
