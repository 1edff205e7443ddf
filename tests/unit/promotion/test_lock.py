import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.context import describe_process, host_name, user_name
from pipeline.errors import UserError
from pipeline.promotion import lock as lock_module
from pipeline.promotion.lock import LockOwner, PromotionLock, promotion_lock, read_lock_owner
from pipeline.tracking import locks, registry, runs
from pipeline.tracking.store import StoreError
from support.promotions import NAME, create_foreign_lock, describe_dead_process, register_version

pytestmark = pytest.mark.usefixtures("store", "short_poll_interval")


@pytest.fixture
def short_poll_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "POLL_INTERVAL", 0.01)


def read_foreign_lock() -> PromotionLock:
    """Return the lock as another process sees it."""
    owner = read_lock_owner(NAME)
    assert owner is not None
    return PromotionLock(NAME, owner)


# --- hold and release -----------------------------------------------------------------------------------------------


def test_lock_names_its_process() -> None:
    with promotion_lock(NAME) as lock:
        owner = read_lock_owner(NAME)
    assert owner == lock.owner
    assert (owner.user, owner.host, owner.process) == (user_name(), host_name(), describe_process())


def test_every_lock_has_another_nonce() -> None:
    with promotion_lock(NAME) as first:
        pass
    with promotion_lock(NAME) as second:
        pass
    assert first.owner.nonce != second.owner.nonce


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_lock_is_released_after_an_exception(error: BaseException) -> None:
    with pytest.raises(type(error)), promotion_lock(NAME):
        raise error
    assert read_lock_owner(NAME) is None


def test_interrupt_right_after_the_creation_releases_it(monkeypatch: pytest.MonkeyPatch) -> None:
    create_lock = locks.create_lock

    def interrupt(*arguments: object) -> bool:
        create_lock(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(locks, "create_lock", interrupt)
    with pytest.raises(KeyboardInterrupt), promotion_lock(NAME):
        pass
    assert read_lock_owner(NAME) is None


def test_models_are_locked_one_by_one() -> None:
    with promotion_lock(NAME), promotion_lock("another", wait_seconds=0):
        assert read_lock_owner(NAME) != read_lock_owner("another")


def test_lock_is_no_model_and_no_experiment() -> None:
    register_version()
    experiments = runs.list_experiment_names()
    with promotion_lock(NAME):
        assert registry.list_model_names() == [NAME]
        assert registry.resolve_model_name(None) == NAME
        assert runs.list_experiment_names() == experiments


def test_failed_release_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the server is gone")

    with promotion_lock(NAME):
        monkeypatch.setattr(locks, "delete_lock", fail)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "could not be removed" in record.message


# --- wait -----------------------------------------------------------------------------------------------------------


def test_processes_hold_it_one_after_the_other() -> None:
    inside: list[int] = []
    crowds: list[int] = []

    def enter(number: int) -> None:
        with promotion_lock(NAME):
            inside.append(number)
            time.sleep(0.02)
            crowds.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(enter, range(5)))
    assert crowds == [1] * 5


def test_wait_prints_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    create_foreign_lock()
    removal = threading.Timer(0.5, read_foreign_lock().remove)  # after many looks
    removal.start()
    with promotion_lock(NAME):
        removal.join()
    assert caplog.messages == [
        "waiting for ada on laptop (process 4242, since 2026-11-17T12:00:00.000+00:00), who decides about "
        "digits-classifier"
    ]


def test_next_owner_is_one_more_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ada, bob = build_owner("ada"), build_owner("bob")
    owners = iter([ada, ada, bob, bob, bob, None])
    monkeypatch.setattr(lock_module, "read_lock_owner", lambda _: next(owners))
    hold_lock()
    assert [message.partition(" on ")[0] for message in caplog.messages] == ["waiting for ada", "waiting for bob"]


def build_owner(user: str) -> LockOwner:
    return LockOwner(user, "laptop", "1 0.00 another machine", "2026-11-17T12:00:00.000+00:00", nonce=user)


def hold_lock() -> None:
    with promotion_lock(NAME):
        pass


@pytest.mark.parametrize("limit", [0, 0.1])
def test_wait_ends_at_the_limit(limit: float) -> None:
    create_foreign_lock()
    with pytest.raises(UserError) as error, promotion_lock(NAME, limit):
        pass
    text = str(error.value)
    assert text.startswith("ada on laptop (process 4242, since 2026-11-17T12:00:00.000+00:00) still decides about")
    assert f"after {limit:g} seconds" in text
    assert 'python promote.py --unlock --model-name digits-classifier --reason "..."' in text


def test_limit_leaves_the_lock_of_the_other() -> None:
    create_foreign_lock()
    owner = read_lock_owner(NAME)
    with pytest.raises(UserError), promotion_lock(NAME, 0):
        pass
    assert read_lock_owner(NAME) == owner


# --- dead processes -------------------------------------------------------------------------------------------------


def test_lock_of_a_dead_process_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    create_foreign_lock(process=describe_dead_process())
    with promotion_lock(NAME, wait_seconds=0) as lock:
        assert read_lock_owner(NAME) == lock.owner
    (message,) = caplog.messages
    assert "has ended; its lock of digits-classifier is removed" in message


def test_late_process_does_not_remove_a_new_lock() -> None:
    create_foreign_lock(process=describe_dead_process())
    dead = read_foreign_lock()
    dead.remove()
    with promotion_lock(NAME) as lock:
        dead.remove()  # by a process that has read the lock before it was replaced
        assert read_lock_owner(NAME) == lock.owner


def test_two_waiting_processes_replace_a_dead_lock_once(monkeypatch: pytest.MonkeyPatch) -> None:
    create_foreign_lock(process=describe_dead_process())
    barrier = threading.Barrier(2)
    remove = PromotionLock.remove
    inside: list[int] = []
    crowds: list[int] = []

    def remove_together(lock: PromotionLock) -> None:
        if lock.owner.user == "ada":  # both have read the lock of the dead process
            barrier.wait(timeout=60)
        remove(lock)

    def enter(number: int) -> None:
        with promotion_lock(NAME):
            inside.append(number)
            time.sleep(0.2)
            crowds.append(len(inside))
            inside.remove(number)

    monkeypatch.setattr(PromotionLock, "remove", remove_together)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(enter, range(2)))
    assert crowds == [1, 1]


def test_lock_of_another_account_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        error = StoreError("Permission denied")
        error.error_code = "PERMISSION_DENIED"
        raise error

    create_foreign_lock(process=describe_dead_process())
    monkeypatch.setattr(locks, "delete_lock", refuse)
    with pytest.raises(UserError, match=r"your account may not remove its lock .* ask ada or an administrator"):
        hold_lock()


# --- still held? ----------------------------------------------------------------------------------------------------


def test_lock_that_is_held_passes_the_check() -> None:
    with promotion_lock(NAME) as lock:
        lock.check_held()


def test_removed_lock_is_noticed() -> None:
    with promotion_lock(NAME) as lock:
        read_foreign_lock().remove()
        with pytest.raises(UserError, match="was removed while this decision was made, so nothing has moved"):
            lock.check_held()


def test_replaced_lock_is_noticed_and_left_alone() -> None:
    with promotion_lock(NAME) as lock:
        read_foreign_lock().remove()
        create_foreign_lock()
        with pytest.raises(UserError, match=r"run promote\.py again"):
            lock.check_held()
    owner = read_lock_owner(NAME)
    assert owner is not None
    assert owner.user == "ada"
