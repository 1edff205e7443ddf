"""MLflow runs and experiments: open a run, log to it, find it again."""

import atexit
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags

from pipeline.data.catalog import short_name
from pipeline.documents import DamagedError, parse_json
from pipeline.errors import UserError
from pipeline.redact import redact
from pipeline.tracking.names import check_is_exact, explain_relative_name, locate_experiment
from pipeline.tracking.outages import Patience, create_once, describe_failure
from pipeline.tracking.pages import iterate_pages
from pipeline.tracking.restoration import restore_command
from pipeline.tracking.store import get_client, limit_requests, retry_on_conflict

if TYPE_CHECKING:  # a promotion needs no PyTorch
    from pipeline.data.splits import Dataset

logger = logging.getLogger(__name__)

MAX_TAG_LENGTH = 5000  # characters
DATASET_DIGEST_LENGTH = 32  # characters; MLflow stores 36 at most, the parameters have the complete digest
FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"
OPEN_STATUSES = (RUNNING, "SCHEDULED")
NONCE_TAG = "invocation.nonce"  # of every run that a script opened
NEWEST_FIRST = "attributes.start_time DESC"
LAST_REQUEST_TIMEOUT = 5  # seconds, of the request that ends a run after an exception

__all__ = ["FAILED", "FINISHED", "KILLED", "RUNNING", "Run"]


# --- experiments ----------------------------------------------------------------------------------------------------


def get_or_create_experiment(name: str) -> str:
    """Return the id of the experiment, which is created if it is missing.

    MLflow's `set_experiment` creates it too, but does not make it the active one if another process is faster.

    Raises
    ------
    UserError
        The experiment was deleted, or the store takes only absolute paths for names.
    """
    experiment_id = find_experiment(name)
    if experiment_id is not None:
        return experiment_id
    try:
        return str(get_client().create_experiment(locate_experiment(name)))
    except MlflowException as error:
        if "absolute path" in error.message:  # Databricks
            raise explain_relative_name(name) from None
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return get_or_create_experiment(name)  # another process was faster


def find_experiment(name: str) -> str | None:
    """Return the id of the experiment, or None if there is none of that name.

    Raises
    ------
    UserError
        The experiment was deleted, or the database of the store takes the name of another one for the same.
    """
    name = locate_experiment(name)
    experiment = get_client().get_experiment_by_name(name)
    if experiment is None:
        return None
    check_is_exact("experiment", name, experiment.name)
    if experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UserError(f"experiment {name!r} was deleted; restore it with: {restore}")
    return str(experiment.experiment_id)


def find_artifact_location(experiment: str, run_id: str | None = None) -> str | None:
    """Return where the files of the run go, or those of a new run of the experiment; None: there is no experiment yet.

    Raises
    ------
    UserError
        There is no such run, or the experiment was deleted.
    """
    if run_id is not None:
        return str(get_run(run_id).info.artifact_uri)
    experiment_id = find_experiment(experiment)
    return None if experiment_id is None else str(get_client().get_experiment(experiment_id).artifact_location)


def list_experiment_names() -> list[str]:
    """Return the names of the store's experiments, the newest first."""
    client = get_client()
    experiments = iterate_pages(lambda token: client.search_experiments(page_token=token))
    return [str(experiment.name) for experiment in experiments]


def is_active_experiment(experiment_id: str) -> bool:
    """Return whether there is an experiment of that id which is not deleted, and which the account may read."""
    try:
        experiment = get_client().get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code not in ("PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"):
            raise
        return False
    return bool(experiment.lifecycle_stage == "active")


# --- open and end runs ----------------------------------------------------------------------------------------------


@contextmanager
def start_run(
    experiment: str,
    name: str | None,
    *,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    system_metrics: bool = False,
    patience: Patience | None = None,
) -> Iterator[str]:
    """Open a run and yield its id. It ends FINISHED, FAILED after an exception, KILLED after Ctrl-C or a signal.

    Under `mlflow run`, which has opened a run already, it is that run, in the experiment that `mlflow run` was given.

    Parameters
    ----------
    experiment
        Name of the experiment; it is created if it is missing.
    name
        Name of the run; None: MLflow invents one.
    run_id
        Open this run again instead of a new one.
    tags
        Set on the run from its first moment.
    system_metrics
        Let MLflow log the use of processor, memory, disk and network every ten seconds.
    patience
        How long to wait at the end for a store that is away; None: as long as for any request.

    Raises
    ------
    UserError
        The variable MLFLOW_RUN_ID is left over from another training.
    StoreAway
        The patience was not enough to end the run.
    """
    leftover = os.environ.pop("MLFLOW_RUN_ID", None)  # MLflow would open it whatever its status is
    if leftover and run_id is None:
        _check_is_unused(leftover)
        run_id = leftover
    elif leftover and leftover != run_id:
        logger.warning("the variable MLFLOW_RUN_ID names another run, which gets nothing: run %s goes on", run_id)
    all_tags = {NONCE_TAG: uuid.uuid4().hex, **(tags or {})}
    if run_id is None:
        run = _start_new_run(get_or_create_experiment(experiment), name, all_tags, system_metrics=system_metrics)
    else:
        # Before it says RUNNING: its old process is gone, so others would end it.
        set_tags(run_id, _read_tags_with_secrets(run_id) | all_tags)
        run = mlflow.start_run(run_id, run_name=redact(name) if name else None, log_system_metrics=system_metrics)
    try:
        yield run.info.run_id
        finish = partial(end_run, run.info.run_id, FINISHED)
        patience.call(finish) if patience else finish()
    except BaseException as error:
        status = KILLED if isinstance(error, KeyboardInterrupt) else FAILED
        _end_after_exception(run.info.run_id, status)
        raise


