"""The folder of an evaluation: what is in it, read it back, log it to the run.

Everything is logged from there, so what the store did not take can be logged later.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.documents import DamagedError, parse_record
from pipeline.errors import UserError
from pipeline.evaluation.record import (
    CHECKLIST_FILE,
    EVALUATION_FOLDER,
    PREDICTIONS_FILE,
    RECORD_FILE,
    EvaluationRecord,
)
from pipeline.files import find_target
from pipeline.regular_files import read_file
from pipeline.reports.checklist import QUESTIONS, Answer
from pipeline.tracking.artifacts import log_artifacts
from pipeline.tracking.loading import read_model
from pipeline.tracking.models import find_model_uri
from pipeline.tracking.outages import Patience
from pipeline.tracking.registry import ModelReference
from pipeline.tracking.runs import log_metrics

# The files in the order of their value; the metrics are logged between the first and the second group.
RECORD_FILES = (RECORD_FILE, PREDICTIONS_FILE, CHECKLIST_FILE, "checklist.md")
REPORT_FILES = (
    "classification_report.json",
    "confusion_matrix.png",
    "reliability.png",
    "misclassified_examples.png",
    "confusions.png",
)


@dataclass(frozen=True)
class EvaluationReports:
    """The reports of an evaluation, complete on disk.

    Attributes
    ----------
    run_id : of the run that made the model.
    folder : of the files.
    record, answers : what ``evaluation.json`` and ``checklist.json`` say.
    """

    run_id: str
    folder: Path
    record: EvaluationRecord
    answers: list[Answer]


def read_reports(folder: Path, run_id: str) -> EvaluationReports:
    """Return the reports of the run in a folder.

    Raises
    ------
    UserError
        They are missing or damaged.
    """
    try:
        return EvaluationReports(run_id, folder, EvaluationRecord.read(folder, str(folder)), _read_answers(folder))
    except UserError as error:
        raise UserError(f"{error}; run: python evaluate.py --run-id {run_id} --log-mlflow") from None


def find_report_files(folder: Path) -> list[Path]:
    """Return where the files of an evaluation in ``folder`` are written; a link is followed.

    Raises
    ------
    UserError
        One of them cannot be written there.
    """
    return [find_target(folder / name) for name in RECORD_FILES + REPORT_FILES]


def remove_reports(folder: Path) -> None:
    """Remove the files of an earlier evaluation, so that those of two evaluations are never mixed."""
    for file in find_report_files(folder):
        file.unlink(missing_ok=True)


def check_model(reports: EvaluationReports) -> None:
    """Check that the record is about the model of the run, and about its files as they are in the store.

    Raises
    ------
    UserError
        It is not.
    """
    record, run_id = reports.record, reports.run_id
    evaluated_uri = f"models:/{record.model_id}"
    model_uri = find_model_uri(run_id)
    if model_uri != evaluated_uri:
        raise UserError(
            f"{reports.folder} is an evaluation of {evaluated_uri}, the model of run {run_id} is {model_uri}; "
            "name the right --run-id or --output-dir"
        )
    sha256 = read_model(ModelReference(model_uri)).sha256
    if sha256 != record.model_sha256:
        raise UserError(
            f"{reports.folder} is an evaluation of other files (SHA-256 {record.model_sha256[:12]}...) than "
            f"{model_uri} has ({sha256[:12]}...); run: python evaluate.py --run-id {run_id} --log-mlflow"
        )


def log_reports(reports: EvaluationReports, patience: Patience) -> None:
    """Log files and metrics to the run, in the order of their value. It may be repeated, and doubles nothing.

    Raises
    ------
    StoreAway
        The patience is at its end.
    """
    record, run_id = reports.record, reports.run_id
    metrics = record.as_metrics("evaluation")
    patience.call(partial(_log_files, reports, RECORD_FILES))
    patience.call(partial(log_metrics, run_id, metrics, when=record.evaluated_at.timestamp()))
    patience.call(partial(_log_files, reports, REPORT_FILES))


def _log_files(reports: EvaluationReports, names: Sequence[str]) -> None:
    """Log those of the files that exist: a figure may be missing, and the folder may have other files."""
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            file = reports.folder.absolute() / name
            if file.exists():
                Path(directory, name).symlink_to(file)  # needs no space, as a copy would
        log_artifacts(reports.run_id, Path(directory), EVALUATION_FOLDER)


def _read_answers(folder: Path) -> list[Answer]:
    try:
        answers = parse_record(TypeAdapter(list[Answer]), read_file(folder / CHECKLIST_FILE))
    except OSError as error:
        raise UserError(f"{CHECKLIST_FILE} of {folder} cannot be read ({error.strerror})") from None
    except DamagedError as error:
        raise UserError(f"{CHECKLIST_FILE} of {folder} is damaged ({error})") from None
    if [answer.question for answer in answers] != list(QUESTIONS):
        raise UserError(f"{CHECKLIST_FILE} of {folder} does not answer the five questions")
    return answers
