from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine, event

from pipeline.tracking import locks, runs
from pipeline.tracking.store import get_client
from support.stores import MODEL_NAME

OURS = {"user": "me", "nonce": "1"}
THEIRS = {"user": "somebody else", "nonce": "2"}


def test_new_lock_has_its_tags(store: Path) -> None:
    assert locks.read_lock(MODEL_NAME) is None
    assert locks.create_lock(MODEL_NAME, OURS)
    assert locks.read_lock(MODEL_NAME) == OURS


def test_existing_lock_is_not_created_again(store: Path) -> None:
    locks.create_lock(MODEL_NAME, THEIRS)
    assert not locks.create_lock(MODEL_NAME, OURS)
    assert locks.read_lock(MODEL_NAME) == THEIRS


def test_models_have_separate_locks(store: Path) -> None:
    assert locks.create_lock(MODEL_NAME, OURS)
    assert locks.create_lock("other", OURS)


def test_removed_lock_can_be_created_again(store: Path) -> None:
    for tags in (OURS, THEIRS, OURS):
        assert locks.create_lock(MODEL_NAME, tags)
        assert locks.delete_lock(MODEL_NAME, {"nonce": tags["nonce"]})
        assert locks.read_lock(MODEL_NAME) is None


def test_lock_with_other_tags_is_not_removed(store: Path) -> None:
    assert not locks.delete_lock(MODEL_NAME, OURS)
    locks.create_lock(MODEL_NAME, THEIRS)
    assert not locks.delete_lock(MODEL_NAME, OURS)
    assert locks.read_lock(MODEL_NAME) == THEIRS


def test_one_of_many_threads_creates_it(store: Path) -> None:
    def create(number: int) -> bool:
        return locks.create_lock(MODEL_NAME, {"nonce": str(number)})

    with ThreadPoolExecutor(12) as threads:
        created = list(threads.map(create, range(12)))
    assert created.count(True) == 1
    assert locks.read_lock(MODEL_NAME) == {"nonce": str(created.index(True))}


def test_locks_are_not_listed_as_experiments(store: Path) -> None:
    locks.create_lock(MODEL_NAME, OURS)
    assert runs.list_experiment_names() == ["Default"]
    locks.delete_lock(MODEL_NAME, OURS)
    assert [experiment.name for experiment in get_client().search_experiments()] == ["Default"]


# --- at the wrong moment --------------------------------------------------------------------------------------------


def test_lost_answer_to_our_own_request(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = SqlAlchemyStore.create_experiment

    def create_twice(*args: Any, **kwargs: Any) -> str:  # as MLflow's client does if the connection breaks
        create(*args, **kwargs)
        return str(create(*args, **kwargs))

    monkeypatch.setattr(SqlAlchemyStore, "create_experiment", create_twice)
    assert locks.create_lock(MODEL_NAME, OURS)


def test_lock_removed_while_another_is_created(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks.create_lock(MODEL_NAME, THEIRS)
    find = SqlAlchemyStore.get_experiment_by_name

    def remove_first(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        locks.delete_lock(MODEL_NAME, THEIRS)
        return find(*args, **kwargs)

    monkeypatch.setattr(SqlAlchemyStore, "get_experiment_by_name", remove_first)
    assert not locks.create_lock(MODEL_NAME, OURS)
    assert locks.create_lock(MODEL_NAME, OURS)


def test_lock_removed_between_the_queries_of_one_look(store: Path) -> None:
    locks.create_lock(MODEL_NAME, THEIRS)
    reads = iter(["the tags"])

    def remove_first(*args: Any) -> None:
        if "JOIN experiment_tags" in args[2] and next(reads, None):
            locks.delete_lock(MODEL_NAME, THEIRS)

    event.listen(Engine, "before_cursor_execute", remove_first)
    try:
        assert locks.read_lock(MODEL_NAME) is None
    finally:
        event.remove(Engine, "before_cursor_execute", remove_first)
    assert next(reads, None) is None


@pytest.mark.parametrize("step", ["rename_experiment", "delete_experiment"])
def test_late_removal_spares_the_next_lock(store: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes remove the lock of a dead one, and a third creates its own in between."""
    locks.create_lock(MODEL_NAME, THEIRS)
    proceed = getattr(SqlAlchemyStore, step)

    def be_late(*args: Any, **kwargs: Any) -> None:
        monkeypatch.undo()
        locks.delete_lock(MODEL_NAME, THEIRS)
        assert locks.create_lock(MODEL_NAME, OURS)
        proceed(*args, **kwargs)

    monkeypatch.setattr(SqlAlchemyStore, step, be_late)
    locks.delete_lock(MODEL_NAME, THEIRS)
    assert locks.read_lock(MODEL_NAME) == OURS


def test_failed_removal_is_raised(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("disk full", INTERNAL_ERROR)

    locks.create_lock(MODEL_NAME, OURS)
    monkeypatch.setattr(SqlAlchemyStore, "rename_experiment", fail)
    with pytest.raises(MlflowException, match="disk full"):
        locks.delete_lock(MODEL_NAME, OURS)
    assert locks.read_lock(MODEL_NAME) == OURS


def test_process_killed_while_it_removes_its_lock(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks.create_lock(MODEL_NAME, OURS)
    monkeypatch.setattr(SqlAlchemyStore, "delete_experiment", lambda *_: None)
    locks.delete_lock(MODEL_NAME, OURS)
    assert locks.read_lock(MODEL_NAME) is None
    assert runs.list_experiment_names() == ["Default"]
    assert locks.create_lock(MODEL_NAME, THEIRS)


def test_lock_deleted_in_the_ui_is_free(store: Path) -> None:
    locks.create_lock(MODEL_NAME, OURS)
    lock = get_client().get_experiment_by_name(MODEL_NAME + locks.LOCK_SUFFIX)
    assert lock is not None
    get_client().delete_experiment(lock.experiment_id)
    assert locks.read_lock(MODEL_NAME) is None
    assert not locks.create_lock(MODEL_NAME, THEIRS)  # frees the name
    assert locks.create_lock(MODEL_NAME, THEIRS)
