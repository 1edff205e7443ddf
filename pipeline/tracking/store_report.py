"""What a SQLite store is: whose tables it has, how much is in it, where its files are, what is wrong with it."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
from sqlalchemy import Connection, text

from pipeline.errors import UserError
from pipeline.text import printable
from pipeline.tracking.locations import artifact_root, find_misplaced, read_location
from pipeline.tracking.schema import SchemaState, check_schema, head_revision, read_schema
from pipeline.tracking.sqlite_file import check_directory, open_database
from pipeline.tracking.sqlite_store import RELOCATE_COMMAND, UPGRADE_COMMAND, check_file, explain_sqlite_errors


@dataclass(frozen=True)
class StoreReport:
    """What a SQLite store is.

    Attributes
    ----------
    file : of the database.
    schema : the version of its tables, as MLflow names it; None if they have none.
    mlflow_schema : the one of the MLflow that is installed.
    mlflow_version : of the MLflow that is installed.
    experiments, runs : how many there are, with those that were deleted.
    artifact_locations : each folder with how many experiments keep their files there. Its place is "beside" the
        database, "elsewhere", or "chosen" by a person or a server.
    problems : what is wrong, one line each, with what to do.
    """

    file: str
    schema: str | None
    mlflow_schema: str | None
    mlflow_version: str
    experiments: int
    runs: int
    artifact_locations: list[dict[str, Any]]
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is printed in JSON."""
        return asdict(self)


def describe_store(file: Path) -> StoreReport:
    """Return what the store is. Nothing is changed, and an older or newer version's store is described too.

    Raises
    ------
    UserError
        There is no store, or the file cannot be read.
    """
    check_directory(file)
    check_file(file)
    with explain_sqlite_errors(file), open_database(file) as connection:
        schema = read_schema(connection)
        if schema.state in (SchemaState.EMPTY, SchemaState.FOREIGN):
            check_schema(schema, printable(str(file)), "")
        return StoreReport(
            str(file),
            schema.revision,
            head_revision(),
            mlflow.__version__,
            _count(connection, "experiments"),
            _count(connection, "runs"),
            _list_artifact_locations(connection, file),
            _find_problems(connection, file),
        )


def _count(connection: Connection, table: str) -> int:
    return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608 - a name of ours


def _list_artifact_locations(connection: Connection, file: Path) -> list[dict[str, Any]]:
    root = artifact_root(file)
    counts: Counter[tuple[str, str]] = Counter()
    for value in connection.execute(text("SELECT artifact_location FROM experiments")).scalars():
        location = read_location(value, root)
        if location:
            counts[str(location.root), "elsewhere"] += 1
        elif str(value).startswith(f"{root}/"):
            counts[str(root), "beside"] += 1
        else:
            counts[str(value), "chosen"] += 1
    return [
        {"folder": folder, "place": place, "experiments": count} for (folder, place), count in sorted(counts.items())
    ]


def _find_problems(connection: Connection, file: Path) -> list[str]:
    problems = []
    try:
        check_schema(read_schema(connection), printable(str(file)), f"run: {UPGRADE_COMMAND}")
    except UserError as error:
        problems.append(str(error))
    problems += [f"{misplaced}; run: {RELOCATE_COMMAND}" for misplaced in find_misplaced(connection, file)]
    damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if damage != "ok":
        problems.append(f"the database is damaged ({printable(str(damage))}); bring back a copy of it")
    return problems
