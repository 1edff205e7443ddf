"""Gather what the gate decides on: the recorded evaluation of the candidate, and the champion on the same images."""

import hashlib
import logging
import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.data.catalog import short_name
from pipeline.errors import UserError
from pipeline.evaluation.record import (
    EVALUATION_FOLDER,
    PREDICTIONS_FILE,
    RECORD_FILE,
    EvaluationRecord,
)
from pipeline.promotion.gate import EvaluatedVersion, Verdict, judge_candidate, replace_nan
from pipeline.promotion.policy import Policy, parse_policy
from pipeline.tracking import artifacts, models, registry, runs
from pipeline.tracking.registry import ModelVersion
from pipeline.tracking.runs import Run

logger = logging.getLogger(__name__)

PROMOTED, REFUSED, UNCHANGED = "promoted", "refused", "unchanged"
RECORD_PATH = f"{EVALUATION_FOLDER}/{RECORD_FILE}"  # of a run's artifacts
PREDICTIONS_PATH = f"{EVALUATION_FOLDER}/{PREDICTIONS_FILE}"


# --- the recorded evaluation -----------------------------------------------------------------------------------------


def has_evaluation(run_id: str) -> bool:
    """Return whether ``evaluate.py --log-mlflow`` recorded an evaluation in the run."""
    return RECORD_PATH in artifacts.list_artifact_paths(run_id, EVALUATION_FOLDER)


def load_evaluation(run_id: str, model_uri: str) -> EvaluationRecord:
    """Return what ``evaluate.py --log-mlflow`` recorded in the run about the model at ``model_uri``.

    Raises
    ------
    UserError
        Nothing is recorded, or it is damaged or altered, or it belongs to another model file than the registered one,
        or to other test images than the run's.
    """
    command = f"run: python evaluate.py --run-id {run_id} --log-mlflow"
    paths = artifacts.list_artifact_paths(run_id, EVALUATION_FOLDER)
    if RECORD_PATH not in paths:
        raise UserError(f"run {run_id} has no recorded evaluation; {command}")
    try:
        record = _download_record(run_id, paths)
    except UserError as error:
        raise UserError(f"{error}; {command}") from None
    problem = _check_model_file(record, model_uri) or _check_test_images(record, runs.get_run(run_id))
    if problem:
        raise UserError(f"{RECORD_FILE} of run {run_id} {problem}; {command}")
    return record


def _download_record(run_id: str, paths: set[str]) -> EvaluationRecord:
    """Return the record; ``paths`` are the files that the run has in the folder of the evaluation."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for path in (RECORD_PATH, PREDICTIONS_PATH):
            if path in paths:  # where it lands below the directory depends on the store
                folder = artifacts.download_artifact(run_id, path, Path(directory)).parent
        return EvaluationRecord.read(folder, f"run {run_id}")


def _check_model_file(record: EvaluationRecord, model_uri: str) -> str | None:
    """Return what is wrong if the record belongs to another model file."""
    sha256 = models.compute_model_sha256(model_uri)
    if sha256 == record.model_sha256:
        return None
    recorded = f"SHA-256 {record.model_sha256[:12]}..."
    return f"belongs to another model ({recorded}, the registered file has {sha256[:12]}...)"


def _check_test_images(record: EvaluationRecord, run: Run) -> str | None:
    """Return what is wrong if the record was made on other test images than the run's."""
    dataset = run.data.params.get("dataset", record.dataset)
    digest = run.data.params.get("test_digest", record.dataset_digest)
    has_same_name = short_name(record.dataset) == short_name(dataset)  # one's own data may have been moved
    if has_same_name and record.dataset_digest == digest:
        return None
    recorded = f"{record.dataset} ({record.dataset_digest[:12]}...)"
    return f"was made on {recorded}, the run's test set is {dataset} ({digest[:12]}...)"


# --- candidate and champion ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CandidateDecision:
    """What follows for a candidate, and from what.

    Attributes
    ----------
    model_name : of the registered model.
    candidate, champion : the version in question, and the one that is in Production, or None.
    dataset, dataset_digest : of the test images.
    policy, policy_text : the rules, and the text of the file that they are from.
    verdict : of the gate.
    """

    model_name: str
    candidate: EvaluatedVersion
    champion: EvaluatedVersion | None
    dataset: str
    dataset_digest: str
    policy: Policy
    policy_text: str
    verdict: Verdict

    @property
    def previous_version(self) -> int | None:
        """The version that is in Production."""
        return self.champion.version if self.champion else None

    @property
    def kind(self) -> str:
        """`PROMOTED`, `REFUSED`, or `UNCHANGED` if the candidate passed and is in Production already."""
        if not self.verdict.passed:
            return REFUSED
        return UNCHANGED if self.previous_version == self.candidate.version else PROMOTED

    def as_dict(self) -> dict[str, Any]:
        """Return the decision for JSON."""
        comparison = self.verdict.comparison
        return {
            "model_name": self.model_name,
            "version": self.candidate.version,
            "decision": self.kind,
            "checks": [replace_nan(asdict(check)) for check in self.verdict.checks],
            "previous_version": self.previous_version,
            "comparison": replace_nan(asdict(comparison)) if comparison else None,
            "candidate": self.candidate.as_dict(),
            "champion": self.champion.as_dict() if self.champion else None,
        }

    def describe_policy(self) -> dict[str, Any]:
        """Return the rules that are applied, the SHA-256 of the file that they are from, and its text."""
        return {
            "rules": self.policy.model_dump(exclude_none=True),
            "sha256": hashlib.sha256(self.policy_text.encode()).hexdigest(),
            "text": self.policy_text,
        }


