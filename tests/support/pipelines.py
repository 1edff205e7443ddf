"""Stores in which the three scripts have run: made once for all test processes, copied for each test."""

import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from support.scripts import Result, call_main

# Where a store keeps absolute paths of artifacts.
PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return a directory, and what ``build`` returned when it filled it.

    One test process builds it, the others wait.
    """
    common = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    folder = common / name
    result = common / f"{name}.pickle"
    with FileLock(common / f"{name}.lock"):
        if not result.exists():
            folder.mkdir(exist_ok=True)
            result.write_bytes(pickle.dumps(build(folder)))
        return folder, pickle.loads(result.read_bytes())


def copy_stores(source: Path, target: Path) -> Path:
    """Copy a directory with SQLite stores, and make the copies point to the copied artifacts; return ``target``."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    for file in target.glob("*.db"):
        database = sqlite3.connect(file)
        with database:
            for table, column in PATH_COLUMNS:
                statement = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                database.execute(statement, (str(source), str(target)))
        database.close()
    return target


@dataclass(frozen=True)
class PipelineRun:
    """A directory of the test's own in which the three scripts have run, and the result of each.

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

    @property
    def model_uri(self) -> str:
        """The address of its model."""
        uri: str = self.trained.json["model_uri"]
        return uri


def copy_pipeline(
    factory: pytest.TempPathFactory,
    name: str,
    train: Sequence[object],
    evaluate: Sequence[object] = (),
    promote: Sequence[object] = (),
) -> PipelineRun:
    """Run the three scripts with these options, once for all tests, and return a copy of what they made."""

    def build(folder: Path) -> tuple[Result, Result, Result]:
        import evaluate as evaluate_script
        import promote as promote_script
        import pytorch_demo

        trained = call_main(pytorch_demo.main, *train, folder=folder)
        run = ("--run-id", trained.json["run_id"])
        evaluated = call_main(evaluate_script.main, *run, "--log-mlflow", *evaluate, folder=folder)
        shutil.copy(folder / "mlflow.db", folder / "before.db")
        promoted = call_main(promote_script.main, *run, *promote, folder=folder)
        return trained, evaluated, promoted

    source, results = build_once(factory, name, build)
    return PipelineRun(copy_stores(source, factory.mktemp("own")), *results)


def copy_digits_pipeline(factory: pytest.TempPathFactory) -> PipelineRun:
    """Return what the three scripts made of digits at their defaults, in a copy of the test's own."""
    train = ("--dataset", "digits", "--run-name", "lr 0.01")
    return copy_pipeline(factory, "digits_pipeline", train, evaluate=("--batch-size", 64))


def copy_mnist_pipeline(factory: pytest.TempPathFactory, data_dir: Path) -> PipelineRun:
    """Return what the three scripts made of the real MNIST in two epochs, in a copy of the test's own."""
    data = ("--data-dir", data_dir)
    train = ("--epochs", 2, *data)
    return copy_pipeline(factory, "mnist_pipeline", train, data, ("--min-accuracy", 0.85))
