"""What the tests put into a store, and what other processes do to it at the wrong moment."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import event
from sqlalchemy.orm import Session

from pipeline.tracking import registry, runs

MODEL_NAME = "digits-classifier"


def create_model_run() -> tuple[str, str]:
    """Create a run with a model that has no files, which takes no time; return the run's id and the model's address."""
    with runs.start_run("demo", None) as run_id:
        pass
    client = MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment_id, source_run_id=run_id)
    client.finalize_logged_model(model.model_id, "READY")
    return run_id, f"models:/{model.model_id}"


def register_version(model_name: str = MODEL_NAME) -> int:
    """Register a model without files; return the number of the version."""
    run_id, model_uri = create_model_run()
    return registry.register_model(model_name, model_uri, run_id)


def register_once_more(model_uri: str, run_id: str, model_name: str = MODEL_NAME) -> int:
    """Register a model that has a version already as another one, as in MLflow's UI; return its number."""
    client = MlflowClient()
    version = client.create_model_version(
        model_name, model_uri, run_id, model_id=model_uri.removeprefix("models:/")
    ).version
    client.transition_model_version_stage(model_name, version, registry.STAGING)
    client.set_registered_model_alias(model_name, registry.CHALLENGER, version)
    return int(version)


def read_stages(model_name: str = MODEL_NAME) -> dict[int, str | None]:
    """Return the stage of each version."""
    versions = MlflowClient().search_model_versions(f"name='{model_name}'")
    return {int(version.version): version.current_stage for version in versions}


def read_aliases(model_name: str = MODEL_NAME) -> dict[str, int]:
    """Return the version of each alias."""
    aliases = MlflowClient().get_registered_model(model_name).aliases
    return {alias: int(number) for alias, number in aliases.items()}


@contextmanager
def overtaken_by(request: Callable[[], object], row: type) -> Iterator[None]:
    """Send ``request``, once, after MLflow has looked for such a row of a table and before it inserts one."""
    pending = [request]

    def send(session: Session, *_: object) -> None:
        is_insert = any(isinstance(new, row) for new in session.new)
        if pending and is_insert:
            pending.pop()()

    event.listen(Session, "before_flush", send)
    try:
        yield
    finally:
        event.remove(Session, "before_flush", send)
    assert not pending


def open_store(folder: Path) -> MlflowClient:
    """Return a client of the SQLite store in ``folder``."""
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def read_run_ids(folder: Path) -> list[str]:
    """Return the id of every run in the SQLite store in ``folder``."""
    return [run.info.run_id for run in _read_runs(folder)]


def read_run_statuses(folder: Path) -> list[str]:
    """Return the status of every run in the SQLite store in ``folder``."""
    return [run.info.status for run in _read_runs(folder)]


def _read_runs(folder: Path) -> list[Run]:
    client = open_store(folder)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments))


@contextmanager
def lock_database(file: Path) -> Iterator[None]:
    """Let nobody else read or write the SQLite file."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.close()
