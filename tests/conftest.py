"""What the tests share: a store of their own, the scripts as a user runs them, small data in the real formats."""

import gc
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import patch

import numpy as np
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
DATA_DIR = Path(os.environ.get("DATA_DIR", ROOT / "data"))

# A test must not reach the store, the accounts or the CI job of whoever runs it.
for _name in [name for name in os.environ if name.startswith(("MLFLOW_", "GITHUB_"))]:
    del os.environ[_name]
os.environ["PYTHON_DOTENV_DISABLED"] = "1"

# The tests share the cores among them already; threads of several trainings would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

# Seven processes less for each MLflow server; they serve features that are not used here.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest tests begin first, so that none is left alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_server.py")


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Undo what MLflow writes into the environment, which the scripts of a later test would obey."""
    import pipeline.tracking  # noqa: F401 - its settings stay

    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def missing(what: str) -> NoReturn:
    """Skip the test for want of ``what``; fail it where nothing may be skipped: CI sets NO_SKIP."""
    if os.environ.get("NO_SKIP"):
        pytest.fail(what)
    pytest.skip(what)


CHROMIUM_FLAGS = (
    "--no-sandbox",  # it refuses to start as root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a test must not reach the network
)


@dataclass(frozen=True)
class Result:
    """What a script did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one line of JSON on stdout."""
        (line,) = self.stdout.splitlines()
        content: dict[str, Any] = json.loads(line)
        return content

    @property
    def error(self) -> str:
        """The one line on stderr of a script that ended with code 2."""
        assert (self.code, self.stdout) == (2, ""), self
        (line,) = self.stderr.splitlines()
        assert line.startswith("error: "), line
        return line


def run_script(
    folder: Path, script: str, *arguments: object, root: Path = ROOT, env: dict[str, str] | None = None
) -> Result:
    """Run a script in ``folder`` as a user would, on the SQLite store in it, in a process of its own."""
    with tempfile.TemporaryDirectory() as aside:
        stdout, stderr = Path(aside, "stdout"), Path(aside, "stderr")
        request = {
            "script": str(root / script),
            "arguments": list(map(str, arguments)),
            "folder": str(folder),
            "env": os.environ | (env or {}),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        with _one_at_a_time:
            zygote = _zygote()
            assert zygote.stdin and zygote.stdout
            print(json.dumps(request), file=zygote.stdin, flush=True)
            timeout = threading.Timer(240, os.kill, (int(zygote.stdout.readline()), signal.SIGKILL))
            timeout.start()
            code = int(zygote.stdout.readline())
            timeout.cancel()
        return Result(code, stdout.read_text(), stderr.read_text())


_one_at_a_time = threading.Lock()


@cache
def _zygote() -> "subprocess.Popen[str]":
    """Start tests/zygote.py, which ends with this process."""
    command = [sys.executable, str(ROOT / "tests" / "zygote.py")]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}  # as pipeline.tracking has them
    return subprocess.Popen(
        command, env=os.environ | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def call(main: Callable[[], int], *arguments: object, folder: Path | None = None) -> Result:
    """Call a script's ``main`` in this process, where its imports are done already: that takes most of a script's time.

    In the current directory and store, or in ``folder`` and on the SQLite store in it.
    """
    from pipeline import cli

    if folder:
        with chdir(folder), patch.dict(os.environ, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db"):
            return call(main, *arguments)
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.argv = [f"{main.__module__}.py", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.run(main)
    finally:
        gc.enable()  # compare.py turns it off
        sys.argv = before[0]
        for number, handler in before[1].items():
            signal.signal(number, handler)
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def forked(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> list[Any]:
    """Run tests/forked.py in ``folder``."""
    command = [sys.executable, str(ROOT / "tests" / "forked.py"), *map(str, arguments)]
    env = os.environ | (env or {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=folder, env=env)
    return list(json.loads(done.stdout))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow database; making one takes seconds, copying it does not."""
    import mlflow

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a new store, the current one of this process; return its directory, which is the current one too."""
    import mlflow

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def once_for_all(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return a directory and what ``make`` said when it filled it: one test process does, the others wait for it."""
    common = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    folder, said = common / name, common / f"{name}.pickle"
    with FileLock(common / f"{name}.lock"):
        if not said.exists():
            folder.mkdir()
            said.write_bytes(pickle.dumps(make(folder)))
        return folder, pickle.loads(said.read_bytes())


def own_copy(factory: pytest.TempPathFactory, made: Path) -> Path:
    """Return a copy of the directory, whose stores, which know artifacts by absolute paths, know them in the copy."""
    folder = factory.mktemp("own")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    for file in folder.glob("*.db"):
        with sqlite3.connect(file) as database:
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"),
            ):
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(made), str(folder)))
        database.close()
    return folder


@dataclass(frozen=True)
class Pipeline:
    """A directory of the test's own in which the three scripts have run on digits, and what each of them said.

    ``before.db`` in it is the store before the promotion.
    """

    folder: Path
    trained: Result
    evaluated: Result
    promoted: Result

    @property
    def run_id(self) -> str:
        """The run that trained."""
        run_id: str = self.trained.json["run_id"]
        return run_id


