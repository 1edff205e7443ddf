"""Versions, models' answers, decisions and locks without a training."""

import subprocess
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlflow import MlflowClient

from pipeline.context import describe_process
from pipeline.evaluation.metrics import Evaluation
from pipeline.promotion.candidate_decision import CandidateDecision
from pipeline.promotion.decisions import (
    Decision,
    apply_decision,
    complete_unfinished_decisions,
    list_decisions,
    record_candidate_decision,
)
from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.promotion.gate import judge_candidate
from pipeline.promotion.lock import PromotionLock, Ticket, promotion_lock, write_ticket
from pipeline.promotion.policy import Policy
from pipeline.tracking import registry, runs
from support.stores import create_model_run, read_aliases, read_stages

NAME = "digits-classifier"
PETS = ("cat", "dog")
MODEL_SHA256 = "f" * 64


def evaluate_pets(correct: int, images: int) -> Evaluation:
    """Return a model that has the first ``correct`` of ``images`` cats and dogs right, and the rest wrong."""
    labels = np.arange(images) % 2
    predictions = np.where(np.arange(images) < correct, labels, 1 - labels)
    return Evaluation(PETS, labels, np.eye(2)[predictions] * 0.8 + 0.1)


def build_version(evaluation: Evaluation | None, version: int = 1, **facts: Any) -> EvaluatedVersion:
    """Return a version with this evaluation; ``facts`` are other attributes."""
    return EvaluatedVersion(version, "8f1c", MODEL_SHA256, evaluation, **facts)


def register_version(name: str = NAME, params: Mapping[str, str] | None = None) -> int:
    """Register a version that has a run, with these parameters, but no model; the registry does not look inside."""
    run_id, model_uri = create_model_run()
    runs.log_params(run_id, params or {"dataset": "digits"})
    return registry.register_model(name, model_uri, run_id)


def build_policy(**rules: Any) -> Policy:
    """Return a policy that has these rules only."""
    defaults = {"confidence": None, "regression": None, "min_test_images": None, "max_test_overlap": None}
    return Policy(**{**defaults, **rules})


def build_candidate_decision(version: int, previous: int | None, *, passes: bool = True) -> CandidateDecision:
    """Return what the gate says of a version with an accuracy of 0.9."""
    policy = build_policy(min_accuracy=0.5 if passes else 0.99)
    candidate = build_version(evaluate_pets(9, 10), version)
    champion = build_version(None, previous) if previous else None
    return CandidateDecision(
        model_name=NAME,
        previous_version=previous,
        candidate=candidate,
        champion=champion,
        dataset="digits",
        dataset_digest="d" * 64,
        policy=policy,
        policy_text="[digits]\n",
        verdict=judge_candidate(candidate, champion, policy),
    )


def record_decision(lock: PromotionLock, version: int, *, passes: bool = True, reason: str = "because") -> Decision:
    """Record what the gate says of a version now."""
    decision = build_candidate_decision(version, registry.alias_version(NAME), passes=passes)
    return record_candidate_decision(lock, decision, reason)


def decide(version: int, *, passes: bool = True, reason: str = "because") -> Decision:
    """Decide about a version as promote.py does."""
    with promotion_lock(NAME) as lock:
        complete_unfinished_decisions(NAME)
        return apply_decision(NAME, record_decision(lock, version, passes=passes, reason=reason))


# --- the state of the registry ---------------------------------------------------------------------------------------


def read_decision_runs(name: str = NAME) -> list[Any]:
    """Return the runs of the decisions, the first one first."""
    experiment = MlflowClient().get_experiment_by_name(f"{name}-promotions")
    if experiment is None:
        return []
    return MlflowClient().search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def check_agreement(number: int, name: str = NAME) -> None:
    """Check that this version alone is in Production, and that the alias points to it."""
    in_production = [version for version, stage in read_stages(name).items() if stage == "Production"]
    assert in_production == [number]
    assert read_aliases(name)["champion"] == number


# --- locks of other processes ----------------------------------------------------------------------------------------


def describe_dead_process() -> str:
    """Return a process of this machine that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    _, _, machine = describe_process().split(" ", 2)
    return f"{process.pid} 0.00 {machine}"


def create_foreign_lock(
    process: str = "4242 0.00 another machine", user: str = "ada", name: str = NAME, number: int = 1
) -> Ticket:
    """Write the ticket that another process would have."""
    ticket = Ticket(number, uuid.uuid4().hex, user, "laptop", process, "2026-11-17T12:00:00.000+00:00")
    write_ticket(name, ticket)
    return ticket


def list_kinds(name: str = NAME) -> list[str]:
    """Return the kind of each decision."""
    return [decision.kind for decision in list_decisions(name)]
