"""What the scripts share: option types, one JSON line on stdout, error lines, exit codes.

Imports nothing heavy, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import functools
import json
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from pipeline.errors import UserError

OK, REFUSED, USER_ERROR = 0, 1, 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are the one line that every script prints."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Print the one line and exit with code 2."""
        self.exit(USER_ERROR, f"error: {message}; {self.prog} --help lists the options\n")


def bounded_number(
    kind: type, minimum: float, maximum: float = math.inf, *, exclusive: bool = False
) -> Callable[[str], Any]:
    """Return an argparse type for a finite number from ``minimum`` to ``maximum``.

    If ``exclusive``, the number has to be greater than ``minimum``.
    """
    noun = "a whole number" if kind is int else "a number"
    expected = f"{noun} above {minimum}" if exclusive else f"{noun} of at least {minimum}"
    if math.isfinite(maximum):
        expected += f" and at most {maximum}"

    def convert(text: str) -> Any:
        error = argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        try:
            value = kind(text)
        except ValueError:
            raise error from None
        if not math.isfinite(value) or value < minimum or value > maximum:
            raise error
        if exclusive and value == minimum:
            raise error
        return value

    return convert


def add_device_option(options: argparse._ActionsContainer) -> None:
    """Add ``--device``, which every script that computes has."""
    options.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute (default: auto)"
    )


def log(message: str) -> None:
    """Write one line for people: to stderr, so that stdout stays one line of JSON."""
    print(message, file=sys.stderr, flush=True)


def print_json(result: dict[str, Any]) -> None:
    """Write the script's result: one line of JSON on stdout."""
    print(json.dumps(result, allow_nan=False), flush=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. A KeyboardInterrupt, so that both ways of stopping a script end its run alike."""


class EntryPoint(Protocol):
    """The entry point of a script; None stands for the options of the command line."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the script; return its exit code."""


def entry_point(main: Callable[[Sequence[str]], int]) -> EntryPoint:
    """Make ``main``, which takes the options and returns the exit code, the entry point of a script.

    The result takes None for the options of the command line. It shows the log lines of the package, turns a
    `UserError` into one line and code 2, Ctrl-C into code 130, SIGTERM into 143. Every other exception is a bug and
    keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        arguments = sys.argv[1:] if argv is None else argv
        with _package_log(), _signal_handlers():
            try:
                return main([str(argument) for argument in arguments])
            except SystemExit as end:  # from argparse
                return int(end.code or 0)
            except UserError as error:
                log("error: " + " ".join(str(error).split()))
                return USER_ERROR
            except Terminated:
                log("stopped")
                return 128 + signal.SIGTERM
            except KeyboardInterrupt:
                log("stopped")
                return 128 + signal.SIGINT

    return run


class _LineFormatter(logging.Formatter):
    """A message as it is; a warning says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return f"warning: {message}" if record.levelno >= logging.WARNING else message


@contextmanager
def _package_log() -> Iterator[None]:
    """Show what the modules of the package log, on stderr."""
    logger = logging.getLogger("pipeline")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


@contextmanager
def _signal_handlers() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise; a second signal stops the process at once."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return
    previous = {number: signal.signal(number, _raise_interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_interrupt(number: int, frame: object) -> NoReturn:
    for name in SIGNALS:
        signal.signal(name, signal.SIG_DFL)
    if number == signal.SIGTERM:
        raise Terminated
    raise KeyboardInterrupt
