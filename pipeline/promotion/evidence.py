"""Gather what the gate decides on: the recorded evaluation of the candidate, and the champion on the same images."""

import logging
from dataclasses import replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.evaluation.record import EvaluationRecord
from pipeline.promotion.candidate_decision import CandidateDecision
from pipeline.promotion.champion import ChampionEvidence, gather_champion_evidence
from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.promotion.gate import judge_candidate
from pipeline.promotion.pinned_test_set import check_test_set, describe_test_set
from pipeline.promotion.policy import find_table_name, parse_policy
from pipeline.promotion.present import Present, read_present
from pipeline.promotion.recorded import describe_recorded, load_evaluation
from pipeline.tracking import loading, registry, runs
from pipeline.tracking.lost_runs import CHECKPOINT_DIR, resume_command
from pipeline.tracking.registry import ModelVersion
from pipeline.tracking.runs import Run

logger = logging.getLogger(__name__)


def evaluate_candidate(
    version: ModelVersion,
    policy_text: str,
    *,
    min_accuracy: float | None,
    data_dir: Path,
    new_test_set: bool = False,
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
    new_test_set
        Whether the test set may be another one than that on which the model in Production was decided about.

    Raises
    ------
    UserError
        The training is not complete; the evidence is missing, damaged, altered or of another test set; or the policy is
        bad.
    """
    run = runs.get_run(str(version.run_id))
    _check_finished(run)
    model = loading.read_model(registry.reference_version(version.name, int(version.version)))
    record = load_evaluation(run.info.run_id, model)
    policy = parse_policy(policy_text, find_table_name(record.dataset), min_accuracy)
    present = read_present(version.name, int(version.version))
    for notice in present.notices:
        logger.warning("%s", notice)
    pinned_digest = present.pinned_digest
    check_test_set(record, run, policy, pinned_digest, new_test_set=new_test_set)
    notices = describe_test_set(record, policy, policy_text, pinned_digest, new_test_set=new_test_set)

    candidate = describe_recorded(version, record, run)
    is_asked_for = policy.compares or pinned_digest not in (None, record.dataset_digest)
    evidence = _describe_champion(present, candidate, record, data_dir, is_asked_for=is_asked_for)
    champion_version = evidence.version if evidence else None
    reasons = [text for text in (present.requires_reason, evidence and evidence.requires_reason) if text]
    if policy.max_latency_ratio and champion_version and champion_version.version != candidate.version:
        candidate, champion_version = _measure_latencies(version.name, candidate, champion_version)
    return CandidateDecision(
        model_name=version.name,
        previous_version=present.version,
        candidate=candidate,
        champion=champion_version,
        dataset=record.dataset,
        dataset_digest=record.dataset_digest,
        policy=policy,
        policy_text=policy_text,
        verdict=judge_candidate(candidate, champion_version, policy),
        notices=(*present.notices, *notices, *(evidence.notices if evidence else ())),
        requires_reason="; ".join(reasons) or None,
    )


def _check_finished(run: Run) -> None:
    if run.info.status == runs.FINISHED:
        return
    command = resume_command(run.info.run_id, CHECKPOINT_DIR)
    raise UserError(
        f"the training of run {run.info.run_id} is not complete: it is {run.info.status}; "
        f"wait for its end if it still runs, else go on with: {command}, or train again"
    )


def _describe_champion(
    present: Present,
    candidate: EvaluatedVersion,
    record: EvaluationRecord,
    data_dir: Path,
    *,
    is_asked_for: bool,
) -> ChampionEvidence | None:
    champion = present.reference
    if champion is None:
        return None
    number = int(champion.version)
    if number == candidate.version:
        return ChampionEvidence(candidate)
    if not is_asked_for:
        source = "not asked for by the policy"
        return ChampionEvidence(EvaluatedVersion(number, str(champion.run_id), None, None, source))
    return gather_champion_evidence(champion, record, data_dir, present.standing)


def _measure_latencies(
    name: str, candidate: EvaluatedVersion, champion: EvaluatedVersion
) -> tuple[EvaluatedVersion, EvaluatedVersion]:
    """Return both with the latency of their models, measured alternately on this machine."""
    from pipeline.evaluation.inference import measure_latencies

    if champion.evaluation is None:  # its model may not load
        return candidate, champion
    logger.info("measuring the latency of both models alternately")
    references = [registry.reference_version(name, version.version) for version in (candidate, champion)]
    models = [loading.load_model(reference) for reference in references]
    questions = [(model.module, model.form.shape) for model in models]
    candidate_latency, champion_latency = measure_latencies(questions)
    return replace(candidate, latency=candidate_latency), replace(champion, latency=champion_latency)
