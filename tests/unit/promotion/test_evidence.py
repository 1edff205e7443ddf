import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.promotion.candidate_decision import CandidateDecision
from pipeline.promotion.evidence import evaluate_candidate
from pipeline.tracking import registry, runs
from pipeline.tracking.store import get_client
from support.evidence import find_run, register_evaluated_version
from support.promotions import NAME, decide, register_version

OFF = "confidence = 'off'\nmin_test_images = 'off'\n"
POLICY_TEXT = f"[pets]\nmin_accuracy = 0.5\nregression = 'off'\n{OFF}"
COMPARING_TEXT = f"[pets]\nregression = 'not_worse'\n{OFF}"

pytestmark = pytest.mark.usefixtures("store", "models", "unpinned")


def judge(version: int, policy_text: str = POLICY_TEXT, **options: Any) -> CandidateDecision:
    options = {"min_accuracy": None, "data_dir": Path("nowhere"), **options}
    return evaluate_candidate(registry.get_version(NAME, version), policy_text, **options)


def test_candidate_is_described_by_record_and_run(store: Path) -> None:
    version = register_evaluated_version(store)
    runs.log_metrics(find_run(version), {"train_accuracy": 0.95, "validation_accuracy": 0.9})
    decision = judge(version)
    assert (decision.kind, decision.champion, decision.previous_version) == ("promoted", None, None)
    assert (decision.candidate.version, decision.candidate.run_id) == (version, find_run(version))
    assert decision.candidate.generalisation_gap == pytest.approx(0.05)
    assert (decision.candidate.parameters, decision.candidate.overlap) == (7, 0)
    assert decision.dataset == "pets"


def test_gap_is_unknown_without_metrics(store: Path) -> None:
    assert math.isnan(judge(register_evaluated_version(store)).candidate.generalisation_gap)


def test_given_floor_replaces_that_of_the_policy(store: Path) -> None:
    decision = judge(register_evaluated_version(store), min_accuracy=0.95)
    assert decision.kind == "refused"
    assert decision.policy.min_accuracy == 0.95


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING", "SCHEDULED"])
def test_incomplete_training_is_refused(store: Path, status: str) -> None:
    version = register_evaluated_version(store)
    get_client().set_terminated(find_run(version), status)
    with pytest.raises(
        UserError, match=rf"not complete: it is {status}; .*pytorch_demo\.py --resume {find_run(version)}"
    ):
        judge(version)


def test_record_without_an_overlap_is_refused(store: Path) -> None:
    decision = judge(register_evaluated_version(store, overlap=None))
    assert decision.kind == "refused"
    assert "how many test images are training images is not known" in decision.verdict.reason


def test_overlap_is_counted(store: Path) -> None:
    assert "4 of 10 test images" in judge(register_evaluated_version(store, overlap=4)).verdict.reason


def test_directory_with_the_name_of_a_dataset_is_refused(store: Path) -> None:
    version = register_evaluated_version(store, dataset="/home/me/digits")
    with pytest.raises(UserError, match=r"/home/me/digits has the name of the data set digits.*; rename the directory"):
        judge(version, "[digits]\nmin_accuracy = 0.5\n")


def test_policy_is_described_with_its_text(store: Path) -> None:
    policy = judge(register_evaluated_version(store)).describe_policy()
    assert policy["rules"] == {
        "min_accuracy": 0.5,
        "alpha": 0.05,
        "max_test_overlap": 0,
        "confidence": "off",
        "regression": "off",
        "min_test_images": "off",
    }
    assert policy["text"] == POLICY_TEXT
    assert len(policy["sha256"]) == 64


# --- with a champion ------------------------------------------------------------------------------------------------


def test_champion_passes_as_unchanged(store: Path) -> None:
    version = register_evaluated_version(store)
    decide(version)
    decision = judge(version, COMPARING_TEXT)
    assert (decision.kind, decision.previous_version) == ("unchanged", version)


def test_worse_model_is_refused_without_a_table(store: Path) -> None:
    decide(register_evaluated_version(store, correct=200, images=200))
    decision = judge(register_evaluated_version(store, correct=170, images=200), "", min_accuracy=0.5)
    assert decision.kind == "refused"
    assert "significantly worse" in decision.verdict.reason


def test_champion_is_not_read_if_no_rule_compares(store: Path) -> None:
    decide(register_version())
    decision = judge(register_evaluated_version(store))
    assert decision.champion is not None
    assert decision.champion.evaluation is None
    assert decision.champion.source == "not asked for by the policy"


def test_latency_is_measured_if_the_policy_asks(store: Path) -> None:
    decide(register_evaluated_version(store))
    policy_text = f"[pets]\nmax_latency_ratio = 1000\nregression = 'off'\nmax_test_overlap = 'off'\n{OFF}"
    decision = judge(register_evaluated_version(store), policy_text)
    (check,) = decision.verdict.checks
    assert decision.champion is not None
    assert check.value == pytest.approx(decision.candidate.latency / decision.champion.latency)
    assert 0 < decision.champion.latency < 1
