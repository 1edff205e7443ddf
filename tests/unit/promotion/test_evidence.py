import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.data import datasets
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import EVALUATION_FOLDER, RECORD_FILE
from pipeline.promotion.evidence import CandidateDecision, evaluate_candidate, has_evaluation, load_evaluation
from pipeline.tracking import artifacts, models, registry, runs
from pipeline.tracking.models import StoredModel
from support.evaluations import MODEL_SHA256, record_evaluation
from support.promotions import NAME, decide, evaluate_pets, register_version

POLICY_TEXT = "[pets]\nmin_accuracy = 0.5\n"
COMPARING_TEXT = "[pets]\nregression = 'not_worse'\n"

pytestmark = pytest.mark.usefixtures("store", "model_files")


@pytest.fixture
def model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every version have a model, whose answers are those of `ConstantModel`."""
    monkeypatch.setattr(models, "compute_model_sha256", lambda _: MODEL_SHA256)
    stored = StoredModel(ConstantModel(), "m-1", "8f1c", "models:/m-1", ("cat", "dog"), MODEL_SHA256, 100)
    monkeypatch.setattr(models, "load_model", lambda _: stored)


class ConstantModel(nn.Module):
    """Takes every image for a cat."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        return self.scores.expand(len(images), 2)


def build_test_split(evaluation: Evaluation) -> Dataset:
    images = torch.zeros(len(evaluation.labels), 1, 28, 28, dtype=torch.uint8)
    return Dataset("pets", images, torch.from_numpy(evaluation.labels), evaluation.classes, "")


def register_evaluated_version(folder: Path, correct: int = 9, images: int = 10, **changes: Any) -> int:
    """Register a version with a recorded evaluation; ``changes`` are other values of the record."""
    evaluation = evaluate_pets(correct, images)
    test = build_test_split(evaluation)
    version = register_version(params={"dataset": "pets", "test_digest": test.digest})
    record = record_evaluation(evaluation, test)
    folder = folder / f"version {version}"
    folder.mkdir()
    record.model_copy(update=changes).write(folder)
    artifacts.log_artifacts(find_run(version), folder, EVALUATION_FOLDER)
    return version


def find_run(version: int) -> str:
    return str(registry.get_version(NAME, version).run_id)


def load(version: int) -> Any:
    return load_evaluation(find_run(version), "models:/m-1")


def judge(version: int, policy_text: str = POLICY_TEXT, data_dir: Path = Path("nowhere")) -> CandidateDecision:
    return evaluate_candidate(registry.get_version(NAME, version), policy_text, None, data_dir)


# --- the recorded evaluation ----------------------------------------------------------------------------------------


def test_record_is_read_from_the_run(store: Path) -> None:
    version = register_evaluated_version(store)
    assert has_evaluation(find_run(version))
    assert load(version).accuracy == 0.9


def test_run_without_a_record_names_the_command() -> None:
    version = register_version()
    assert not has_evaluation(find_run(version))
    with pytest.raises(UserError, match=rf"no recorded evaluation; run: .*--run-id {find_run(version)} --log-mlflow"):
        load(version)


def test_damaged_record_names_run_and_command(store: Path) -> None:
    version = register_evaluated_version(store)
    artifacts.log_text(find_run(version), "{}", f"{EVALUATION_FOLDER}/{RECORD_FILE}")
    with pytest.raises(UserError, match=rf"of run {find_run(version)} is damaged .*; run: python evaluate\.py"):
        load(version)


def test_altered_record_is_refused(store: Path) -> None:
    version = register_evaluated_version(store, accuracy=1.0)
    with pytest.raises(UserError, match=r"says accuracy 1\.0, its predictions give 0\.9: it was altered; run: "):
        load(version)


def test_missing_predictions_are_named(store: Path) -> None:
    version = register_version()
    artifacts.log_text(find_run(version), "{}", f"{EVALUATION_FOLDER}/{RECORD_FILE}")
    with pytest.raises(UserError, match=r"predictions\.csv of run \w+ cannot be read"):
        load(version)


def test_record_of_another_model_is_refused(store: Path) -> None:
    version = register_evaluated_version(store, model_sha256="0" * 64)
    with pytest.raises(UserError, match=r"belongs to another model \(SHA-256 000000000000\.\.\., .* has aaaaaaaaaaaa"):
        load(version)


@pytest.mark.parametrize("change", [{"dataset": "birds"}, {"dataset_digest": "0" * 64}])
def test_record_of_other_images_is_refused(store: Path, change: dict[str, Any]) -> None:
    version = register_evaluated_version(store, **change)
    with pytest.raises(UserError, match=r"was made on \w+ \(.*\), the run's test set is pets"):
        load(version)


def test_data_of_ones_own_may_have_moved(store: Path) -> None:
    version = register_evaluated_version(store, dataset="/elsewhere/pets")
    assert load(version).dataset == "/elsewhere/pets"


