"""One decision about a model at a time, on all machines that use the store.

The lock is the experiment ``<model>.promoting``: MLflow creates a name once, so only one process succeeds (see
`pipeline.tracking.locks`). Its tags name the process that created it.
"""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields

from pipeline.context import describe_process, host_name, is_process_gone, user_name, utc_now
from pipeline.errors import UserError
from pipeline.tracking import locks
from pipeline.tracking.store import StoreError, limit_requests

logger = logging.getLogger(__name__)

DEFAULT_WAIT = 300.0  # seconds
POLL_INTERVAL = 0.25  # seconds
CLEANUP_TIMEOUT = 5  # seconds, of a request after an exception


@dataclass(frozen=True)
class LockOwner:
    """Which process has a lock.

    Attributes
    ----------
    user, host : the account and the machine.
    process : see `pipeline.context.describe_process`.
    time : when it created the lock, ISO 8601.
    nonce : a random text, which tells this lock from every other one.
    """

    user: str
    host: str
    process: str
    time: str
    nonce: str

    def __str__(self) -> str:
        pid, _, _ = self.process.partition(" ")
        return f"{self.user} on {self.host} (process {pid or 'unknown'}, since {self.time or 'unknown'})"


@dataclass(frozen=True)
class PromotionLock:
    """The lock of a model, as one process has created it."""

    model_name: str
    owner: LockOwner

    def check_held(self) -> None:
        """Check that the lock still exists.

        Raises
        ------
        UserError
            It was removed, as ``promote.py --unlock`` does; another process may have its own by now.
        """
        owner = read_lock_owner(self.model_name)
        if owner is None or owner.nonce != self.owner.nonce:
            raise UserError(
                f"the lock of {self.model_name} was removed while this decision was made, so nothing has moved; "
                "run promote.py again"
            )

    def remove(self) -> None:
        """Remove the lock. Nothing happens if it is gone already, or if another process has its own by now."""
        locks.delete_lock(self.model_name, {"nonce": self.owner.nonce})


def read_lock_owner(model_name: str) -> LockOwner | None:
    """Return which process has the lock of a model, or None."""
    tags = locks.read_lock(model_name)
    if tags is None:
        return None
    names = [field.name for field in fields(LockOwner)]
    return LockOwner(**{name: tags.get(name, "") for name in names})


@contextmanager
def promotion_lock(model_name: str, wait_seconds: float = DEFAULT_WAIT) -> Iterator[PromotionLock]:
    """Hold the lock of a model inside the ``with`` block.

    While another process has it, this one waits, and logs once for whom. If that process has died on this machine, its
    lock is removed.

    Raises
    ------
    UserError
        Another process still has the lock after ``wait_seconds``.
    """
    owner = LockOwner(user_name(), host_name(), describe_process(), utc_now(), uuid.uuid4().hex)
    lock = PromotionLock(model_name, owner)
    try:
        _create_lock(lock, wait_seconds)
        yield lock
    except BaseException:  # also if a signal arrives between the two lines above
        with suppress(StoreError), limit_requests(retries=2, timeout=CLEANUP_TIMEOUT):  # the store may be what failed
            lock.remove()
        raise
    _release_lock(lock)


def _create_lock(lock: PromotionLock, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    announced = None
    while True:
        owner = read_lock_owner(lock.model_name)
        if owner is None:
            if locks.create_lock(lock.model_name, asdict(lock.owner)):
                return
        elif is_process_gone(owner.process):
            _remove_dead_lock(PromotionLock(lock.model_name, owner))
            continue
        if time.monotonic() >= deadline:
            raise UserError(_describe_timeout(lock.model_name, owner, wait_seconds))
        if owner is not None and owner != announced:
            logger.info("waiting for %s, who decides about %s", owner, lock.model_name)
            announced = owner
        time.sleep(POLL_INTERVAL)


def _remove_dead_lock(lock: PromotionLock) -> None:
    logger.info("%s has ended; its lock of %s is removed", lock.owner, lock.model_name)
    try:
        lock.remove()
    except StoreError as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        raise UserError(
            f"{lock.owner} has ended, and your account may not remove its lock of {lock.model_name}; "
            f"ask {lock.owner.user} or an administrator to run: {_unlock_command(lock.model_name)}"
        ) from None


def _describe_timeout(model_name: str, owner: LockOwner | None, wait_seconds: float) -> str:
    problem = f"{owner or 'another process'} still decides about {model_name} after {wait_seconds:g} seconds"
    return f"{problem}; wait longer with --wait, or if that process is gone, run: {_unlock_command(model_name)}"


def _unlock_command(model_name: str) -> str:
    return f'python promote.py --unlock --model-name {model_name} --reason "..."'


def _release_lock(lock: PromotionLock) -> None:
    try:
        lock.remove()
    except StoreError:
        logger.warning(
            "the lock of %s could not be removed; the next promote.py on this machine removes it", lock.model_name
        )
