"""Fixtures that the tests share. The helpers that they import are in tests/support."""

import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

from support.browser import CHROMIUM_FLAGS
from support.files import write_idx_file
from support.git import clone_project
from support.pipelines import PipelineRun, copy_digits_pipeline, copy_mnist_pipeline
from support.scripts import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from support.docker import Docker
    from support.stack import TeamServer

DATA_DIR = Path(os.environ.get("DATA_DIR", ROOT / "data"))
SLOW_TESTS = Path(__file__).parent / "slow"
LONGEST_TESTS = ("test_compose.py", "test_images.py", "test_server.py")

# A test must not reach the store, the accounts or the CI job of the person who runs it.
for _name in [name for name in os.environ if name.startswith(("MLFLOW_", "GITHUB_"))]:
    del os.environ[_name]
os.environ["PYTHON_DOTENV_DISABLED"] = "1"
# As pipeline.tracking sets them; the fork server imports MLflow before it.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
# The tests share the cores among them already; threads of several trainings would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Seven processes less for each MLflow server; they serve features that are not used here.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

hypothesis.settings.register_profile("no_deadline", deadline=None)  # a busy machine is slow, not wrong
hypothesis.settings.load_profile("no_deadline")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/slow, and let the longest of them begin first."""
    for item in items:
        if SLOW_TESTS in item.path.parents:
            item.add_marker("slow")
    items.sort(key=lambda item: item.path.name not in LONGEST_TESTS)


@pytest.fixture(autouse=True)
def restore_environment() -> Iterator[None]:
    """Undo what MLflow writes into the environment, which the scripts of a later test would obey.

    urllib reads the proxies of the environment once, so what it has read is undone too; and a training that is resumed
    sets the number of threads. MLflow remembers for each run where its files are, but tests have copies of runs.
    """
    import pipeline.tracking.store  # noqa: F401 - its settings stay

    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    urllib.request.install_opener(None)  # as when Python starts
    if "mlflow" in sys.modules:
        from mlflow.tracking._tracking_service import utils

        utils._artifact_repos_cache.clear()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped if nothing may be skipped: CI sets NO_SKIP."""
    report = yield
    if report.skipped and "NO_SKIP" in os.environ:
        report.outcome = "failed"
    return report


# --- stores ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow database: making one takes seconds, copying it does not."""
    import mlflow

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a new store the current one of this process; return its directory, which is the current one too."""
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    return tmp_path


@pytest.fixture
def digits_pipeline(tmp_path_factory: pytest.TempPathFactory) -> PipelineRun:
    """Return what the three scripts made of digits, in a copy of the test's own."""
    return copy_digits_pipeline(tmp_path_factory)


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the directory with the full MNIST and Fashion-MNIST, or skip."""
    if not (DATA_DIR / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"the full MNIST is not in {DATA_DIR}; run pytorch_demo.py once, or set DATA_DIR")
    return DATA_DIR


@pytest.fixture
def mnist_pipeline(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineRun:
    """Return what the three scripts made of the real MNIST in two epochs, in a copy of the test's own."""
    return copy_mnist_pipeline(tmp_path_factory, real_data)


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Return a function that writes MNIST files of 6,000 and 100 random images and makes torchvision expect them."""
    from torchvision.datasets import MNIST

    def write() -> Path:
        random = np.random.default_rng(0)
        folder = tmp_path / "data" / "MNIST" / "raw"
        resources = []
        for part, size in (("train", 6_000), ("t10k", 100)):
            images = random.integers(0, 256, (size, 28, 28))
            labels = np.arange(size) % 10
            for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                name = f"{part}-{kind}-ubyte.gz"
                resources.append((name, write_idx_file(folder / name, array)))
        monkeypatch.setattr(MNIST, "resources", resources)
        return tmp_path / "data"

    return write


# --- Git ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def git_author(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git commit on any machine."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "me")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "me@example.com")


@pytest.fixture
def checkout(tmp_path: Path, git_author: None) -> Path:
    """Return a clone of this project's code, as it is now, as the only commit of a repository."""
    return clone_project(tmp_path)


# --- the browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> str:
    """Return the path of the browser, or skip, before anything is trained for it."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    for name in names:
        path = shutil.which(name) if name else None
        if path:
            return path
    pytest.skip("no browser: apt-get install chromium, or set CHROMIUM to the path of Chromium or Chrome")


@pytest.fixture(scope="module")
def browser(chromium: str) -> "Iterator[Browser]":
    """Start the browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


# --- the team's server ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mariadb() -> str:
    """Return the path of the program that creates a MariaDB database, or skip."""
    path = shutil.which("mariadb-install-db")
    if path:
        return path
    pytest.skip("MariaDB is not installed: apt-get install mariadb-server")


@pytest.fixture(scope="module")
def server(mariadb: str, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[TeamServer]":
    """Start a team's server of the module's own."""
    from support.stack import run_team_server

    with run_team_server(tmp_path_factory.mktemp("team") / "server") as running:
        yield running


# --- the images -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> "Docker":
    """Return Docker with the images that others make, or skip."""
    from support.docker import prepare_docker

    return prepare_docker(tmp_path_factory)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded under the name "image": its size, and what it was built on."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "image":
                terminalreporter.write_line(f"image {value}")
