"""A SQLite store before MLflow opens it: is it there, whose tables has it, are its artifacts beside it.

MLflow itself would create an empty store, and would bring an older one to its own version, for a mere question.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import UserError
from pipeline.redact import redact_address
from pipeline.text import printable
from pipeline.tracking.failures import explain_failure
from pipeline.tracking.locations import artifact_root, find_misplaced, house_empty_experiments
from pipeline.tracking.schema import SchemaState, check_schema, migrate, read_schema
from pipeline.tracking.sqlite_file import (
    check_directory,
    copy_database,
    current_uri,
    find_sqlite_file,
    open_database,
    sqlite_init_lock,
)

UPGRADE_COMMAND = "python maintain_store.py --upgrade"
RELOCATE_COMMAND = "python maintain_store.py --relocate"

logger = logging.getLogger(__name__)


@contextmanager
def prepared_sqlite_store(file: Path, *, creates: bool, writes: bool) -> Iterator[None]:
    """Check the store, and let only this process open it inside the ``with`` block.

    If ``creates``, tables are created if there are none, and older ones are brought to this MLflow's version after a
    copy. If ``writes``, a store whose files are in a wrong place is refused, else there is a warning.

    Raises
    ------
    UserError
        There is no store, or it cannot be used.
    """
    check_directory(file)
    if not creates:
        check_file(file)
    with explain_sqlite_errors(file), sqlite_init_lock(file):
        if creates:
            _create_or_upgrade(file)
        with open_database(file) as connection:
            check_schema(read_schema(connection), printable(str(file)), f"run: {UPGRADE_COMMAND}")
            _check_locations(connection, file, writes=writes)
            if creates:
                house_empty_experiments(connection, artifact_root(file))
        yield


def check_file(file: Path) -> None:
    """Check that there is a store.

    Raises
    ------
    UserError
        There is none.
    """
    if not file.exists():
        raise UserError(f"there is no store at {printable(str(file))} yet; train first or set MLFLOW_TRACKING_URI")


@contextmanager
def explain_sqlite_errors(file: Path) -> Iterator[None]:
    """Turn an error of the database inside the ``with`` block into one line.

    Raises
    ------
    UserError
        The database is locked, damaged, or cannot be opened or written.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        failure = explain_failure(error)
        raise UserError(f"{printable(str(file))}: {failure.reason}; {failure.advice}") from None


def find_local_store() -> Path:
    """Return the file of the SQLite store that the scripts use.

    Raises
    ------
    UserError
        The store is on a server or in another kind of database, or there is none.
    """
    uri = current_uri()
    file = find_sqlite_file(uri)
    if file is None:
        raise UserError(
            f"{redact_address(uri)}: this is no SQLite file, and only its administrator can look after it "
            "(mlflow db upgrade); change MLFLOW_TRACKING_URI"
        )
    check_directory(file)
    check_file(file)
    return file


def _create_or_upgrade(file: Path) -> None:
    file.touch()  # SQLite opens only what is there
    with open_database(file) as connection:
        schema = read_schema(connection)
    if schema.state is SchemaState.EMPTY:
        with open_database(file, writes=True) as connection:
            migrate(connection)
    elif schema.state is SchemaState.OLDER:
        copy = upgrade_store(file)
        logger.warning("an older MLflow made the store %s; it is upgraded now, and its copy is %s", file, copy)


def upgrade_store(file: Path) -> Path | None:
    """Bring the tables of the store to this MLflow's version; return the copy that was made before.

    All or nothing is changed, also if the process is killed. None is returned if there is nothing to do.

    Raises
    ------
    UserError
        The tables are no older MLflow's, or cannot be upgraded.
    SQLAlchemyError, sqlite3.Error
        The database is locked or cannot be written, or its disk is full.
    """
    where = printable(str(file))
    with open_database(file, writes=True) as connection:
        schema = read_schema(connection)
        if schema.state is not SchemaState.OLDER:
            check_schema(schema, where, "")
            return None
        copy = copy_database(file)
        migrate(connection)
    return copy


def _check_locations(connection: Connection, file: Path, *, writes: bool) -> None:
    misplaced = find_misplaced(connection, file)
    if not misplaced:
        return
    others = f" (and {len(misplaced) - 1} more)" if len(misplaced) > 1 else ""
    problem = f"{printable(str(file))}: {misplaced[0]}{others}"
    if writes:
        raise UserError(f"{problem}; run: {RELOCATE_COMMAND}")
    logger.warning("%s; before you write to it, run: %s", problem, RELOCATE_COMMAND)
