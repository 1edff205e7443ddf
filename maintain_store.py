"""Look after a SQLite store: what is it, upgrade it to the MLflow that is installed, move its files.

    python maintain_store.py                     what the store is; exit code 1 if something is wrong with it
    python maintain_store.py --upgrade           bring it to the MLflow that is installed, after a copy
    python maintain_store.py --relocate          after it was copied or moved: use the files beside it, after a copy

The store is MLFLOW_TRACKING_URI, else mlflow.db in the current directory. The copy is beside the database. To go back,
stop what uses the store, and move the copy over the database.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import cli


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--upgrade", action="store_true", help="bring the tables to the MLflow that is installed")
    action.add_argument("--relocate", action="store_true", help="let the database name the files beside it")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Find the file of the store, do what is asked for, print what the store is then."""
    options = parse_options(argv)
    from pipeline.tracking.sqlite_file import sqlite_init_lock
    from pipeline.tracking.sqlite_store import explain_sqlite_errors, find_local_store
    from pipeline.tracking.store_report import describe_store

    file = find_local_store()
    changes: dict[str, Any] = {}
    with explain_sqlite_errors(file), sqlite_init_lock(file):
        if options.upgrade:
            changes = upgrade(file)
        elif options.relocate:
            changes = relocate(file)
        report = describe_store(file)
    for problem in report.problems:
        cli.log(f"warning: {problem}")
    cli.print_json(report.as_dict() | changes)
    done = not changes.get("stayed") if changes else not report.problems
    return cli.OK if done else cli.REFUSED


def upgrade(file: Path) -> dict[str, Any]:
    """Upgrade the store; return what was done."""
    from pipeline.tracking.sqlite_store import upgrade_store

    copy = upgrade_store(file)
    if copy:
        cli.log(f"{file} is upgraded; the copy of it as it was is {copy}")
    else:
        cli.log(f"{file} needs no upgrade; nothing was changed")
    return {"upgraded": copy is not None, "copy": str(copy) if copy else None}


def relocate(file: Path) -> dict[str, Any]:
    """Rewrite the paths in the store; return what was done."""
    from pipeline.tracking import relocation
    from pipeline.tracking.locations import artifact_root

    root = artifact_root(file)
    result = relocation.relocate(file)
    for move in result.stayed:
        cli.log(f"warning: {relocation.describe_stay(move, root)}")
    for move in result.moved:
        if move.missing:
            cli.log(f"warning: {relocation.describe_missing(move)}")
    if result.copy:
        count = sum(len(move.paths) for move in result.moved)
        cli.log(f"{count} paths lead to {root} now; the copy of the database as it was is {result.copy}")
    elif not result.stayed:
        cli.log(f"all paths lead to {root} already; nothing was changed")
    return {
        "relocated": [move.as_dict() for move in result.moved],
        "stayed": [move.as_dict() for move in result.stayed],
        "copy": str(result.copy) if result.copy else None,
    }


if __name__ == "__main__":
    sys.exit(main())
