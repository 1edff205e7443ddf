"""Gather what the five questions of the checklist need: the record, the run, its peers and the policy; ask them."""

import logging

from pipeline.documents import parse_count
from pipeline.errors import UserError
from pipeline.evaluation.inference import count_multiply_adds, measure_latencies
from pipeline.evaluation.record import EvaluationRecord
from pipeline.files import read_text
from pipeline.promotion.policy import POLICY_FILE, find_table_name, parse_policy
from pipeline.reports.checklist import (
    CURVES,
    MAX_PEERS,
    Answer,
    Peer,
    check_cost,
    check_generalisation,
    check_goal,
)
from pipeline.reports.checklist_mistakes import check_balance, check_errors
from pipeline.tracking import runs
from pipeline.tracking.loading import StoredModel
from pipeline.tracking.runs import Run

logger = logging.getLogger(__name__)

LARGEST_FIGURE = 1e9  # a loss or seconds above it are not believed
ACCURACY = "test_accuracy"  # the metric by which runs are ranked
COST_PARAMS = ("model_parameters", "model_multiply_adds")
MACHINE_TAGS = ("environment.cpu", "environment.gpu", "environment.threads")  # seconds are compared if these are equal


def answer_checklist(record: EvaluationRecord, stored: StoredModel, run: Run) -> list[Answer]:
    """Answer the five questions about a model.

    Parameters
    ----------
    record
        Of the evaluation.
    stored
        The model; it is moved to the CPU, where its cost is measured.
    run
        The run that trained it. The other runs of its experiment are the peers.
    """
    floor = _read_floor(record.dataset)
    peers = _find_peers(run, record.dataset_digest)
    curves = _read_curves(run.info.run_id)
    module, shape = stored.module.cpu(), stored.form.shape
    costs = _read_costs(run, run)
    costs["model_parameters"] = float(record.parameters)
    costs["model_multiply_adds"] = float(count_multiply_adds(module, shape))
    more = {
        "latency_seconds": measure_latencies([(module, shape)])[0],
        "images_per_second": record.images_per_second,
        "model_bytes": stored.size,
    }
    evaluation = record.evaluation
    return [
        check_goal(evaluation, floor, peers),
        check_generalisation(evaluation, curves, floor, _read_validation_size(run, record.dataset_digest)),
        check_balance(evaluation),
        check_errors(evaluation),
        check_cost(evaluation, costs, more, peers),
    ]


def _read_floor(dataset: str) -> float | None:
    """Return the ``min_accuracy`` of the data set's policy; None, with a warning, if there is no usable policy."""
    try:
        return parse_policy(read_text(POLICY_FILE), find_table_name(dataset)).min_accuracy
    except UserError as error:  # promote.py stops at it, an evaluation does not need it
        logger.warning("%s", error)
        return None


def _read_validation_size(run: Run, test_digest: str) -> int | None:
    """Return the number of validation images, if the test images are those of the run."""
    params = run.data.params
    size = parse_count(params.get("validation_size"))
    return size if size and params.get("test_digest") == test_digest else None


def _read_curves(run_id: str) -> dict[str, list[float]]:
    """Return the curves of the run; none if one of them cannot be that of a training."""
    curves = runs.get_metric_histories(run_id, CURVES)
    lengths = {len(values) for values in curves.values()}
    for name, values in curves.items():
        highest = 1.0 if name.endswith("accuracy") else LARGEST_FIGURE
        if len(lengths) > 1 or not all(0 <= value <= highest for value in values):
            logger.warning("the metric %s of run %s cannot be of a training, so the curves are left out", name, run_id)
            return {}
    return curves


def _find_peers(run: Run, test_digest: str) -> list[Peer]:
    """Return the most accurate other finished runs of the experiment on the same test images, at most `MAX_PEERS`.

    A store sorts an accuracy that is missing or not a number after all others.
    """
    # A false accuracy above 1 would come first and take the place of others.
    comparable = f"params.test_digest = '{test_digest}' and attributes.status = 'FINISHED' and metrics.{ACCURACY} <= 1"
    candidates = runs.search_runs(
        run.info.experiment_id, comparable, MAX_PEERS + 1, order_by=f"metrics.{ACCURACY} DESC"
    )
    peers = []
    for other in candidates:
        accuracy = other.data.metrics.get(ACCURACY)
        if other.info.run_id != run.info.run_id and accuracy is not None and 0 <= accuracy <= 1:
            peers.append(Peer(other.info.run_id, other.info.run_name, accuracy, _read_costs(other, run)))
    return peers[:MAX_PEERS]


def _read_costs(run: Run, reference: Run) -> dict[str, float]:
    """Return the costs that the run records; its seconds only if it ran on a machine like that of ``reference``."""
    costs = {}
    seconds = run.data.metrics.get("training_seconds")
    if seconds is not None and 0 < seconds <= LARGEST_FIGURE and _describe_machine(run) == _describe_machine(reference):
        costs["training_seconds"] = seconds
    for name in COST_PARAMS:
        cost = parse_count(run.data.params.get(name))
        if cost:
            costs[name] = float(cost)
    return costs


def _describe_machine(run: Run) -> list[str | None]:
    tags = [run.data.tags.get(name) for name in MACHINE_TAGS]
    return [run.data.params.get("device"), *tags]
