"""Versions, models' answers, decisions and locks without a training."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mlflow import MlflowClient

from pipeline.context import describe_process
from pipeline.evaluation.metrics import Evaluation
from pipeline.promotion.decisions import apply_decision, complete_unfinished_decisions, record_candidate_decision
from pipeline.promotion.evidence import CandidateDecision
from pipeline.promotion.gate import EvaluatedVersion, judge_candidate
from pipeline.promotion.lock import PromotionLock, promotion_lock
from pipeline.promotion.policy import Policy
from pipeline.tracking import locks, registry, runs
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


def build_candidate_decision(version: int, previous: int | None, *, passes: bool = True) -> CandidateDecision:
    """Return what the gate says of a version with an accuracy of 0.9."""
    policy = Policy(min_accuracy=0.5 if passes else 0.99)
    candidate = build_version(evaluate_pets(9, 10), version)
    champion = build_version(None, previous) if previous else None
    return CandidateDecision(
        model_name=NAME,
        candidate=candidate,
        champion=champion,
        dataset="digits",
        dataset_digest="d" * 64,
        policy=policy,
        policy_text="[digits]\n",
        verdict=judge_candidate(candidate, champion, policy),
    )


def record_decision(lock: PromotionLock, version: int, *, passes: bool = True) -> str:
    """Record what the gate says of a version now; return the run."""
    decision = build_candidate_decision(version, registry.alias_version(NAME), passes=passes)
    return record_candidate_decision(lock, decision, "because")


def decide(version: int, *, passes: bool = True) -> str:
    """Decide about a version as promote.py does; return the run."""
    with promotion_lock(NAME) as lock:
        complete_unfinished_decisions(NAME)
        decision_run_id = record_decision(lock, version, passes=passes)
        apply_decision(NAME, decision_run_id)
    return decision_run_id


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


def create_foreign_lock(process: str = "4242 0.00 another machine", user: str = "ada", name: str = NAME) -> None:
    """Create the lock that another process would have."""
    tags = {"user": user, "host": "laptop", "process": process, "time": "2026-11-17T12:00:00.000+00:00"}
    assert locks.create_lock(name, {**tags, "nonce": f"{user} {process}"})


def list_kinds(decision_runs: Sequence[Any]) -> list[str | None]:
    """Return the kind of each decision; None for a run without one."""
    return [run.data.tags.get("decision.kind") for run in decision_runs]
