"""Signals that stop a script: they raise, or wait until the work at hand is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

# What stops a script: Ctrl-C, a scheduler, a closed terminal, and how SLURM announces the end of a job's time.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)


class Stopped(KeyboardInterrupt):
    """A signal arrived. A KeyboardInterrupt, so that all ways of stopping a script end its run alike.

    Attributes
    ----------
    number : of the signal.
    advice : what to do next, for the last line on stderr; empty: nothing.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.advice = ""


class StopRequest:
    """A signal that arrived and waits until somebody asks; ``number`` is None before."""

    def __init__(self) -> None:
        self.number: int | None = None

    def is_made(self) -> bool:
        """Return whether a signal has arrived."""
        return self.number is not None

    def raise_if_made(self) -> None:
        """Raise `Stopped` if a signal has arrived."""
        if self.number is not None:
            raise Stopped(self.number)


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Let `SIGNALS` raise `Stopped`; a second signal stops the process at once."""

    def raise_stopped(number: int, frame: object) -> NoReturn:
        _stop_at_second_signal()
        raise Stopped(number)

    previous = _handle_signals(raise_stopped)
    try:
        yield
    finally:
        _restore_handlers(previous)


@contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Inside the ``with`` block, let a signal wait until the block asks for it: it interrupts nothing half-way.

    A second signal stops the process at once.
    """
    request = StopRequest()

    def note_request(number: int, frame: object) -> None:
        _stop_at_second_signal()
        request.number = number

    previous = _handle_signals(note_request)
    try:
        yield request
    finally:
        if not request.is_made():  # else the next signal stops the process
            _restore_handlers(previous)


def _handle_signals(handler: Callable[[int, Any], object]) -> dict[int, Any]:
    """Set the handler of `SIGNALS`; return the former ones."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        return {}
    handled = [number for number in SIGNALS if not _is_ignored(number)]
    return {number: signal.signal(number, handler) for number in handled}


def _is_ignored(number: signal.Signals) -> bool:
    """Return whether nohup makes the process ignore the signal. A shell script does so with SIGINT; that must work."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _restore_handlers(previous: dict[int, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)


def _stop_at_second_signal() -> None:
    """Let the next signal stop the process, except SIGHUP: a terminal that closes sends it twice."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
