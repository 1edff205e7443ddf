"""The record of an evaluation: ``evaluation.json`` and ``predictions.csv``. No other module knows their keys."""

import hashlib
import json
import math
import platform
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.context import describe_context, utc_now
from pipeline.documents import DamagedError, check_time, describe_problem, parse_json
from pipeline.errors import UserError
from pipeline.evaluation.metrics import CONFIDENCE_LEVEL, SUMMARY_METRICS, Evaluation
from pipeline.evaluation.predictions import (
    MAX_PREDICTIONS_SIZE,
    PREDICTIONS_FILE,
    format_predictions,
    parse_predictions,
)
from pipeline.regular_files import MAX_RECORD_SIZE, read_file

if TYPE_CHECKING:  # a promotion needs no PyTorch
    from pipeline.data.splits import Dataset

__all__ = [
    "CHECKLIST_FILE",
    "EVALUATION_FOLDER",
    "PREDICTIONS_FILE",
    "RECORD_FILE",
    "EvaluationRecord",
    "build_record",
]

EVALUATION_FOLDER = "evaluation"  # of a run's artifacts
RECORD_FILE = "evaluation.json"
CHECKLIST_FILE = "checklist.json"
CONFUSIONS_LIMIT = 10  # the most frequent ones that are recorded
RECORDED_PACKAGES = ("torch", "torchvision", "mlflow", "scikit-learn", "numpy")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """A part of the record: types are checked strictly, numbers are finite, unknown keys are ignored."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),  # the names of several fields start with "model_"
    )


class AccuracyInterval(_Part):
    """The Wilson interval of the accuracy, and its confidence."""

    confidence: Share
    low: Share
    high: Share


class MacroScores(_Part):
    """Averages in which each class counts the same."""

    precision: Share
    recall: Share
    f1: Share


class ClassScores(_Part):
    """The scores of one class, named as scikit-learn names them."""

    precision: Share
    recall: Share
    f1: Share = Field(validation_alias="f1-score", serialization_alias="f1-score")
    support: Annotated[float, Field(ge=0)]


class Confusion(_Part):
    """How often a class was called another one."""

    label: str
    prediction: str
    count: Annotated[int, Field(ge=1)]


class EvaluationRecord(_Part):
    """Which model was evaluated on which data, how good it is, when, where, by whom and with what.

    Attributes
    ----------
    evaluation : the answers that every figure follows from; they are stored in ``predictions.csv``.
    model_id, model_uri, model_sha256 : of the model, and of its file.
    parameters : how many the model has.
    dataset, dataset_digest : the name of the data set, and the digest of its test split.
    samples : the number of test images.
    overlap : how many of them are also training or validation images of the run; None: its images are not known.
    accuracy, accuracy_interval, loss, macro, classes, confusions : see `Evaluation`; ``classes`` by name.
    images_per_second : how fast the model answered.
    device, versions : what it was computed with.
    time : ISO 8601.
    user, host, job_url : see `pipeline.context`.
    predictions_sha256 : of ``predictions.csv``.
    """

    evaluation: Evaluation = Field(exclude=True)
    model_id: str
    model_uri: str
    model_sha256: Sha256
    parameters: Count
    dataset: str
    dataset_digest: Sha256
    samples: Annotated[int, Field(ge=1)]
    overlap: Count | None = None
    accuracy: Share
    accuracy_interval: AccuracyInterval
    loss: Annotated[float, Field(ge=0)]
    macro: MacroScores
    classes: dict[str, ClassScores]
    confusions: list[Confusion]
    images_per_second: Annotated[float, Field(gt=0)]
    device: str
    versions: dict[str, str]
    time: str
    user: str
    host: str
    job_url: str | None = None
    predictions_sha256: Sha256

    @field_validator("time")
    @classmethod
    def _check_time(cls, time: str) -> str:
        return check_time(time)

    @property
    def evaluated_at(self) -> datetime:
        """When the model was evaluated."""
        return datetime.fromisoformat(self.time)

    def as_metrics(self, prefix: str) -> dict[str, float]:
        """Return what `Evaluation.as_metrics` returned when the model was evaluated, to the last digit."""
        values = (self.loss, self.accuracy, self.macro.precision, self.macro.recall, self.macro.f1)
        return {f"{prefix}_{name}": value for name, value in zip(SUMMARY_METRICS, values, strict=True)}

    def write(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        content = self.model_dump(by_alias=True)
        text = json.dumps(content, indent=2, allow_nan=False)
        (folder / RECORD_FILE).write_text(text, encoding="utf-8")
        (folder / PREDICTIONS_FILE).write_bytes(format_predictions(self.evaluation))

    @classmethod
    def read(cls, folder: Path, origin: str) -> "EvaluationRecord":
        """Return the record in ``folder``.

        Parameters
        ----------
        folder
            The directory of both files.
        origin
            Where the files are from, such as "run 8f1c", for error messages.

        Raises
        ------
        UserError
            A file is missing, damaged, or was not written with the other; or a figure does not follow from the
            predictions.
        """
        text = _read_bytes(folder / RECORD_FILE, origin, MAX_RECORD_SIZE)
        table = _read_bytes(folder / PREDICTIONS_FILE, origin, MAX_PREDICTIONS_SIZE)
        try:
            content = parse_json(text)
        except DamagedError as error:
            raise UserError(f"{RECORD_FILE} of {origin} is damaged ({error})") from None
        if not isinstance(content, dict) or not isinstance(content.get("classes"), dict):
            raise UserError(f"{RECORD_FILE} of {origin} is damaged (it has no classes)")
        classes = tuple(content["classes"])
        if hashlib.sha256(table).hexdigest() != content.get("predictions_sha256"):
            raise UserError(f"{PREDICTIONS_FILE} of {origin} is not the one that {RECORD_FILE} was written with")
        evaluation = parse_predictions(table, classes, origin)
        try:
            record = cls.model_validate(content | {"evaluation": evaluation})
        except ValidationError as error:
            raise UserError(f"{RECORD_FILE} of {origin} is damaged ({describe_problem(error)})") from None
        _check_figures(record, origin)
        return record


def build_record(
    evaluation: Evaluation,
    test: "Dataset",
    *,
    model_id: str,
    model_uri: str,
    model_sha256: str,
    parameters: int,
    images_per_second: float,
    device: str,
    overlap: int | None = None,
) -> EvaluationRecord:
    """Return the record of an evaluation on ``test`` that was made now, by this process."""
    low, high = evaluation.interval
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        versions[package] = version(package)
    context = describe_context()
    return EvaluationRecord(
        evaluation=evaluation,
        model_id=model_id,
        model_uri=model_uri,
        model_sha256=model_sha256,
        parameters=parameters,
        dataset=test.name,
        dataset_digest=test.digest,
        samples=len(test),
        overlap=overlap,
        accuracy=evaluation.accuracy,
        accuracy_interval=AccuracyInterval(confidence=CONFIDENCE_LEVEL, low=low, high=high),
        loss=evaluation.loss,
        macro=MacroScores(precision=evaluation.precision, recall=evaluation.recall, f1=evaluation.f1),
        classes=_class_scores(evaluation),
        confusions=_list_confusions(evaluation),
        images_per_second=images_per_second,
        device=device,
        versions=versions,
        time=utc_now(),
        user=str(context["user"]),
        host=str(context["host"]),
        job_url=context["job_url"],
        predictions_sha256=hashlib.sha256(format_predictions(evaluation)).hexdigest(),
    )


def _list_confusions(evaluation: Evaluation) -> list[Confusion]:
    return [Confusion(**confusion) for confusion in evaluation.most_frequent_confusions(CONFUSIONS_LIMIT)]


def _class_scores(evaluation: Evaluation) -> dict[str, ClassScores]:
    scores = {}
    for index, name in enumerate(evaluation.classes):
        scores[name] = ClassScores(
            precision=float(evaluation.class_precision[index]),
            recall=float(evaluation.class_recall[index]),
            f1=float(evaluation.class_f1[index]),
            support=float(evaluation.class_support[index]),
        )
    return scores


# --- do the figures follow from the predictions? --------------------------------------------------------------------


def _check_figures(record: EvaluationRecord, origin: str) -> None:
    computed = _compute_figures(record.evaluation)
    for name, value in _recorded_figures(record).items():
        # another machine may sum in another order, and older tables have nine digits of each probability
        if not math.isclose(value, computed[name], rel_tol=1e-6, abs_tol=1e-7):
            raise UserError(
                f"{RECORD_FILE} of {origin} says {name} {value}, its predictions give {computed[name]:.6g}: "
                "it was altered"
            )
    if record.confusions != _list_confusions(record.evaluation):
        raise UserError(f"{RECORD_FILE} of {origin} has confusions that its predictions do not give: it was altered")


def _recorded_figures(record: EvaluationRecord) -> dict[str, float]:
    figures = {
        "samples": record.samples,
        "accuracy": record.accuracy,
        "lower end of the interval": record.accuracy_interval.low,
        "upper end of the interval": record.accuracy_interval.high,
        "loss": record.loss,
        "macro precision": record.macro.precision,
        "macro recall": record.macro.recall,
        "macro f1": record.macro.f1,
    }
    for name, scores in record.classes.items():
        figures[f"precision of class {name!r}"] = scores.precision
        figures[f"recall of class {name!r}"] = scores.recall
        figures[f"f1 of class {name!r}"] = scores.f1
        figures[f"support of class {name!r}"] = scores.support
    return figures


def _compute_figures(evaluation: Evaluation) -> dict[str, float]:
    """Return the same figures by the predictions."""
    low, high = evaluation.interval
    figures = {
        "samples": len(evaluation.labels),
        "accuracy": evaluation.accuracy,
        "lower end of the interval": low,
        "upper end of the interval": high,
        "loss": evaluation.loss,
        "macro precision": evaluation.precision,
        "macro recall": evaluation.recall,
        "macro f1": evaluation.f1,
    }
    for index, name in enumerate(evaluation.classes):
        figures[f"precision of class {name!r}"] = evaluation.class_precision[index]
        figures[f"recall of class {name!r}"] = evaluation.class_recall[index]
        figures[f"f1 of class {name!r}"] = evaluation.class_f1[index]
        figures[f"support of class {name!r}"] = evaluation.class_support[index]
    return figures


def _read_bytes(file: Path, origin: str, max_size: int) -> bytes:
    try:
        return read_file(file, max_size)
    except OSError as error:
        raise UserError(f"{file.name} of {origin} cannot be read ({error.strerror})") from None
