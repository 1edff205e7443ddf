"""The tables of the store's database: are they MLflow's, of which version; create them, bring them to this MLflow's.

MLflow itself brings the tables of an older version to its own at the first request, even if that only reads. An older
MLflow cannot open the database from then on.
"""

from dataclasses import dataclass
from enum import Enum, auto

import mlflow
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import Connection, inspect

from pipeline.errors import UserError
from pipeline.text import printable

# These tables have these columns in every version of MLflow.
MLFLOW_COLUMNS = {"experiments": "artifact_location", "runs": "run_uuid"}


class SchemaState(Enum):
    """What the tables of a database are, for the MLflow that is installed."""

    EMPTY = auto()  # there are none
    FOREIGN = auto()  # they are those of another program
    OLDER = auto()
    CURRENT = auto()
    NEWER = auto()


@dataclass(frozen=True)
class Schema:
    """The tables of a database.

    Attributes
    ----------
    state : what they are for this MLflow.
    revision : of their last migration, as MLflow names it; None if there was none.
    """

    state: SchemaState
    revision: str | None


def read_schema(connection: Connection) -> Schema:
    """Return what the tables of the database are. Nothing is changed."""
    heads = MigrationContext.configure(connection).get_current_heads()
    revision = heads[0] if heads else None
    inspector = inspect(connection)
    tables = [name for name in inspector.get_table_names() if not name.startswith("alembic_")]
    if not tables and revision is None:
        return Schema(SchemaState.EMPTY, None)
    for table, column in MLFLOW_COLUMNS.items():
        if table not in tables or column not in [found["name"] for found in inspector.get_columns(table)]:
            return Schema(SchemaState.FOREIGN, revision)
    return Schema(_compare_revision(revision), revision)


def _compare_revision(revision: str | None) -> SchemaState:
    script = _load_migrations()
    if revision == script.get_current_head():
        return SchemaState.CURRENT
    try:
        if revision is None or script.get_revision(revision):
            return SchemaState.OLDER
    except CommandError:  # there is no such revision
        pass
    return SchemaState.NEWER


def head_revision() -> str | None:
    """Return the revision of the tables that this MLflow makes."""
    return _load_migrations().get_current_head()


def _load_migrations() -> ScriptDirectory:
    return ScriptDirectory.from_config(_get_alembic_config(""))


def check_schema(schema: Schema, where: str, upgrade_advice: str) -> None:
    """Check that this MLflow can use the tables as they are.

    ``where`` is the file or address of the database, and ``upgrade_advice`` says how to bring older tables to this
    MLflow's version; both are for the message.

    Raises
    ------
    UserError
        There are none, or they are another program's, or another version's.
    """
    revision = printable(schema.revision or "none")
    if schema.state is SchemaState.EMPTY:
        raise UserError(f"there is no store at {where} yet; train first or set MLFLOW_TRACKING_URI")
    if schema.state is SchemaState.FOREIGN:
        raise UserError(f"{where}: this is the database of another program; change MLFLOW_TRACKING_URI")
    if schema.state is SchemaState.OLDER:
        raise UserError(
            f"{where}: an older MLflow made this store (its tables are of version {revision}, those of MLflow "
            f"{mlflow.__version__} of {head_revision()}); {upgrade_advice}, or use the older MLflow"
        )
    if schema.state is SchemaState.NEWER:
        raise UserError(
            f"{where}: a newer MLflow made this store (its tables are of version {revision}, which MLflow "
            f"{mlflow.__version__} does not know); upgrade MLflow"
        )


def migrate(connection: Connection) -> None:
    """Bring the tables of a SQLite database to this MLflow's version, or create them, in the open transaction.

    MLflow's own command commits after each step, so that a kill leaves a database that no version can use.
    https://alembic.sqlalchemy.org/en/latest/api/runtime.html
    """
    script = _load_migrations()
    InitialBase.metadata.create_all(connection)  # those of the first version, which are missing in an empty database
    config = _get_alembic_config("")
    with EnvironmentContext(config, script, fn=lambda revision, _: script._upgrade_revs("heads", revision)) as steps:
        steps.configure(connection=connection, render_as_batch=True)
        steps.run_migrations()
