"""Log a finished training to the store, from files on disk: an outage delays it, and loses nothing.

The folder of a training, ``checkpoints/<run_id>``, has at the end everything that is to be logged: ``model/``,
``result.json`` and ``reports/``. It appears in this order, and is logged in this order. Each step may be repeated.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from pipeline.data.forms import Form
from pipeline.documents import DamagedError, parse_record
from pipeline.errors import UserError
from pipeline.files import atomic_file, read_text
from pipeline.tracking import artifacts, models, registry, runs
from pipeline.tracking.outages import Patience

if TYPE_CHECKING:  # PyTorch takes seconds to import
    from torch import Tensor
    from torch.nn import Module

MODEL_FOLDER = "model"
REPORTS_FOLDER = "reports"
RESULT_FILE = "result.json"
REQUIRED_METRICS = ("test_accuracy", "test_loss", "training_seconds")
MAX_EPOCHS = 1_000_000
LATEST_TIME = 7e9  # seconds since 1970: a time that is later, in the year 2191, is not believed

Seconds = Annotated[float, Field(ge=0, le=LATEST_TIME, allow_inf_nan=False)]
Metrics = Annotated[dict[str, float], Field(min_length=1)]


@dataclass(frozen=True)
class LoggedEpoch:
    """What an epoch is to log: its number from 1, its end in seconds since 1970, and its metrics."""

    epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    time: Seconds
    metrics: Metrics


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training is to log, besides its model and its reports.

    Attributes
    ----------
    run_id : of the run.
    model_name : under which the model is registered; None: not at all.
    params : of the run; the store has them since the training began.
    epochs : all epochs, the first one first.
    metrics : of the test and of the whole training; `REQUIRED_METRICS` are among them.
    time : when they were measured, in seconds since 1970.
    tags : of the run.
    """

    run_id: str
    model_name: str | None
    params: dict[str, str]
    epochs: Annotated[list[LoggedEpoch], Field(min_length=1)]
    metrics: Metrics
    time: Seconds
    tags: dict[str, str]

    def __post_init__(self) -> None:
        if not set(REQUIRED_METRICS) <= set(self.metrics) or "dataset" not in self.params:
            raise ValueError(f"the metrics lack one of {', '.join(REQUIRED_METRICS)}, or the parameters the data set")

    def write(self, folder: Path, model: "Module", examples: "Tensor", classes: Sequence[str], form: Form) -> None:
        """Write the model and ``result.json`` into the folder; see `pipeline.tracking.models.save_model`.

        Raises
        ------
        UserError
            The folder cannot be written.
        OSError, RuntimeError
            The disk is full.
        """
        remove_result(folder)
        with atomic_file(folder / MODEL_FOLDER) as path:
            models.save_model(model, examples, classes, form, path)
        with atomic_file(folder / RESULT_FILE) as path:
            path.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")


@dataclass(frozen=True)
class Delivered:
    """The address of the logged model, and its version in the registry or None."""

    model_uri: str
    version: int | None


def read_result(folder: Path) -> TrainingResult:
    """Return the result in the folder of a training.

    Raises
    ------
    UserError
        There is none, or it is damaged.
    """
    path = folder / RESULT_FILE
    text = read_text(path)
    try:
        return parse_record(TypeAdapter(TrainingResult), text, finite=False)
    except DamagedError as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and resume again from the checkpoint") from None


def remove_result(folder: Path) -> None:
    """Remove what `TrainingResult.write` wrote to the folder, and the reports."""
    (folder / RESULT_FILE).unlink(missing_ok=True)
    for name in (MODEL_FOLDER, REPORTS_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Return whether the folder has everything that is to be logged."""
    return (folder / REPORTS_FOLDER).is_dir() and (folder / RESULT_FILE).is_file()


def log_result(folder: Path, result: TrainingResult, patience: Patience) -> Delivered:
    """Log model, metrics and tags, in the order of their value, and register the model.

    Raises
    ------
    StoreAway
        The patience is at its end.
    """
    run_id = result.run_id
    model = patience.call(partial(models.log_model, run_id, folder / MODEL_FOLDER))
    patience.call(partial(_log_metrics, result, model.uri))
    patience.call(partial(runs.set_tags, run_id, {**result.tags, models.RUN_DIGEST_TAG: model.sha256}))
    version = None
    if result.model_name:
        register = partial(registry.register_model, result.model_name, model.uri, run_id, model.sha256)
        version = patience.call(register)
    return Delivered(model.uri, version)


def log_reports(folder: Path, result: TrainingResult, patience: Patience) -> None:
    """Log the reports, if they could be written.

    Raises
    ------
    StoreAway
        The patience is at its end.
    """
    reports = folder / REPORTS_FOLDER
    if reports.is_dir():
        patience.call(partial(artifacts.log_artifacts, result.run_id, reports))


def _log_metrics(result: TrainingResult, model_uri: str) -> None:
    """Log what the store lacks: the metrics of the test, linked to the model, and those of each epoch."""
    known = runs.get_run(result.run_id).data.metrics
    if not result.metrics.items() <= known.items():
        model_id = model_uri.removeprefix("models:/")
        runs.log_metrics(result.run_id, result.metrics, when=result.time, model_id=model_id)
    logged = runs.list_logged_steps(result.run_id, next(iter(result.epochs[0].metrics)))
    for entry in result.epochs:
        if entry.epoch not in logged:
            runs.log_metrics(result.run_id, entry.metrics, entry.epoch, when=entry.time)