def evaluate_candidate(
    version: ModelVersion, policy_text: str, min_accuracy: float | None, data_dir: Path
) -> CandidateDecision:
    """Return what the gate decides about ``version`` under the policy, compared with the model in Production now.

    Parameters
    ----------
    version
        The candidate.
    policy_text
        Of ``gates.toml``.
    min_accuracy
        Replaces that of the policy if it is not None.
    data_dir
        Where the test images lie, in case the champion has to be evaluated anew.

    Raises
    ------
    UserError
        The evidence is missing, damaged or altered, or the policy is bad.
    """
    record = load_evaluation(str(version.run_id), str(version.source))
    policy = parse_policy(policy_text, short_name(record.dataset), min_accuracy)
    candidate = _describe_recorded(version, record)
    champion = _describe_champion(version, candidate, record, policy, data_dir)
    if policy.max_latency_ratio and champion and champion.version != candidate.version:
        candidate, champion = _measure_latencies(version.name, candidate, champion)
    return CandidateDecision(
        model_name=version.name,
        candidate=candidate,
        champion=champion,
        dataset=record.dataset,
        dataset_digest=record.dataset_digest,
        policy=policy,
        policy_text=policy_text,
        verdict=judge_candidate(candidate, champion, policy),
    )


def _describe_recorded(version: ModelVersion, record: EvaluationRecord) -> EvaluatedVersion:
    metrics = runs.get_run(str(version.run_id)).data.metrics
    train_accuracy = metrics.get("train_accuracy", math.nan)
    validation_accuracy = metrics.get("validation_accuracy", math.nan)
    return EvaluatedVersion(
        version=int(version.version),
        run_id=str(version.run_id),
        model_sha256=record.model_sha256,
        evaluation=record.evaluation,
        generalisation_gap=train_accuracy - validation_accuracy,
        parameters=record.parameters,
    )


def _describe_champion(
    version: ModelVersion, candidate: EvaluatedVersion, record: EvaluationRecord, policy: Policy, data_dir: Path
) -> EvaluatedVersion | None:
    champion = registry.get_champion(version.name)
    if champion is None:
        return None
    if champion.version == version.version:
        return candidate
    if not policy.compares:
        return EvaluatedVersion(
            int(champion.version), str(champion.run_id), None, None, source="not asked for by the policy"
        )
    return champion_evidence(champion, record.dataset, record.dataset_digest, data_dir)


def champion_evidence(champion: ModelVersion, dataset: str, digest: str, data_dir: Path) -> EvaluatedVersion:
    """Return the champion, evaluated on the test images with this digest: as recorded if it was, else anew.

    Raises
    ------
    UserError
        Its record is damaged or altered; it has to be evaluated anew, and ``data_dir`` has other test images.
    """
    reason = "nothing was recorded"
    if champion.run_id and has_evaluation(champion.run_id):
        record = load_evaluation(champion.run_id, str(champion.source))
        if record.dataset_digest == digest:
            return _describe_recorded(champion, record)
        reason = "its record is of other data"
    logger.info("version %s, in Production, is evaluated anew: %s", champion.version, reason)
    return _evaluate_anew(champion, dataset, digest, data_dir, f"evaluated anew: {reason}")


def _evaluate_anew(champion: ModelVersion, dataset: str, digest: str, data_dir: Path, source: str) -> EvaluatedVersion:
    # these bring PyTorch's data tools, which a promotion usually does not need
    from pipeline.data.datasets import load_test_split
    from pipeline.evaluation.inference import choose_device, compute_logits, count_parameters
    from pipeline.evaluation.metrics import Evaluation

    test = load_test_split(dataset, data_dir)
    if test.digest != digest:
        raise UserError(
            f"{data_dir} has another {dataset} than the candidate was evaluated on; "
            "name the right directory with --data-dir, or run evaluate.py --log-mlflow again"
        )
    device = choose_device("auto")
    stored = models.load_model(f"models:/{champion.name}/{champion.version}")
    logits = compute_logits(stored.module.to(device), test.images, device=device)
    return EvaluatedVersion(
        version=int(champion.version),
        run_id=str(champion.run_id),
        model_sha256=stored.sha256,
        evaluation=Evaluation.from_logits(logits, test.labels, test.classes),
        source=source,
        parameters=count_parameters(stored.module),
    )


def _measure_latencies(
    name: str, candidate: EvaluatedVersion, champion: EvaluatedVersion
) -> tuple[EvaluatedVersion, EvaluatedVersion]:
    """Return both with the latency of their models, measured alternately on this machine."""
    from pipeline.evaluation.inference import measure_latencies

    logger.info("measuring the latency of both models alternately")
    candidate_model = models.load_model(f"models:/{name}/{candidate.version}").module
    champion_model = models.load_model(f"models:/{name}/{champion.version}").module
    candidate_latency, champion_latency = measure_latencies([candidate_model, champion_model])
    return replace(candidate, latency=candidate_latency), replace(champion, latency=champion_latency)
