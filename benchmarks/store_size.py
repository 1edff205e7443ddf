"""Measure every script in a store of 10,000 runs next to a store with three. One table.

    python benchmarks/store_size.py                          about fifteen minutes on two cores
    python benchmarks/store_size.py --repeat 9 --script compare
    python benchmarks/store_size.py --server                 the scripts that only read, over MLflow servers

The large store is the small one with copies of its rows: 10,000 runs, 2,000 versions of one model, 1,200 registered
models, 1,000 decisions. The commands are those that a user types, each time in a new process; those that write work on
a copy. The two stores take turns. Do not use the machine meanwhile.
"""

import argparse
import json
import os
import resource
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, for the pipeline and the scripts

from large_store import MODEL_NAME, Sizes, enlarge_store
from pipeline import cli

ROOT = Path(cli.__file__).parent.parent
LARGE = Sizes(runs=10_000, versions=2_000, models=1_200, decisions=1_000)
LIMIT = 1.5  # times the small store
SERVER_TIMEOUT = 120  # seconds
MODEL = ("--model-name", MODEL_NAME)


@dataclass(frozen=True)
class Command:
    """A command to measure.

    Attributes
    ----------
    name : in the table, and for ``--script``.
    arguments : the script and its options; RUN stands for the run of the newest version.
    writes : whether it changes the store.
    """

    name: str
    arguments: tuple[str, ...]
    writes: bool = False


COMMANDS = (
    Command("evaluate", ("evaluate.py", "--run-id", "RUN", "--output-dir", "evaluation/measured")),
    Command("evaluate --log-mlflow", ("evaluate.py", "--run-id", "RUN", "--log-mlflow"), writes=True),
    Command("promote --dry-run", ("promote.py", "--run-id", "RUN", "--dry-run", "--reason", "measured")),
    Command("promote", ("promote.py", "--run-id", "RUN", "--reason", "measured"), writes=True),
    Command("promote --history", ("promote.py", "--history", "--json", *MODEL)),
    Command("promote --rollback", ("promote.py", "--rollback", "--reason", "measured", *MODEL), writes=True),
    Command("compare", ("compare.py",)),
    Command("compare --plot", ("compare.py", "--plot", "compare.png")),
    Command("lineage", ("lineage.py", "--model", MODEL_NAME)),
    Command("lineage --run-id", ("lineage.py", "--run-id", "RUN")),
    Command("predict", ("predict.py", "digit.png", *MODEL)),
    Command("train", ("pytorch_demo.py", "--dataset", "digits", "--epochs", "1"), writes=True),
)


@dataclass(frozen=True)
class Row:
    """A line of the table: the seconds of a command, on the clock and of the processor, in both stores."""

    name: str
    small: list[float]
    large: list[float]
    small_cpu: list[float]
    large_cpu: list[float]

    @property
    def ratio(self) -> float:
        """How many times as long the large store takes."""
        return statistics.median(self.large) / statistics.median(self.small)

    def cells(self) -> dict[str, str]:
        """Return the cells of the line."""
        cpu_ratio = statistics.median(self.large_cpu) / statistics.median(self.small_cpu)
        return {
            "command": self.name,
            "three runs": _format_seconds(self.small),
            "large store": _format_seconds(self.large),
            "ratio": f"{self.ratio:.2f}",
            "ratio of processor time": f"{cpu_ratio:.2f}",
        }


def _format_seconds(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--repeat", type=cli.bounded_number(int, 1), default=5, metavar="N", help="times each (default: 5)"
    )
    parser.add_argument(
        "--script", action="append", choices=[command.name for command in COMMANDS], help="only this one; repeatable"
    )
    parser.add_argument("--server", action="store_true", help="over MLflow servers, only what reads")
    parser.add_argument(
        "--folder", type=cli.path, metavar="DIR", help="keep the stores there, and use those that are there"
    )
    parser.add_argument(
        "--code", type=cli.path, default=ROOT, metavar="DIR", help="measure the scripts of another checkout"
    )
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Build both stores, measure each command in turns, print the table and JSON."""
    options = parse_options(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        if not (folder / "large.db").exists():
            build_stores(folder)
        commands = [command for command in COMMANDS if not options.script or command.name in options.script]
        if options.server:
            rows = measure_over_servers(folder, options.code.resolve(), commands, options.repeat)
        else:
            rows = measure_files(folder, options.code.resolve(), commands, options.repeat)
    print_rows(rows)
    return cli.OK if all(row.ratio <= LIMIT for row in rows) else cli.REFUSED


def print_rows(rows: list[Row]) -> None:
    """Show people the table, and print the JSON for programs."""
    import pandas as pd

    from pipeline.provenance.record import cpu_name

    table = pd.DataFrame([row.cells() for row in rows]).to_string(index=False)
    for line in ("", f"{cpu_name()}, {os.cpu_count()} cores", "", *table.splitlines()):
        cli.log(line)
    cli.print_json({"cpu": cpu_name(), "cores": os.cpu_count(), "rows": [asdict(row) for row in rows]})


# --- the stores -----------------------------------------------------------------------------------------------------


def build_stores(folder: Path) -> None:
    """Train, evaluate and promote three times, and write the stores ``small.db`` and ``large.db`` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    small = folder / "small.db"
    for seed in range(3):
        training = run_script(ROOT, folder, small, ("pytorch_demo.py", "--dataset", "digits", "--seed", str(seed)))
        run_id = json.loads(training.stdout)["run_id"]
        run_script(ROOT, folder, small, ("evaluate.py", "--run-id", run_id, "--log-mlflow"))
        force = ("--reason", "the next one") if seed else ()
        run_script(ROOT, folder, small, ("promote.py", "--run-id", run_id, *force), codes=(cli.OK, cli.REFUSED))
    write_picture(folder / "digit.png")
    large = folder / "being made.db"
    copy_database(small, large)
    enlarge_store(large, LARGE)
    large.rename(folder / "large.db")


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite store; the artifacts stay where they are."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def write_picture(file: Path) -> None:
    """Write a picture of a digit."""
    from PIL import Image

    from pipeline.data.datasets import load_splits

    images = load_splits("digits", file.parent).test.images
    Image.fromarray(images[0, 0].numpy()).save(file)


