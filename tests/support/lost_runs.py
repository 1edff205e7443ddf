"""Runs that say RUNNING, of processes here and elsewhere."""

import sqlite3
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from pipeline.tracking.runs import get_or_create_experiment

EXPERIMENT = "pytorch-demo"
OTHER_MACHINE = "4242 17 another machine"


def minutes_ago(minutes: float) -> int:
    """Return a time in milliseconds since 1970, as MLflow keeps it."""
    return round((time.time() - 60 * minutes) * 1000)


def create_running_run(process: str | None, started: int | None = None, **tags: str) -> str:
    """Create a run that says RUNNING, of a process as `describe_process` describes it; return its id."""
    if process is not None:
        tags["invocation.process"] = process
    experiment_id = get_or_create_experiment(EXPERIMENT)
    return str(MlflowClient().create_run(experiment_id, start_time=started, tags=tags).info.run_id)


def log_metric_at(run_id: str, timestamp: int) -> None:
    """Log a metric that was measured at that time."""
    MlflowClient().log_batch(run_id, metrics=[Metric("train_loss", 0.5, timestamp, 1)])


def read_status(run_id: str) -> str:
    """Return the status of the run."""
    return str(MlflowClient().get_run(run_id).info.status)


def make_runs_read_only(folder: Path) -> None:
    """Let the SQLite store in ``folder`` refuse every change of a run."""
    database = sqlite3.connect(folder / "mlflow.db")
    with database:
        database.execute("CREATE TRIGGER refuse BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'read-only'); END")
    database.close()
