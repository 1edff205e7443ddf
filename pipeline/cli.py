"""What the scripts share: options, one JSON line on stdout, error lines, exit codes, files that appear whole.

Imports nothing heavy, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import json
import math
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from pipeline import UserError

OK, REFUSED, USER_ERROR = 0, 1, 2
POLICY = Path(__file__).parent.parent / "gates.toml"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are the one line that every script prints."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Print the one line and exit with code 2."""
        self.exit(USER_ERROR, f"error: {message}; {self.prog} --help lists the options\n")


def number(kind: type, low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], Any]:
    """Return an argparse type for a finite number from ``low`` (greater than ``low`` where ``above``) to ``high``."""
    wanted = f"{'a whole number' if kind is int else 'a number'} {'above' if above else 'of at least'} {low}"
    wanted += f" and at most {high}" if math.isfinite(high) else ""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high) or (above and value == low):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return convert


def short_name(dataset: str) -> str:
    """Return the name of a data set, which for one of your own is that of its directory."""
    return Path(dataset).resolve().name


def add_device(options: argparse._ActionsContainer) -> None:
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


def utc(when: datetime) -> str:
    """Return the time, UTC, to the second."""
    return when.astimezone(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


@contextmanager
def whole(directory: Path) -> Iterator[Path]:
    """Yield an empty directory inside ``directory``; at the end its files move up, so that each appears whole.

    After an exception nothing is left of it, nor of the directories that were made for it.

    Raises
    ------
    UserError
        The directory cannot be made or written.
    """
    made = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=directory, prefix="."))
    except OSError as error:
        raise UserError(f"cannot write to {directory} ({error.strerror}); choose another directory") from None
    try:
        yield beside
        for file in sorted(beside.iterdir()):
            file.replace(directory / file.name)
        made = []
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        for parent in made:
            parent.rmdir()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end the file moves to ``path``. Raises UserError where that cannot be."""
    with whole(path.parent) as folder:
        yield folder / path.name


def read(path: Path) -> str:
    """Return the text of ``path``; raise UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"cannot read {path} ({reason}); put it back") from None


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. A KeyboardInterrupt, so that both ways of stopping a script end its run alike."""


def _stop(number: int, frame: object) -> NoReturn:
    for name in (signal.SIGINT, signal.SIGTERM):  # a second one stops at once
        signal.signal(name, signal.SIG_DFL)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def run(main: Callable[[], int]) -> NoReturn:
    """Call ``main`` and exit with its code; turn what a person can put right, or asked for, into one line.

    0 done, 1 refused, 2 the caller's to put right, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _stop)
    try:
        code = main()
    except UserError as error:
        log("error: " + " ".join(str(error).split()))
        code = USER_ERROR
    except KeyboardInterrupt as stop:
        log("stopped")
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    sys.exit(code)