def _start_new_run(experiment_id: str, name: str | None, tags: dict[str, str], *, system_metrics: bool) -> Run:
    """Open a new run, once, also if the answer of the store is lost."""
    start = partial(mlflow.start_run, log_system_metrics=system_metrics)
    # MLflow adds tags of its own: the address of the repository as Git has it, the script, the account.
    redacted = {tag: redact(str(value)) for tag, value in resolve_tags(tags).items() if value is not None}

    def find() -> Run | None:
        runs = search_runs(experiment_id, f"tags.`{NONCE_TAG}` = '{tags[NONCE_TAG]}'", max_results=1)
        return start(runs[0].info.run_id) if runs else None

    create = partial(start, experiment_id=experiment_id, run_name=redact(name) if name else None, tags=redacted)
    return create_once(partial(retry_on_conflict, create), find)


def _read_tags_with_secrets(run_id: str) -> dict[str, str]:
    """Return the tags of the run that hold a secret, redacted: `mlflow run` sets the address that it was given."""
    tags = get_run(run_id).data.tags
    return {name: redact(value) for name, value in tags.items() if redact(value) != value}


def _check_is_unused(run_id: str) -> None:
    """Check that nothing trained in the run that MLFLOW_RUN_ID names: `mlflow run` names one that has just begun."""
    run = get_run(run_id)
    status = run.info.status
    if status not in OPEN_STATUSES:
        raise UserError(f"the variable MLFLOW_RUN_ID names run {run_id}, which is {status}; unset it and run again")
    if NONCE_TAG in run.data.tags:
        raise UserError(
            f"the variable MLFLOW_RUN_ID names run {run_id}, in which another training began; unset it and run again"
        )


def _end_after_exception(run_id: str, status: str) -> None:
    """End the run if the store answers soon: the process is about to end, and perhaps has only seconds."""
    try:
        with limit_requests(retries=0, timeout=LAST_REQUEST_TIMEOUT):
            end_run(run_id, status)
    except Exception as error:  # the exception that ended the training is more important
        logger.warning(
            "the store did not take the status %s (%s): the run still says RUNNING until compare.py or the next "
            "training on this machine finds it",
            status,
            describe_failure(error),
        )


@atexit.register
def _end_forgotten_run() -> None:
    """End a run that is still active FAILED: MLflow itself would say FINISHED."""
    run = mlflow.active_run()
    if run:
        _end_after_exception(run.info.run_id, FAILED)


def create_run(experiment_id: str, tags: Mapping[str, str]) -> str:
    """Create a run that is not the active one of this process, once, also if the answer is lost; return its id."""
    nonce = uuid.uuid4().hex

    def find() -> Run | None:
        runs = search_runs(experiment_id, f"tags.`{NONCE_TAG}` = '{nonce}'", max_results=1)
        return runs[0] if runs else None

    create = partial(get_client().create_run, experiment_id, tags={NONCE_TAG: nonce, **tags})
    return str(create_once(create, find).info.run_id)


def end_run(run_id: str, status: str) -> None:
    """End the run with the status `FINISHED`, `FAILED` or `KILLED`; it may be called again after a failure."""
    active = mlflow.active_run()
    if active and active.info.run_id == run_id:
        mlflow.end_run(status)  # it is not active afterwards, also if the request fails
    else:
        get_client().set_terminated(run_id, status)


def delete_run(run_id: str) -> None:
    """Delete the run; `mlflow runs restore` brings it back."""
    get_client().delete_run(run_id)


