"""The store is away: wait for it with patience, and create nothing twice."""

import logging
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import TypeVar

from pipeline.tracking.failures import (
    StoreAway,
    describe_failure,
    describe_problem,
    explain_failure,
    format_seconds,
    is_outage,
    is_timeout,
)
from pipeline.tracking.store import limit_requests

logger = logging.getLogger(__name__)

PAUSES = (0.5, 1, 2, 4, 8, 15)  # seconds between attempts; the last one is repeated
CREATION_PAUSES = (0.5, 1, 2, 4, 8)  # seconds
TIMEOUT_PAUSE = 10  # seconds: the server is perhaps at work on it for 20, as long as it waits for a locked database
T = TypeVar("T")

__all__ = ["Patience", "StoreAway", "create_once", "describe_failure", "describe_problem", "is_outage"]


class Patience:
    """The seconds that may be lost to a store that is away, in all requests together.

    Attributes
    ----------
    check : called before each attempt and every second of a pause; what it raises ends the waiting.
    """

    def __init__(self, seconds: float) -> None:
        self.check: Callable[[], None] = _check_nothing
        self._allowed = seconds
        self._lost = 0.0

    def call(self, request: Callable[[], T]) -> T:
        """Return what ``request`` returns; repeat it while the store is away, so it must do no harm twice.

        Raises
        ------
        StoreAway
            The store was away for longer than there is patience.
        """
        is_away = False
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            self.check()
            start = time.monotonic()
            try:
                with limit_requests(retries=0):
                    result = request()
            except Exception as error:
                failure = explain_failure(error)
                if not failure.is_outage:
                    raise
            else:
                if is_away:
                    logger.info("the store answers again")
                return result
            self._lost += time.monotonic() - start
            left = self._allowed - self._lost
            if left <= 0:
                break
            if not is_away:
                logger.warning("%s; waits for up to %s", failure.reason, format_seconds(left))
                is_away = True
            self._sleep(min(pause, left))
        raise StoreAway(self._lost, failure.reason)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(min(1, max(0, end - time.monotonic())))
        self._lost += seconds


def _check_nothing() -> None:
    pass


def create_once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Return what ``create`` returns; it must not succeed twice.

    If the store fails, the request has perhaps arrived: only if ``find`` returns None is it sent again.
    """
    for pause in CREATION_PAUSES:
        try:
            with limit_requests(retries=0):
                return create()
        except Exception as error:
            if not is_outage(error):
                raise
            pause_seconds = TIMEOUT_PAUSE if is_timeout(error) else pause
        time.sleep(pause_seconds)
        existing = find()
        if existing is not None:
            return existing
    with limit_requests(retries=0):
        return create()
