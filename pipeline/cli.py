"""What the scripts share: option types, one JSON line on stdout, error lines, exit codes.

Imports nothing heavy, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import functools
import io
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

from pipeline.errors import UserError
from pipeline.redact import redact, redact_value
from pipeline.signals import Stopped, raise_on_signals
from pipeline.text import format_log_line

OK, REFUSED, USER_ERROR = 0, 1, 2
BUG = 70  # EX_SOFTWARE of sysexits.h; not 1, with which Python ends: that says that the answer is no
MAX_NUMBER = 1_000_000_000  # of an option, unless it has another maximum
MAX_TEXT_LENGTH = 5000  # characters of an option, as of a tag in MLflow
MAX_NAME_SIZE, MAX_PATH_SIZE = 255, 4095  # bytes, of a file on Linux
MAX_SHOWN_LENGTH = 100  # characters of a value in a message


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are the one line that every script prints."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.register("type", None, text)  # of an option without a type

    def parse_given(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return only the options that ``argv`` has, without defaults: name -> value."""
        not_given = object()
        defaults = vars(self.parse_args(argv))
        options = self.parse_args(argv, argparse.Namespace(**dict.fromkeys(defaults, not_given)))
        return {name: value for name, value in vars(options).items() if value is not not_given}

    def error(self, message: str) -> NoReturn:
        """Print the one line and exit with code 2."""
        log(f"error: {message}; {self.prog} --help lists the options")
        self.exit(USER_ERROR)


def bounded_number(
    kind: type, minimum: float, maximum: float = MAX_NUMBER, *, exclusive: bool = False
) -> Callable[[str], Any]:
    """Return an argparse type for a number from ``minimum`` to ``maximum``.

    If ``exclusive``, the number has to be greater than ``minimum``.
    """
    noun = "a whole number" if kind is int else "a number"
    expected = f"{noun} above {minimum}" if exclusive else f"{noun} of at least {minimum}"
    expected += f" and at most {maximum}"

    def convert(text: str) -> Any:
        error = argparse.ArgumentTypeError(f"{_shorten(text)} is not {expected}")
        try:
            value = kind(text)
        except ValueError:  # also more than 4,300 digits
            raise error from None
        if not minimum <= value <= maximum:  # NaN is not
            raise error
        if exclusive and value == minimum:
            raise error
        return value

    return convert


def text(value: str) -> str:
    """Return a name or a sentence, which is not empty and not longer than MLflow can keep; an argparse type."""
    if not value.strip():
        raise argparse.ArgumentTypeError("it is empty; leave the option out for its default")
    if len(value) > MAX_TEXT_LENGTH:
        raise argparse.ArgumentTypeError(f"{_shorten(value)} has more than {MAX_TEXT_LENGTH:,} characters")
    return value


def path(value: str) -> Path:
    """Return the path of a file or directory that can exist; an argparse type."""
    if not value:
        raise argparse.ArgumentTypeError("it is empty; the current directory is .")
    name_sizes = [len(os.fsencode(name)) for name in value.split("/")]
    if len(os.fsencode(value)) > MAX_PATH_SIZE or max(name_sizes) > MAX_NAME_SIZE:
        raise argparse.ArgumentTypeError(f"{_shorten(value)} is too long for the path of a file")
    return Path(value)


def _shorten(value: str) -> str:
    return repr(value) if len(value) <= MAX_SHOWN_LENGTH else f"{value[:MAX_SHOWN_LENGTH]!r}..."


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
    _write_to_stderr(format_log_line(redact(message)))


def print_text(text: str) -> None:
    """Write lines for people to stdout. A name in them must not have a newline: `pipeline.text.printable` escapes it.

    Raises
    ------
    UserError
        Nobody reads stdout any more, or its disk is full.
    """
    _write_to_stdout("\n".join(format_log_line(redact(line)) for line in text.split("\n")))


def print_json(result: dict[str, Any]) -> None:
    """Write the script's result: one line of JSON on stdout, in ASCII.

    Raises
    ------
    UserError
        Nobody reads stdout any more, or its disk is full.
    """
    text = json.dumps(redact_value(result), allow_nan=False)
    _write_to_stdout(text.replace("##", r"#\u0023"))  # in a CI job's log, "##[error]" would be a command


def _write_to_stderr(line: str) -> None:
    with suppress(OSError, ValueError):  # ValueError: the stream is closed
        print(line, file=sys.stderr, flush=True)


def _write_to_stdout(text: str) -> None:
    try:
        print(text, flush=True)
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
    An exception of others that says what the caller can change, such as too little memory, is one line and code 2
    too. Every other exception is a bug: it shows its traceback and gives code 70.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        arguments = sys.argv[1:] if argv is None else argv
        _open_closed_streams()
        _escape_unencodable_text()
        with _stop_workflow_commands(), _package_log(), raise_on_signals():
            try:
                return main([_check_argument(str(argument)) for argument in arguments])
            except SystemExit as end:  # from argparse
                return int(end.code or 0)
            except UserError as error:
                log("error: " + " ".join(str(error).split()))
                return USER_ERROR
            except KeyboardInterrupt as interrupt:
                stop = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
                log(f"stopped; {stop.advice}" if stop.advice else "stopped")
                return 128 + stop.number
            except Exception as error:
                problem = _explain_exception(error)
                if problem:
                    log(f"error: {problem}")
                    return USER_ERROR
                for line in traceback.format_exc().splitlines():
                    log(line)
                return BUG

    return run


def _check_argument(argument: str) -> str:
    """Return the argument; raise UserError if neither a store nor a result in JSON can have it."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(f"the argument {_shorten(argument)} is not UTF-8; rename what it names") from None
    if "\0" in argument:
        raise UserError(f"the argument {_shorten(argument)} has a null character; leave it out")
    return argument


def _explain_exception(error: Exception) -> str | None:
    """Return in one line what the caller can do about an exception; None for a bug."""
    if _is_out_of_memory(error):
        return "there is not enough memory; choose a smaller --batch-size or fewer images, or stop other programs"
    if isinstance(error, BrokenExecutor):
        return "a worker process was killed, as happens if the memory is full; stop other programs, or use fewer images"
    if isinstance(error, ModuleNotFoundError):
        package, _, _ = (error.name or "pipeline").partition(".")
        if package != "pipeline":
            return f"the package {package} is not installed; run: pip install --require-hashes -r requirements.lock"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was too small. PyTorch has an exception of its own for a GPU, and none for the CPU."""
    if isinstance(error, RuntimeError):
        return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError)


class _LineFormatter(logging.Formatter):
    """A message in one line; a warning says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = redact(super().format(record))
        return format_log_line(f"warning: {message}" if record.levelno >= logging.WARNING else message)


@contextmanager
def _stop_workflow_commands() -> Iterator[None]:
    """Let GitHub Actions take no line for a command, also none of a library; after the script it does so again.

    Only who knows the word can go on: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands.
    The runner may read the end of stdout after the end of stderr, so that what is written to stdout is harmless anyway.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        yield
        return
    word = os.urandom(16).hex()
    _write_to_stderr(f"::stop-commands::{word}")
    try:
        yield
    finally:
        _write_to_stderr(f"::{word}::")


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


def _escape_unencodable_text() -> None:
    """Let stdout write what its encoding lacks, as with LC_ALL=en_US.ISO-8859-1, as stderr does: escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    """Open /dev/null in place of a standard stream that is closed: the next file opened would take its number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - until the process ends
