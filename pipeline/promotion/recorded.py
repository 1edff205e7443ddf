"""Read what ``evaluate.py --log-mlflow`` recorded in a run, and check that it is about a model."""

import math
import tempfile
from pathlib import Path

from pipeline.data.class_names import find_class_difference
from pipeline.errors import UserError
from pipeline.evaluation.record import EVALUATION_FOLDER, PREDICTIONS_FILE, RECORD_FILE, EvaluationRecord
from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.tracking import artifacts
from pipeline.tracking.loading import OpenModel
from pipeline.tracking.registry import ModelVersion
from pipeline.tracking.runs import Run

RECORD_PATH = f"{EVALUATION_FOLDER}/{RECORD_FILE}"  # of a run's artifacts
PREDICTIONS_PATH = f"{EVALUATION_FOLDER}/{PREDICTIONS_FILE}"


def load_evaluation(run_id: str, model: OpenModel) -> EvaluationRecord:
    """Return what is recorded in the run about the model; an error names the command that records it.

    Raises
    ------
    UserError
        As `read_evaluation`.
    """
    check_origin(run_id, model)
    try:
        return read_evaluation(run_id, model)
    except UserError as error:
        raise UserError(f"{error}; run: python evaluate.py --run-id {run_id} --log-mlflow") from None


def check_origin(run_id: str, model: OpenModel) -> None:
    """Check that the store says that the run made the model.

    Raises
    ------
    UserError
        Another run made it.
    """
    if model.run_id != run_id:
        raise UserError(
            f"{model.reference.uri} is registered as the model of run {run_id}, but run {model.run_id or 'unknown'} "
            "made it; register it with the run that made it"
        )


def read_evaluation(run_id: str, model: OpenModel) -> EvaluationRecord:
    """Return what is recorded in the run about the model.

    Raises
    ------
    UserError
        Nothing is recorded, or it is damaged or altered, or it belongs to another model.
    """
    paths = artifacts.list_artifact_paths(run_id, EVALUATION_FOLDER)
    if RECORD_PATH not in paths:
        raise UserError(f"run {run_id} has no recorded evaluation")
    record = _download_record(run_id, paths)
    problem = _find_problem(record, model)
    if problem:
        raise UserError(f"{RECORD_FILE} of run {run_id} {problem}")
    return record


def _download_record(run_id: str, paths: set[str]) -> EvaluationRecord:
    """Return the record; ``paths`` are the files that the run has in the folder of the evaluation."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for path in (RECORD_PATH, PREDICTIONS_PATH):
            if path in paths:  # where it lands below the directory depends on the store
                folder = artifacts.download_artifact(run_id, path, Path(directory)).parent
        return EvaluationRecord.read(folder, f"run {run_id}")


def _find_problem(record: EvaluationRecord, model: OpenModel) -> str | None:
    """Return what is wrong if the record is not about the model."""
    if record.model_sha256 != model.sha256:
        recorded = f"SHA-256 {record.model_sha256[:12]}..."
        return f"belongs to another model ({recorded}, the registered one has {model.sha256[:12]}...)"
    difference = find_class_difference(record.evaluation.classes, model.classes)
    if difference:
        return f"has other classes than the model: its {difference}"
    if record.parameters != model.program.parameters:
        return f"says {record.parameters:,} parameters, the model has {model.program.parameters:,}: it was altered"
    return None


def describe_recorded(version: ModelVersion, record: EvaluationRecord, run: Run) -> EvaluatedVersion:
    """Return the version with its recorded evaluation, and with what its run says of the training."""
    train_accuracy = run.data.metrics.get("train_accuracy", math.nan)
    validation_accuracy = run.data.metrics.get("validation_accuracy", math.nan)
    return EvaluatedVersion(
        version=int(version.version),
        run_id=run.info.run_id,
        model_sha256=record.model_sha256,
        evaluation=record.evaluation,
        generalisation_gap=train_accuracy - validation_accuracy,
        parameters=record.parameters,
        overlap=math.nan if record.overlap is None else record.overlap,
    )