def find_newest_run(database: Path) -> str:
    """Return the run of the newest version that was trained, not copied."""
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT run_id FROM model_versions WHERE name = ? AND version = 3"
        (run_id,) = connection.execute(query, (MODEL_NAME,)).fetchone()
    return str(run_id)


# --- measure --------------------------------------------------------------------------------------------------------


def measure_files(folder: Path, code: Path, commands: Sequence[Command], repeat: int) -> list[Row]:
    """Return how long each command takes in the two SQLite files."""

    def find_store(command: Command, name: str) -> Path:
        if not command.writes:
            return folder / f"{name}.db"
        copy_database(folder / f"{name}.db", folder / "copy.db")
        return folder / "copy.db"

    return [measure_in_turns(command, folder, code, repeat, partial(find_store, command)) for command in commands]


def measure_over_servers(folder: Path, code: Path, commands: Sequence[Command], repeat: int) -> list[Row]:
    """Return how long each command that only reads takes over two MLflow servers."""
    reading = [command for command in commands if not command.writes]
    with run_mlflow_server(folder, "small.db") as small, run_mlflow_server(folder, "large.db") as large:
        addresses = {"small": small, "large": large}
        return [measure_in_turns(command, folder, code, repeat, addresses.__getitem__) for command in reading]


def measure_in_turns(
    command: Command, folder: Path, code: Path, repeat: int, find_store: Callable[[str], Path | str]
) -> Row:
    """Return how long a command takes; ``find_store`` returns the file or address of the store "small" or "large"."""
    row = Row(command.name, [], [], [], [])
    for _ in range(repeat):
        for name, seconds, cpu in (("small", row.small, row.small_cpu), ("large", row.large, row.large_cpu)):
            store = find_store(name)
            finished = run_script(code, folder, store, fill_in(command, folder), codes=(cli.OK, cli.REFUSED))
            seconds.append(finished.seconds)
            cpu.append(finished.cpu_seconds)
    cli.log(str(row.cells()))
    return row


def fill_in(command: Command, folder: Path) -> tuple[str, ...]:
    """Return the arguments with the id of the run."""
    run_id = find_newest_run(folder / "small.db")
    return tuple(run_id if argument == "RUN" else argument for argument in command.arguments)


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its seconds on the clock and of the processor, and its stdout."""

    seconds: float
    cpu_seconds: float
    stdout: str


def run_script(
    code: Path, folder: Path, store: Path | str, arguments: Sequence[str], codes: Sequence[int] = (cli.OK,)
) -> Finished:
    """Run a script of the checkout ``code`` in ``folder`` on a SQLite file or a server."""
    address = store if isinstance(store, str) else f"sqlite:///{store}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": address, "PYTHON_DOTENV_DISABLED": "1"}
    command = [sys.executable, str(code / arguments[0]), *arguments[1:]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S603
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in codes:
        raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stderr}")
    cpu_seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Finished(seconds, cpu_seconds, done.stdout)


@contextmanager
def run_mlflow_server(folder: Path, database: str) -> Iterator[str]:
    """Run an MLflow server over a SQLite file in ``folder`` until the end of the block; yield its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / database}"]
    server = subprocess.Popen(  # noqa: S603 - MLflow's own command
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + SERVER_TIMEOUT
        while not is_listening(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def is_listening(port: int) -> bool:
    """Return whether a server on this machine takes connections at the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main())