# --- the candidate --------------------------------------------------------------------------------------------------


def test_candidate_is_described_by_record_and_run(store: Path) -> None:
    version = register_evaluated_version(store)
    runs.log_metrics(find_run(version), {"train_accuracy": 0.95, "validation_accuracy": 0.9})
    decision = judge(version)
    assert (decision.kind, decision.champion, decision.previous_version) == ("promoted", None, None)
    assert (decision.candidate.version, decision.candidate.run_id) == (version, find_run(version))
    assert decision.candidate.generalisation_gap == pytest.approx(0.05)
    assert decision.candidate.parameters == 7
    assert decision.dataset == "pets"


def test_gap_is_unknown_without_metrics(store: Path) -> None:
    assert math.isnan(judge(register_evaluated_version(store)).candidate.generalisation_gap)


def test_given_floor_replaces_that_of_the_policy(store: Path) -> None:
    version = registry.get_version(NAME, register_evaluated_version(store))
    decision = evaluate_candidate(version, POLICY_TEXT, 0.95, store)
    assert decision.kind == "refused"
    assert decision.policy.min_accuracy == 0.95


def test_champion_passes_as_unchanged(store: Path) -> None:
    version = register_evaluated_version(store)
    decide(version)
    decision = judge(version, COMPARING_TEXT)
    assert (decision.kind, decision.previous_version) == ("unchanged", version)


def test_policy_is_described_with_its_text(store: Path) -> None:
    policy = judge(register_evaluated_version(store)).describe_policy()
    assert policy["rules"] == {"min_accuracy": 0.5, "alpha": 0.05}
    assert policy["text"] == POLICY_TEXT
    assert policy["sha256"] == "f364fca4d4f06029ef39659da6133f9a7fc0cc5b7daf883515bfc8ce9e822315"


# --- the champion ---------------------------------------------------------------------------------------------------


def test_champion_is_compared_by_its_record(store: Path) -> None:
    decide(register_evaluated_version(store, correct=10))
    decision = judge(register_evaluated_version(store, correct=9), COMPARING_TEXT)
    assert decision.champion is not None
    assert decision.champion.source == "its recorded evaluation"
    assert decision.verdict.comparison is not None
    assert decision.verdict.comparison.only_champion == 1


def test_champion_is_not_read_if_no_rule_compares(store: Path) -> None:
    decide(register_version())
    decision = judge(register_evaluated_version(store))
    assert decision.champion is not None
    assert decision.champion.evaluation is None
    assert decision.champion.source == "not asked for by the policy"


def test_damaged_record_of_the_champion_is_named(store: Path) -> None:
    champion = register_evaluated_version(store)
    decide(champion)
    artifacts.log_text(find_run(champion), "{}", f"{EVALUATION_FOLDER}/{RECORD_FILE}")
    with pytest.raises(UserError, match=rf"of run {find_run(champion)} is damaged"):
        judge(register_evaluated_version(store), COMPARING_TEXT)


@pytest.fixture
def pets_split(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Return the test split in the data directory: ten pets, the candidate's."""
    split = build_test_split(evaluate_pets(9, 10))
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: split)
    return split


def test_champion_without_a_record_is_evaluated_anew(
    store: Path, pets_split: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    champion = register_version()
    decide(champion)
    decision = judge(register_evaluated_version(store), COMPARING_TEXT)
    assert decision.champion is not None
    assert decision.champion.source == "evaluated anew: nothing was recorded"
    assert decision.champion.require_evaluation().accuracy == 0.5  # every pet is a cat
    assert decision.champion.parameters == 2
    assert caplog.messages == [f"version {champion}, in Production, is evaluated anew: nothing was recorded"]


def test_champion_recorded_on_other_images_is_evaluated_anew(store: Path, pets_split: Dataset) -> None:
    decide(register_evaluated_version(store, images=12))
    decision = judge(register_evaluated_version(store), COMPARING_TEXT)
    assert decision.champion is not None
    assert decision.champion.source == "evaluated anew: its record is of other data"
    assert len(decision.champion.require_evaluation().labels) == len(pets_split)


def test_directory_with_other_images_is_named(store: Path, pets_split: Dataset) -> None:
    decide(register_version())
    candidate = register_evaluated_version(store, images=12)
    with pytest.raises(UserError, match=r"elsewhere has another pets than the candidate .*--data-dir"):
        judge(candidate, COMPARING_TEXT, Path("elsewhere"))


def test_latency_is_measured_if_the_policy_asks(store: Path) -> None:
    decide(register_evaluated_version(store))
    decision = judge(register_evaluated_version(store), "[pets]\nmax_latency_ratio = 1000\n")
    (check,) = decision.verdict.checks
    assert decision.champion is not None
    assert check.value == pytest.approx(decision.candidate.latency / decision.champion.latency)
    assert 0 < decision.champion.latency < 1
