from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.evaluation.record import EVALUATION_FOLDER, RECORD_FILE, EvaluationRecord
from pipeline.promotion.recorded import load_evaluation
from pipeline.tracking import artifacts, registry
from support.evidence import FakeModels, find_run, register_evaluated_version
from support.promotions import NAME, register_version

pytestmark = pytest.mark.usefixtures("store")


def load(models: FakeModels, version: int) -> EvaluationRecord:
    return load_evaluation(find_run(version), models.read_model(registry.reference_version(NAME, version)))


def test_record_is_read_from_the_run(store: Path, models: FakeModels) -> None:
    assert load(models, register_evaluated_version(store)).accuracy == 0.9


def test_run_without_a_record_names_the_command(models: FakeModels) -> None:
    version = register_version()
    with pytest.raises(UserError, match=rf"no recorded evaluation; run: .*--run-id {find_run(version)} --log-mlflow"):
        load(models, version)


def test_damaged_record_names_run_and_command(store: Path, models: FakeModels) -> None:
    version = register_evaluated_version(store)
    artifacts.log_text(find_run(version), "{}", f"{EVALUATION_FOLDER}/{RECORD_FILE}")
    with pytest.raises(UserError, match=rf"of run {find_run(version)} is damaged .*; run: python evaluate\.py"):
        load(models, version)


def test_altered_record_is_refused(store: Path, models: FakeModels) -> None:
    version = register_evaluated_version(store, accuracy=1.0)
    with pytest.raises(UserError, match=r"says accuracy 1\.0, its predictions give 0\.9: it was altered; run: "):
        load(models, version)


def test_missing_predictions_are_named(models: FakeModels) -> None:
    version = register_version()
    artifacts.log_text(find_run(version), "{}", f"{EVALUATION_FOLDER}/{RECORD_FILE}")
    with pytest.raises(UserError, match=r"predictions\.csv of run \w+ cannot be read"):
        load(models, version)


def test_record_of_another_model_is_refused(store: Path, models: FakeModels) -> None:
    version = register_evaluated_version(store, model_sha256="0" * 64)
    with pytest.raises(UserError, match=r"belongs to another model \(SHA-256 000000000000\.\.\., .* has aaaaaaaaaaaa"):
        load(models, version)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": ("dog", "cat")}, "has other classes than the model: its label 0 means 'cat', not 'dog'"),
        ({"classes": ("cat", "dog", "owl")}, "its label 2, 'owl', is missing"),
        ({"program": SimpleNamespace(parameters=8)}, "says 7 parameters, the model has 8: it was altered"),
        ({"run_id": "8f1c"}, "but run 8f1c made it; register it with the run that made it"),
    ],
)
def test_model_that_disagrees_is_named(store: Path, models: FakeModels, facts: dict[str, Any], message: str) -> None:
    version = register_evaluated_version(store)
    models.facts[version] = facts
    with pytest.raises(UserError, match=message):
        load(models, version)
