"""What the tests put into a store, and what other processes do to it at the wrong moment."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import event
from sqlalchemy.orm import Session

from pipeline.tracking import registry, runs
from pipeline.tracking.sqlite_file import open_database

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


def move_alias(number: int | None, model_name: str = MODEL_NAME) -> None:
    """Let the alias champion point to a version, or remove it, as a person can."""
    if number is None:
        MlflowClient().delete_registered_model_alias(model_name, registry.CHAMPION)
    else:
        MlflowClient().set_registered_model_alias(model_name, registry.CHAMPION, str(number))


def delete_version_but_not_its_alias(folder: Path, number: int, model_name: str = MODEL_NAME) -> None:
    """Delete a version of the SQLite store in ``folder`` as servers before MLflow 3.17 do: its aliases stay."""
    database = sqlite3.connect(folder / "mlflow.db")
    condition = "WHERE name = ? AND version = ?"
    select = f"SELECT * FROM registered_model_aliases {condition}"
    aliases = database.execute(select, (model_name, number)).fetchall()
    MlflowClient().delete_model_version(model_name, str(number))
    with database:
        database.execute(f"DELETE FROM registered_model_aliases {condition}", (model_name, number))
        for alias in aliases:
            places = ", ".join("?" * len(alias))
            database.execute(f"INSERT INTO registered_model_aliases VALUES ({places})", alias)
    database.close()


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


def create_older_store(file: Path, revision: str = "0584bdc529eb") -> None:
    """Create the tables of an older MLflow, by default those of 2.22, with MLflow's own migrations."""
    file.touch()
    script = ScriptDirectory.from_config(_get_alembic_config(""))
    with open_database(file, writes=True) as connection:
        InitialBase.metadata.create_all(connection)
        upgrade = partial(_list_steps, script, revision)
        with EnvironmentContext(_get_alembic_config(""), script, fn=upgrade) as steps:
            steps.configure(connection=connection, render_as_batch=True)
            steps.run_migrations()


def _list_steps(script: ScriptDirectory, revision: str, current: Any, _: object) -> Any:
    return script._upgrade_revs(revision, current)


def read_revision(file: Path) -> str:
    """Return the version of the tables of a SQLite store."""
    with closing(sqlite3.connect(file)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@contextmanager
def lock_database(file: Path) -> Iterator[None]:
    """Let nobody else read or write the SQLite file."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.close()


def add_experiments(file: Path, count: int) -> None:
    """Add empty experiments to the SQLite file, at once: MLflow would take a minute for thousands."""
    rows = [(1000 + i, f"experiment {i}", "mlruns", "active", i, i) for i in range(count)]
    columns = "experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time"
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany(f"INSERT INTO experiments ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
