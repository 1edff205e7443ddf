import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException, RestException

from pipeline.data import datasets
from pipeline.data.forms import PhotoForm
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import EVALUATION_FOLDER, RECORD_FILE
from pipeline.promotion.candidate_decision import CandidateDecision
from pipeline.promotion.evidence import evaluate_candidate
from pipeline.tracking import artifacts, registry, runs
from support.evidence import (
    FakeModels,
    build_test_split,
    find_run,
    register_evaluated_version,
    register_with_evaluation,
)
from support.promotions import NAME, decide, evaluate_pets, register_version

POLICY_TEXT = "[pets]\nregression = 'not_worse'\nmin_test_images = 'off'\ntest_digest = '{digest}'\n"

pytestmark = pytest.mark.usefixtures("store", "models", "unpinned")


@pytest.fixture
def pets_split(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Return the test split in the data directory: ten pets, the candidate's."""
    split = build_test_split(evaluate_pets(9, 10))
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: split)
    return split


def judge(version: int, data_dir: Path = Path("nowhere")) -> CandidateDecision:
    digest = runs.get_run(find_run(version)).data.params["test_digest"]
    policy_text = POLICY_TEXT.format(digest=digest)
    return evaluate_candidate(registry.get_version(NAME, version), policy_text, min_accuracy=None, data_dir=data_dir)


def outage() -> MlflowException:
    return RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"})


# --- as recorded, or anew -------------------------------------------------------------------------------------------


def test_champion_is_compared_by_its_record(store: Path) -> None:
    decide(register_evaluated_version(store, correct=10))
    decision = judge(register_evaluated_version(store, correct=9))
    assert decision.champion is not None
    assert decision.champion.source == "its recorded evaluation"
    assert decision.verdict.comparison is not None
    assert decision.verdict.comparison.only_champion == 1


def delete_run(champion: int) -> None:
    runs.delete_run(find_run(champion))


def purge_run(champion: int) -> None:
    from mlflow.tracking._tracking_service.utils import _get_store

    runs.delete_run(find_run(champion))
    _get_store()._hard_delete_run(find_run(champion))


def damage_record(champion: int) -> None:
    artifacts.log_text(find_run(champion), "{}", f"{EVALUATION_FOLDER}/{RECORD_FILE}")


@pytest.mark.parametrize(
    ("change", "harm", "reason"),
    [
        ({}, damage_record, "evaluation.json of run .* is damaged"),
        ({}, delete_run, "run .* was deleted"),
        ({}, purge_run, "there is no run"),
        ({"accuracy": 1.0}, None, "says accuracy 1.0, its predictions give 0.9: it was altered"),
        ({"parameters": 8}, None, "says 8 parameters, the model has 7: it was altered"),
        ({"model_sha256": "0" * 64}, None, "belongs to another model"),
        ({"images": 12}, None, "its record is of other data"),
    ],
)
def test_useless_record_is_replaced(
    store: Path, pets_split: Dataset, caplog: pytest.LogCaptureFixture, change: dict[str, Any], harm: Any, reason: str
) -> None:
    champion = register_evaluated_version(store, **change)
    candidate = register_evaluated_version(store)
    decide(champion)
    if harm:
        harm(champion)
    decision = judge(candidate)
    (notice,) = decision.notices
    assert notice.startswith(f"version {champion}, in Production, is evaluated anew: ")
    assert caplog.messages == [notice]
    assert decision.champion is not None
    assert decision.champion.require_evaluation().accuracy == 0.5  # every pet is a cat
    assert (decision.kind, decision.requires_reason) == ("promoted", None)
    assert re.search(reason, notice)


def test_champion_without_a_record_is_evaluated_anew(store: Path, pets_split: Dataset) -> None:
    champion = register_version()
    decide(champion)
    decision = judge(register_evaluated_version(store))
    assert decision.champion is not None
    assert decision.champion.source == f"evaluated anew: run {find_run(champion)} has no recorded evaluation"
    assert (decision.champion.parameters, decision.champion.model_sha256) == (7, "a" * 64)


def test_directory_with_other_images_is_named(store: Path, pets_split: Dataset) -> None:
    decide(register_version())
    candidate = register_evaluated_version(store, images=12)
    with pytest.raises(UserError, match=r"elsewhere has another pets than the candidate .*--data-dir"):
        judge(candidate, Path("elsewhere"))