def _scripts(
    factory: pytest.TempPathFactory,
    name: str,
    train: tuple[object, ...],
    evaluate: tuple[object, ...] = (),
    promote: tuple[object, ...] = (),
) -> Pipeline:
    """Run the three scripts with these options, once for all tests, and return a copy."""

    def make(folder: Path) -> tuple[Result, Result, Result]:
        trained = run_script(folder, "pytorch_demo.py", *train)
        run = ("--run-id", trained.json["run_id"])
        evaluated = run_script(folder, "evaluate.py", *run, "--batch-size", 64, "--log-mlflow", *evaluate)
        shutil.copy(folder / "mlflow.db", folder / "before.db")
        return trained, evaluated, run_script(folder, "promote.py", *run, *promote)

    made, results = once_for_all(factory, name, make)
    return Pipeline(own_copy(factory, made), *results)


def own_pipeline(factory: pytest.TempPathFactory) -> Pipeline:
    """Run the three scripts on digits, once for all tests, and return a copy."""
    return _scripts(factory, "pipeline", ("--dataset", "digits", "--run-name", "lr 0.01"))


@pytest.fixture
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Return what the three scripts made of digits, in a copy of the test's own."""
    return own_pipeline(tmp_path_factory)


def git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` and return what it printed."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git commit, whoever runs the tests."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "me")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "me@example.com")


@pytest.fixture
def checkout(tmp_path: Path, somebody: None) -> Path:
    """Return a clone of this project's code, as it is now, as the only commit of a repository."""
    origin, folder = tmp_path / "origin", tmp_path / "checkout"
    origin.mkdir()
    for pattern in ("*.py", "gates.toml", "MLproject", "python_env.yaml", "requirements.txt", ".gitignore"):
        for file in ROOT.glob(pattern):
            shutil.copy(file, origin)
    shutil.copytree(ROOT / "pipeline", origin / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    git(origin, "init", "--quiet", "--initial-branch", "main")
    git(origin, "add", ".")
    git(origin, "commit", "--quiet", "--message", "everything")
    git(tmp_path, "clone", "--quiet", str(origin), str(folder))
    return folder


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run an MLflow server over the store in ``folder`` and yield its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with running_server(command, folder, lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"


def listens(port: int) -> bool:
    """Return whether a server on this machine takes connections at the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_server(
    command: list[str],
    folder: Path,
    ready: Callable[[], bool],
    env: dict[str, str] | None = None,
    log: str = "server.log",
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server, in ``folder`` and a process group of its own, until the end of the block, which waits for it."""
    with (folder / log).open("a") as output:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not ready():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command} did not start:\n{(folder / log).read_text()[-3000:]}")
            time.sleep(0.1)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def chromium() -> str:
    """Return where the browser is, or skip, saying how to get one, before anything is trained for it."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    return path or missing("no browser: apt-get install chromium, or set CHROMIUM to the path of Chromium or Chrome")


@pytest.fixture(scope="module")
def browser(chromium: str) -> "Iterator[Browser]":
    """Start the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def save_picture(screenshot: bytes, name: str) -> None:
    """Save what the browser shows where SCREENSHOTS says, if it does."""
    from PIL import Image

    if folder := os.environ.get("SCREENSHOTS"):  # 256 colours are enough, and a third of the bytes
        Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(256).save(ROOT / folder / name, optimize=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the directory with the full MNIST and Fashion-MNIST, or skip, saying so."""
    if not (DATA_DIR / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"the full MNIST is not in {DATA_DIR}; run pytorch_demo.py once, or set DATA_DIR")
    return DATA_DIR


@pytest.fixture
def mnist(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Return what the three scripts made of the real MNIST in two epochs, in a copy of the test's own."""
    return own_mnist(tmp_path_factory)


def own_mnist(factory: pytest.TempPathFactory) -> Pipeline:
    """Run the three scripts on MNIST, once for all tests, and return a copy."""
    data = ("--data-dir", DATA_DIR)
    return _scripts(factory, "mnist", ("--epochs", 2, *data), data, ("--min-accuracy", 0.85))


def bomb(side: int) -> bytes:
    """Return a whole PNG file of ``side`` x ``side`` pixels, black or white, all black."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    pixels = zlib.compress(bytes((1 + side // 8) * side), 1)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_idx(path: Path, array: np.ndarray) -> str:
    """Write a gzipped IDX file of unsigned bytes; return its MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Return a function that writes MNIST files of 6,000 and 100 random images and makes torchvision expect them."""
    from torchvision.datasets import MNIST

    def write() -> Path:
        random = np.random.default_rng(0)
        md5s = []
        for part, size in (("train", 6_000), ("t10k", 100)):
            for kind, array in (
                ("images-idx3", random.integers(0, 256, (size, 28, 28))),
                ("labels-idx1", np.arange(size) % 10),
            ):
                name = f"{part}-{kind}-ubyte.gz"
                md5s.append((name, write_idx(tmp_path / "data" / "MNIST" / "raw" / name, array)))
        monkeypatch.setattr(MNIST, "resources", md5s)
        return tmp_path / "data"

    return write
