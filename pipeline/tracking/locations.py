"""Where a SQLite store says that its artifacts are: MLflow writes absolute paths into the database.

They are right until the store is copied or moved. A copy would then write to the files of the original.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from sqlalchemy import Connection, inspect, text

from pipeline.text import printable

ARTIFACTS = "mlruns"  # the folder beside the database, as MLflow names it
SAMPLE = 20  # runs of an experiment that are looked for
# The part of a path that MLflow makes: the number of the experiment, then what belongs to it.
MANAGED = re.compile(rf"(?P<folder>.*)/{ARTIFACTS}/(?P<rest>\d+(?:/.*)?)", re.DOTALL)
# table -> columns with paths of artifacts, and what selects the rows
PATH_COLUMNS = {
    "experiments": (("artifact_location",), "1"),
    "runs": (("artifact_uri",), "1"),
    "logged_models": (("artifact_location",), "1"),
    "model_versions": (("source", "storage_location"), "1"),
    "trace_tags": (("value",), "key = 'mlflow.artifactLocation'"),
}
# table -> its key, what selects the rows that have files, and where these are in the folder of the experiment
FILE_OWNERS = {"runs": ("run_uuid", "status = 'FINISHED'", ""), "logged_models": ("model_id", "status = 2", "models/")}


@dataclass(frozen=True)
class Location:
    """A path of artifacts that is not beside the database, although MLflow chose it.

    Attributes
    ----------
    root : the folder ``mlruns`` in which it is.
    rest : the path in that folder; it begins with the number of the experiment.
    is_uri : whether it is written as ``file:///...``.
    """

    root: Path
    rest: str
    is_uri: bool

    @property
    def experiment_id(self) -> str:
        """The number of the experiment."""
        number, _, _ = self.rest.partition("/")
        return number

    def moved_to(self, root: Path) -> str:
        """Return it as it is written if it is in ``root``."""
        path = root / self.rest
        return path.as_uri() if self.is_uri else str(path)


@dataclass(frozen=True)
class StoredLocation:
    """A `Location`, and where in the database it is written."""

    table: str
    column: str
    row: int
    location: Location


@dataclass(frozen=True)
class Misplaced:
    """An experiment to whose files nothing more should be written.

    Attributes
    ----------
    experiment : its name, as it can be printed.
    location : where the database says that its files are.
    reason : why that is wrong, in plain words.
    """

    experiment: str
    location: Location
    reason: str

    def __str__(self) -> str:
        folder = printable(str(self.location.root / self.location.rest))
        return f"the experiment {self.experiment!r} keeps its files in {folder}, but {self.reason}"


def artifact_root(file: Path) -> Path:
    """Return the folder of the artifacts of a SQLite store, which is beside its database."""
    return file.parent.resolve() / ARTIFACTS


def read_location(value: object, root: Path) -> Location | None:
    """Return a path of the database; None if it is in ``root``, or a person chose it, or it is on a server."""
    if not isinstance(value, str) or value.startswith(f"{root}/"):
        return None
    try:
        if not value or not is_local_uri(value):
            return None
        path = Path(local_file_uri_to_path(value)).absolute()
    except (MlflowException, ValueError):  # nonsense
        return None
    match = MANAGED.fullmatch(str(path))
    if not match or "\0" in value:
        return None
    other = Path(match["folder"], ARTIFACTS)
    return None if _resolve(other) == root else Location(other, match["rest"], value.startswith("file:"))


def list_locations(connection: Connection, root: Path) -> Iterator[StoredLocation]:
    """Yield every path in the database that is not in ``root``."""
    for table, columns, condition in _list_path_columns(connection):
        for column in columns:
            statement = f"SELECT rowid, {column} FROM {table} WHERE {condition}"  # noqa: S608 - from PATH_COLUMNS
            for row in connection.execute(text(statement)).fetchall():
                location = read_location(row[1], root)
                if location:
                    yield StoredLocation(table, column, row[0], location)


def _list_path_columns(connection: Connection) -> Iterator[tuple[str, list[str], str]]:
    """Yield those of `PATH_COLUMNS` that this version's tables have."""
    inspector = inspect(connection)
    tables = inspector.get_table_names()
    for table, (columns, condition) in PATH_COLUMNS.items():
        if table in tables:
            known = [column["name"] for column in inspector.get_columns(table)]
            yield table, [column for column in columns if column in known], condition


def list_owned_folders(connection: Connection, experiment_id: str, limit: int = -1) -> list[str]:
    """Return the folders that should exist, as paths in `ARTIFACTS`: of finished runs and of complete models."""
    tables = inspect(connection).get_table_names()
    folders: list[str] = []
    for table, (key, condition, parent) in FILE_OWNERS.items():
        if table in tables:
            statement = f"SELECT {key} FROM {table} WHERE experiment_id = :id AND {condition} LIMIT :limit"  # noqa: S608
            rows = connection.execute(text(statement), {"id": experiment_id, "limit": limit})
            folders += [f"{experiment_id}/{parent}{row[0]}" for row in rows]
    return folders


def find_misplaced(connection: Connection, file: Path) -> list[Misplaced]:
    """Return the experiments to whose files nothing more should be written.

    A store that was always used from another directory keeps its files there, and that works: it is none of them.
    """
    statement = text("SELECT experiment_id, name, artifact_location FROM experiments WHERE lifecycle_stage = 'active'")
    misplaced = []
    for row in connection.execute(statement).fetchall():
        location = read_location(row.artifact_location, artifact_root(file))
        if not location:
            continue
        reason = _find_reason(location, list_owned_folders(connection, str(row.experiment_id), SAMPLE), file)
        if reason:
            misplaced.append(Misplaced(printable(str(row.name)), location, reason))
    return misplaced


def _find_reason(location: Location, folders: list[str], file: Path) -> str | None:
    """Return why the files of an experiment are in a wrong place; None if they are not, or if there are none."""
    if not folders:
        return None
    root = artifact_root(file)
    if any(exists(root / folder) for folder in folders):
        return "they are also beside the database, which was copied or moved"
    if not exists(location.root.parent):
        return "that place is gone"
    neighbour = location.root.parent / file.name
    if exists(neighbour) and _resolve(neighbour) != _resolve(file):
        return f"that place belongs to the store {printable(str(neighbour))}"
    temporary = _resolve(Path(tempfile.gettempdir()))
    if _resolve(location.root).is_relative_to(temporary) and not _resolve(file).is_relative_to(temporary):
        return "that is a temporary folder"
    return None


def house_empty_experiments(connection: Connection, root: Path) -> None:
    """Let experiments that have no run yet keep their files in ``root``.

    MLflow's own commands choose the directory in which they are started.
    """
    has_run = "SELECT 1 FROM runs WHERE runs.experiment_id = experiments.experiment_id"
    statement = f"SELECT experiment_id, artifact_location FROM experiments WHERE NOT EXISTS ({has_run})"  # noqa: S608
    for row in connection.execute(text(statement)).fetchall():
        location = read_location(row.artifact_location, root)
        if location:
            connection.execute(
                text("UPDATE experiments SET artifact_location = :path WHERE experiment_id = :id"),
                {"path": location.moved_to(root), "id": row.experiment_id},
            )


def exists(path: Path) -> bool:
    """Return whether the path exists; one that cannot exist, such as a name that is too long, does not."""
    with suppress(OSError, ValueError):
        return path.exists()
    return False


@lru_cache(maxsize=1000)
def _resolve(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle
        return path
