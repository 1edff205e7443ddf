"""What the scripts share: option types, one JSON line on stdout, error lines, exit codes.

Imports nothing heavy, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import functools
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, Protocol

from pipeline.errors import UserError
from pipeline.signals import Stopped, raise_on_signals

OK, REFUSED, USER_ERROR = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are the one line that every script prints."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def parse_given(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return only the options that ``argv`` has, without defaults: name -> value."""
        not_given = object()
        defaults = vars(self.parse_args(argv))
        options = self.parse_args(argv, argparse.Namespace(**dict.fromkeys(defaults, not_given)))
        return {name: value for name, value in vars(options).items() if value is not not_given}

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


def add_store_patience_option(options: argparse._ActionsContainer) -> None:
    """Add ``--store-patience``, which the scripts have that log what took time to compute."""
    options.add_argument(
        "--store-patience",
        type=bounded_number(float, 0),
        default=300,
        metavar="SECONDS",
        help="seconds to wait in all for a store that does not answer (default: 300)",
    )


def log(message: str) -> None:
    """Write one line for people: to stderr, so that stdout stays one line of JSON.

    A line that nobody can read any more, as in a closed terminal, must not end a training.
    """
    with suppress(OSError, ValueError):  # ValueError: the stream is closed
        print(message, file=sys.stderr, flush=True)


def print_json(result: dict[str, Any]) -> None:
    """Write the script's result: one line of JSON on stdout.

    Raises
    ------
    UserError
        Nobody reads stdout any more, or its disk is full.
    """
    try:
        print(json.dumps(result, allow_nan=False), flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - Python would try once more at its end
        raise UserError(f"everything is done, but the result cannot be written to stdout ({error.strerror})") from None


class EntryPoint(Protocol):
    """The entry point of a script; None stands for the options of the command line."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the script; return its exit code."""


def entry_point(main: Callable[[Sequence[str]], int]) -> EntryPoint:
    """Make ``main``, which takes the options and returns the exit code, the entry point of a script.

    The result takes None for the options of the command line. It shows the log lines of the package, turns a
    `UserError` into one line and code 2, and a signal into 128 and its number: Ctrl-C into 130, SIGTERM into 143.
    Every other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        arguments = sys.argv[1:] if argv is None else argv
        _open_closed_streams()
        with _package_log(), raise_on_signals():
            try:
                return main([str(argument) for argument in arguments])
            except SystemExit as end:  # from argparse
                return int(end.code or 0)
            except UserError as error:
                log("error: " + " ".join(str(error).split()))
                return USER_ERROR
            except KeyboardInterrupt as interrupt:
                stop = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
                log(f"stopped; {stop.advice}" if stop.advice else "stopped")
                return 128 + stop.number

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


def _open_closed_streams() -> None:
    """Open /dev/null in place of a standard stream that is closed: the next file opened would take its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - until the process ends