# --- log ------------------------------------------------------------------------------------------------------------


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log parameters, without credentials, in one request. Those that `mlflow run` has logged stay as they are.

    Raises
    ------
    UserError
        The run has one of them with another value.
    """
    existing = get_client().get_run(run_id).data.params
    new = []
    for name, value in params.items():
        text = redact(str(value))
        if name not in existing:
            new.append(Param(name, text))
        elif not _is_same_value(existing[name], text):
            raise UserError(
                f"run {run_id} has the parameter {name} = {existing[name]} already, and this training has {text}; "
                "start a new run"
            )
    get_client().log_batch(run_id, params=new)


def _is_same_value(first: str, second: str) -> bool:
    """Return whether two texts are one value: `mlflow run` logs 1e-2 for 0.01."""
    if first == second:
        return True
    try:
        return float(first) == float(second)
    except ValueError:
        return False


def log_metrics(
    run_id: str, metrics: Mapping[str, float], step: int = 0, *, when: float | None = None, model_id: str | None = None
) -> None:
    """Log metrics of one step, in one request.

    Parameters
    ----------
    run_id
        The run.
    metrics
        Name -> value.
    step
        Such as the epoch.
    when
        When they were measured, in seconds since 1970; None: now. MLflow takes the same metrics with the same time
        for the same measurement, so a repeated request doubles nothing.
    model_id
        The logged model that they are about, or None.
    """
    milliseconds = round((time.time() if when is None else when) * 1000)
    values = [Metric(name, value, milliseconds, step, model_id=model_id) for name, value in metrics.items()]
    get_client().log_batch(run_id, metrics=values)


def set_tags(run_id: str, tags: Mapping[str, Any]) -> None:
    """Set tags of the run, without credentials, in one request. Tags that are None are left out."""
    known = []
    for name, value in tags.items():
        if value is not None:
            known.append(RunTag(name, redact(str(value))[:MAX_TAG_LENGTH]))
    get_client().log_batch(run_id, tags=known)


def log_inputs(datasets: Mapping[str, "Dataset"]) -> None:
    """Log data sets as inputs of the active run, each with its digest; ``datasets`` maps a context to a data set."""
    from mlflow.data.http_dataset_source import HTTPDatasetSource

    for context, dataset in datasets.items():
        logged = mlflow.data.from_numpy(  # type: ignore[attr-defined]
            dataset.images.numpy(),
            source=HTTPDatasetSource(redact(dataset.source)),
            targets=dataset.labels.numpy(),
            name=redact(f"{short_name(dataset.name)}-{context}"),
            digest=dataset.digest[:DATASET_DIGEST_LENGTH],
        )
        retry_on_conflict(partial(mlflow.log_input, logged, context=context))


# --- find -----------------------------------------------------------------------------------------------------------


def get_run(run_id: str) -> Run:
    """Return the run.

    Raises
    ------
    UserError
        The store has no run of that id, or it was deleted.
    """
    try:
        run = get_client().get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"there is no run {run_id!r} in this store; look its id up in mlflow ui") from None
    check_is_exact("run", run_id, run.info.run_id)
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"run {run_id} was deleted; restore it with: {restore_command(run)}")
    return run


def search_runs(
    experiment_id: str, filter_string: str = "", max_results: int = 100_000, *, order_by: str = NEWEST_FIRST
) -> list[Run]:
    """Return the runs of the experiment that fit ``filter_string``, in MLflow's languages of filters and of orders.

    A store takes about a millisecond for each run, so ask for no more than are needed. Of runs that are equal in
    ``order_by``, the newest comes first.
    """
    found: list[Run] = mlflow.search_runs(
        [experiment_id],
        filter_string,
        max_results=max_results,
        order_by=list(dict.fromkeys((order_by, NEWEST_FIRST))),
        output_format="list",
    )
    return found


def search_experiment_runs(experiment: str, dataset: str | None = None, max_results: int = 100_000) -> list[Run]:
    """Return the newest runs of the experiment of that name, on ``dataset`` if it is not None; the newest first.

    The list is empty if there is no such experiment.
    """
    experiment_id = find_experiment(experiment)
    if experiment_id is None:
        return []
    filter_string = ""
    if dataset is not None:
        quote = '"' if "'" in dataset else "'"
        filter_string = f"params.dataset = {quote}{dataset}{quote}"
    return search_runs(experiment_id, filter_string, max_results)


def get_metric_histories(run_id: str, names: Iterable[str]) -> dict[str, list[float]]:
    """Return the values of the run's metrics, in the order of their steps; empty for a metric that the run lacks."""
    histories = {}
    for name in names:
        points = sorted(get_client().get_metric_history(run_id, name), key=lambda point: point.step)
        histories[name] = [point.value for point in points]
    return histories


def list_logged_steps(run_id: str, name: str) -> set[int]:
    """Return the steps for which the run has the metric."""
    return {int(point.step) for point in get_client().get_metric_history(run_id, name)}


def list_input_urls(run: Run) -> list[str]:
    """Return the addresses of the data sets that the run logged as inputs, sorted, each once."""
    if not run.inputs:
        return []
    urls = set()
    for entry in run.inputs.dataset_inputs:
        try:
            source = parse_json(entry.dataset.source or "{}")
        except DamagedError:  # another program logged it
            continue
        if isinstance(source, dict) and source.get("url"):
            urls.add(str(source["url"]))
    return sorted(urls)