# --- a model that is broken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [UserError("its files are gone"), FileNotFoundError(2, "gone", "model.pt2")])
def test_model_that_does_not_open_requires_a_reason(store: Path, models: FakeModels, error: Exception) -> None:
    champion = register_evaluated_version(store)
    decide(champion)
    models.errors[champion] = error
    decision = judge(register_evaluated_version(store))
    assert decision.kind == "promoted"
    assert decision.requires_reason in decision.notices
    assert str(decision.requires_reason).startswith(f"version {champion}, in Production, cannot be loaded (")
    assert decision.verdict.comparison is None
    assert decision.champion is not None
    assert decision.champion.source.startswith("none: it cannot be loaded (")


def test_model_that_does_not_run_requires_a_reason(store: Path, models: FakeModels, pets_split: Dataset) -> None:
    champion = register_version()
    decide(champion)
    models.load_errors[champion] = UserError("it is refused")
    decision = judge(register_evaluated_version(store))
    assert "cannot be evaluated (it is refused)" in str(decision.requires_reason)
    assert len(decision.notices) == 2


def test_model_of_other_images_requires_a_reason(store: Path, models: FakeModels, pets_split: Dataset) -> None:
    champion = register_version()
    decide(champion)
    models.facts[champion] = {"form": PhotoForm((3, 32, 32))}
    decision = judge(register_evaluated_version(store))
    assert "takes images of shape (3, 32, 32), and those of pets have (1, 28, 28)" in str(decision.requires_reason)


def test_outage_is_not_taken_for_a_broken_model(store: Path, models: FakeModels) -> None:
    champion = register_evaluated_version(store)
    decide(champion)
    models.errors[champion] = outage()
    with pytest.raises(RestException):
        judge(register_evaluated_version(store))


def test_outage_behind_an_error_is_found(store: Path, models: FakeModels) -> None:
    champion = register_evaluated_version(store)
    decide(champion)
    error = UserError("cannot get it")
    error.__context__ = outage()
    models.errors[champion] = error
    with pytest.raises(UserError, match="cannot get it"):
        judge(register_evaluated_version(store))


def test_outage_is_not_taken_for_a_missing_record(
    store: Path, models: FakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, candidate = register_evaluated_version(store), register_evaluated_version(store)
    decide(champion)
    list_paths = artifacts.list_artifact_paths

    def fail_for_the_champion(run_id: str, folder: str | None = None) -> set[str]:
        if run_id == find_run(champion):
            raise outage()
        return list_paths(run_id, folder)

    monkeypatch.setattr(artifacts, "list_artifact_paths", fail_for_the_champion)
    with pytest.raises(RestException):
        judge(candidate)


# --- other classes --------------------------------------------------------------------------------------------------


@pytest.fixture
def pets_and_owls(monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """Return a perfect model of three classes, of which it has four images each; they are in the data directory."""
    labels = np.arange(12) % 3
    evaluation = Evaluation(("owl", "dog", "cat"), labels, np.eye(3)[labels])
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: build_test_split(evaluation))
    return evaluation


def test_models_are_compared_on_common_classes(store: Path, models: FakeModels, pets_and_owls: Evaluation) -> None:
    champion = register_evaluated_version(store)
    decide(champion)
    candidate = register_with_evaluation(store, pets_and_owls)
    models.facts[candidate] = {"classes": pets_and_owls.classes}
    decision = judge(candidate)
    comparison = decision.verdict.comparison
    assert comparison is not None
    assert (comparison.images, comparison.candidate_correct, comparison.champion_correct) == (8, 8, 4)
    assert comparison.left_out == ("owl",)
    assert decision.notices[-1] == (
        f"version {champion}, in Production, knows other classes: the two are compared on the 8 of 12 test images "
        "whose class both know; left out: 'owl'"
    )
    assert decision.requires_reason is None


def test_no_common_class_requires_a_reason(store: Path, models: FakeModels, pets_and_owls: Evaluation) -> None:
    champion = register_evaluated_version(store)
    decide(champion)
    models.facts[champion] = {"classes": ("ant", "bee")}
    candidate = register_with_evaluation(store, pets_and_owls)
    models.facts[candidate] = {"classes": pets_and_owls.classes}
    decision = judge(candidate)
    assert "knows none of the classes of the test images" in str(decision.requires_reason)
    assert decision.verdict.comparison is None
