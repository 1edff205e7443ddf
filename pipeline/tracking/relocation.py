"""Make a SQLite store that was copied or moved point to the files beside it."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from pipeline.text import printable
from pipeline.tracking.locations import (
    StoredLocation,
    artifact_root,
    exists,
    list_locations,
    list_owned_folders,
)
from pipeline.tracking.schema import check_schema, read_schema
from pipeline.tracking.sqlite_file import copy_database, open_database
from pipeline.tracking.sqlite_store import UPGRADE_COMMAND


@dataclass(frozen=True)
class Move:
    """The paths of one experiment in one wrong place.

    Attributes
    ----------
    source : the folder ``mlruns`` that the paths name.
    experiment_id : the folder in it.
    paths : where they are written.
    missing : the folders of finished runs and of complete models that are not beside the database.
    left_behind : those of them that are at ``source``: the paths of this experiment stay, or the files would be lost.
    """

    source: Path
    experiment_id: str
    paths: list[StoredLocation]
    missing: list[str]
    left_behind: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is printed in JSON."""
        counts = Counter(f"{stored.table}.{stored.column}" for stored in self.paths)
        return {
            "from": str(self.source / self.experiment_id),
            "paths": dict(counts),
            "missing": len(self.missing),
            "left_behind": len(self.left_behind),
        }


@dataclass(frozen=True)
class Relocation:
    """What `relocate` has done.

    Attributes
    ----------
    copy : the database as it was before; None if nothing was changed.
    moved : the experiments whose paths were rewritten.
    stayed : those whose files are not beside the database yet.
    """

    copy: Path | None
    moved: list[Move]
    stayed: list[Move]


def relocate(file: Path) -> Relocation:
    """Rewrite the paths of artifacts to the folder beside the database, in one transaction, after a copy.

    Paths that a person chose, and those of a server, stay.

    Raises
    ------
    UserError
        There are no tables that this MLflow knows.
    SQLAlchemyError, sqlite3.Error
        The database is locked or cannot be written, or its disk is full. Nothing is changed.
    """
    root = artifact_root(file)
    with open_database(file, writes=True) as connection:
        check_schema(read_schema(connection), printable(str(file)), f"run first: {UPGRADE_COMMAND}")
        moves = plan_moves(connection, root)
        moved = [move for move in moves if not move.left_behind]
        stayed = [move for move in moves if move.left_behind]
        copy = copy_database(file) if moved else None
        for move in moved:
            for stored in move.paths:
                connection.execute(
                    text(f"UPDATE {stored.table} SET {stored.column} = :path WHERE rowid = :row"),  # noqa: S608
                    {"path": stored.location.moved_to(root), "row": stored.row},
                )
    return Relocation(copy, moved, stayed)


def plan_moves(connection: Connection, root: Path) -> list[Move]:
    """Return what is to be rewritten, one experiment after the other."""
    groups: dict[tuple[Path, str], list[StoredLocation]] = defaultdict(list)
    for stored in list_locations(connection, root):
        groups[stored.location.root, stored.location.experiment_id].append(stored)
    moves = []
    for (source, experiment_id), paths in sorted(groups.items(), key=lambda group: str(group[0])):
        owned = list_owned_folders(connection, experiment_id)
        missing = [folder for folder in owned if not exists(root / folder)]
        left_behind = [folder for folder in missing if exists(source / folder)]
        moves.append(Move(source, experiment_id, paths, missing, left_behind))
    return moves


def describe_stay(move: Move, root: Path) -> str:
    """Return why the paths of an experiment stay, and what to do, in one line."""
    source = printable(str(move.source / move.experiment_id))
    count = len(move.left_behind)
    return (
        f"the files of {count} runs and models of experiment {move.experiment_id} are in {source} only; "
        f"copy that folder into {printable(str(root))}, then run this again"
    )


def describe_missing(move: Move) -> str:
    """Return whose files are nowhere, in one line."""
    return (
        f"there are no files of {len(move.missing)} runs and models of experiment {move.experiment_id}; the first that "
        f"is missing is {printable(move.missing[0])}"
    )
