"""Locks in the MLflow store, for processes on all machines that use it.

The lock of a model is the experiment ``<model>.promoting``. MLflow has a name of an experiment once, and writes an
experiment and its tags in one transaction. So creating it succeeds for one process and fails for all others: on SQLite,
on a database server, over HTTP, and for any account. A lock is removed by the id of its experiment, which is never used
again, so nobody can remove a lock that was created in the meantime.

A registered model of that name would be less safe. MLflow deletes a model by its name, and then all permissions on the
name. If another account has created its own lock in between, it loses the permission to remove it.
"""

import re
from collections.abc import Mapping

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from pipeline.tracking.store import get_client

LOCK_SUFFIX = ".promoting"
LOCK_NAME = re.compile(rf".+{re.escape(LOCK_SUFFIX)}(\.\d+)?")  # with a number: removed


def is_lock_name(experiment: str) -> bool:
    """Return whether an experiment of that name is a lock."""
    return LOCK_NAME.fullmatch(experiment) is not None


def create_lock(model_name: str, tags: Mapping[str, str]) -> bool:
    """Create the lock of a model, with its tags, in one step; return False if another process has it.

    Parameters
    ----------
    model_name
        Name of the registered model.
    tags
        Say who has the lock, and tell it from every other one: one of them must be random.
    """
    client = get_client()
    name = model_name + LOCK_SUFFIX
    try:
        client.create_experiment(name, tags=dict(tags))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    else:
        return True
    existing = client.get_experiment_by_name(name)
    if existing is None:  # removed a moment ago
        return False
    if existing.lifecycle_stage == "deleted":  # by a person, in the UI: MLflow keeps the name
        _remove(existing)
        return False
    return _has_tags(existing, tags)  # True: the answer to our request was lost, and MLflow has sent it again


def read_lock(model_name: str) -> dict[str, str] | None:
    """Return the tags of the lock of a model, or None if it does not exist."""
    client = get_client()
    name = model_name + LOCK_SUFFIX
    lock = client.get_experiment_by_name(name)
    if lock is not None and not lock.tags:
        # MLflow reads the tags with a second query, also by name. The lock was perhaps removed between the two.
        lock = client.get_experiment(lock.experiment_id)
    if lock is None or lock.lifecycle_stage == "deleted" or lock.name != name:
        return None
    return dict(lock.tags)


def delete_lock(model_name: str, tags: Mapping[str, str]) -> bool:
    """Remove the lock of a model if it has these tags; return whether it had them."""
    lock = get_client().get_experiment_by_name(model_name + LOCK_SUFFIX)
    if lock is None or not _has_tags(lock, tags):
        return False
    _remove(lock)
    return True


def _has_tags(lock: Experiment, tags: Mapping[str, str]) -> bool:
    return tags.items() <= dict(lock.tags).items()


def _remove(lock: Experiment) -> None:
    """Free the name of the lock, which releases it; then delete the experiment. Both do no harm the second time."""
    client = get_client()
    try:
        if lock.lifecycle_stage == "deleted":
            client.restore_experiment(lock.experiment_id)
        client.rename_experiment(lock.experiment_id, f"{lock.name}.{lock.experiment_id}")
        client.delete_experiment(lock.experiment_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"):  # another process was faster
            return
        # A server answers HTTP 500 for INVALID_STATE, so that its client says INTERNAL_ERROR.
        if client.get_experiment(lock.experiment_id).name == lock.name:
            raise
