"""Which test set counts: it is pinned by the policy, or by the decision about the model in Production."""

import logging

from pipeline.data.catalog import DATASET_NAMES, short_name
from pipeline.errors import UserError
from pipeline.evaluation.record import RECORD_FILE, EvaluationRecord
from pipeline.promotion.policy import Policy, find_table_name, format_header, has_table
from pipeline.tracking.runs import Run

logger = logging.getLogger(__name__)


def check_test_set(
    record: EvaluationRecord, run: Run, policy: Policy, pinned_digest: str | None, *, new_test_set: bool
) -> None:
    """Check that a record was made on the test set that counts.

    It is that of the policy; else that on which the model in Production was decided about, unless a new one is wanted;
    else that of the run.

    Raises
    ------
    UserError
        It was made on another one.
    """
    dataset = run.data.params.get("dataset", record.dataset)
    digest = record.dataset_digest
    if policy.test_digest not in (None, digest):
        header = format_header(find_table_name(record.dataset))
        raise UserError(
            f"{_describe(record, run)}, and gates.toml, table {header}, demands {policy.test_digest[:12]}...; "
            "evaluate it on that test set, or change test_digest"
        )
    if pinned_digest not in (None, digest) and not new_test_set:
        raise UserError(
            f"{_describe(record, run)}, the model in Production was decided about on {pinned_digest[:12]}...; evaluate "
            "it on that test set, or let promote.py score both models on the new one: --new-test-set --reason WHY"
        )
    is_pinned = digest in (policy.test_digest, pinned_digest)
    run_digest = digest if is_pinned else run.data.params.get("test_digest", digest)
    has_same_name = short_name(record.dataset) == short_name(dataset)  # one's own data may have been moved
    if not has_same_name or digest != run_digest:
        raise UserError(
            f"{_describe(record, run)}, the run's test set is {dataset} ({run_digest[:12]}...); "
            f"run: python evaluate.py --run-id {run.info.run_id} --log-mlflow"
        )


def _describe(record: EvaluationRecord, run: Run) -> str:
    return f"{RECORD_FILE} of run {run.info.run_id} was made on {record.dataset} ({record.dataset_digest[:12]}...)"


def describe_test_set(
    record: EvaluationRecord, policy: Policy, policy_text: str, pinned_digest: str | None, *, new_test_set: bool
) -> list[str]:
    """Return what a person has to know about the test set, a sentence each; log it."""
    notices = []
    digest = record.dataset_digest
    if pinned_digest not in (None, digest):
        notices.append(
            f"new test set: {record.dataset} ({digest[:12]}...); until now it was another one ({pinned_digest[:12]}...)"
        )
    elif new_test_set:
        notices.append("--new-test-set has no effect: the model in Production was decided about on no other test set")
    is_pinned = policy.test_digest is not None or pinned_digest is not None
    if not is_pinned and record.dataset not in DATASET_NAMES:
        notices.append(_describe_unpinned(record, policy_text))
    for notice in notices:
        logger.warning("%s", notice)
    return notices


def _describe_unpinned(record: EvaluationRecord, policy_text: str) -> str:
    name = find_table_name(record.dataset)
    header = format_header(name)
    choice = f"the table {header} of gates.toml was chosen by the last part of {record.dataset}"
    if not has_table(policy_text, name):
        choice = f"gates.toml has no table {header}, by the last part of {record.dataset}"
    return f'{choice}; pin its test set there with test_digest = "{record.dataset_digest}"'
