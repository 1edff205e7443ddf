"""Make a small SQLite store large: copies of its rows, so that every script finds what it finds in a real one.

The files of the artifacts are those of the originals. All of it follows from the sizes, nothing is random.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MODEL_NAME = "digits-classifier"
EXPERIMENT = "pytorch-demo"
MINUTE = 60_000  # milliseconds
FAILED_EVERY = 50  # runs; one of these many has failed
RUNNING_EVERY = 500  # runs; one of these many still says RUNNING, on another machine
# Tables with a row for each fact about a run, by the column that names the run.
RUN_TABLES = {"params": "run_uuid", "latest_metrics": "run_uuid", "metrics": "run_uuid", "tags": "run_uuid"}
MODEL_TABLES = ("logged_model_params", "logged_model_metrics", "logged_model_tags")

Row = dict[str, Any]
Change = Callable[[Row], Row]


@dataclass(frozen=True)
class Sizes:
    """How much a store holds: runs, versions of the one model, registered models in all, decisions about the model."""

    runs: int
    versions: int
    models: int
    decisions: int


def enlarge_store(file: Path, sizes: Sizes) -> None:
    """Add older runs, versions, decisions and other models to the store in ``file``, which has three of each.

    Parameters
    ----------
    file
        A SQLite store in which three trainings were registered as `MODEL_NAME`, evaluated and decided about.
    sizes
        How much it holds afterwards.
    """
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA synchronous = OFF")
        _Enlargement(database, sizes).add_everything()
        database.commit()
        database.execute("ANALYZE")
        database.commit()


class _Enlargement:
    """What is copied, and to where."""

    def __init__(self, database: sqlite3.Connection, sizes: Sizes) -> None:
        self.database = database
        self.sizes = sizes
        (self.version,) = self.select("model_versions", "name = ? ORDER BY version DESC LIMIT 1", MODEL_NAME)
        self.run_id = self.version["run_id"]
        self.model_id = self.version["source"].removeprefix("models:/")
        (self.run,) = self.select("runs", "run_uuid = ?", self.run_id)
        (earliest,) = database.execute("SELECT min(start_time) FROM runs").fetchone()
        self.earliest: int = earliest

    def select(self, table: str, condition: str, *values: object) -> list[Row]:
        """Return the rows of the table that fit the condition."""
        found = self.database.execute(f"SELECT * FROM {table} WHERE {condition}", values)  # noqa: S608 - our own names
        return [dict(row) for row in found]

    def insert(self, table: str, rows: Iterator[Row]) -> None:
        """Insert the rows, which have the same columns."""
        first = next(rows, None)
        if first is None:
            return
        names = ", ".join(first)
        marks = ", ".join(f":{name}" for name in first)
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
        self.database.execute(statement, first)
        self.database.executemany(statement, rows)

    def add_everything(self) -> None:
        """Add runs with their models, versions, decisions with their reports, and other models."""
        count = self.sizes.runs - 3
        self.add_runs(self.run, count, "a", self.describe_training)
        self.add_models(count)
        self.add_versions()
        self.add_decisions()
        rest = range(1, self.sizes.models)
        (model,) = self.select("registered_models", "name = ?", MODEL_NAME)
        self.insert("registered_models", (model | {"name": f"model-{i:05d}"} for i in rest))

    def add_runs(self, run: Row, count: int, prefix: str, describe: Callable[[int], Mapping[str, Any]]) -> None:
        """Add copies of the run; ``describe`` names the parameters and metrics that differ in the copy of a number."""
        self.insert("runs", (run | self.describe_run(i, prefix) for i in range(1, count + 1)))
        for table, column in RUN_TABLES.items():
            rows = self.select(table, f"{column} = ?", run["run_uuid"])
            self.insert(table, _copy_facts(rows, count, prefix, describe))

    def describe_run(self, i: int, prefix: str) -> Row:
        """Return the columns of copy ``i`` of a run that differ from the original."""
        start = self.earliest - i * MINUTE
        row = {"run_uuid": _copy_id(i, prefix), "name": f"copy-{i}", "start_time": start, "end_time": start + MINUTE}
        if prefix == "a" and i % FAILED_EVERY == 0:
            row["status"] = "FAILED"
        elif prefix == "a" and i % RUNNING_EVERY == 1:
            row |= {"status": "RUNNING", "end_time": None}
        return row

    def describe_training(self, i: int) -> Row:
        """Return the facts of copy ``i`` of the training that differ from the original."""
        accuracy = 0.9 + i * 7919 % 900 / 10_000
        machine = "4242 0.00 another machine"
        return {"seed": str(i + 10), "test_accuracy": accuracy, "validation_accuracy": accuracy} | {
            "invocation.process": machine
        }

    def add_models(self, count: int) -> None:
        """Add the logged models of the copies, and what links them."""
        (model,) = self.select("logged_models", "model_id = ?", self.model_id)

        def rename(i: int) -> Row:
            return {"model_id": f"m-{_copy_id(i, 'a')}", "source_run_id": _copy_id(i, "a")}

        numbers = range(1, count + 1)
        self.insert("logged_models", (model | rename(i) for i in numbers))
        for table in MODEL_TABLES:
            rows = self.select(table, "model_id = ?", self.model_id)
            names = {"model_id"} if table != "logged_model_metrics" else {"model_id", "run_id"}
            for row in rows:
                self.insert(table, (row | _rename(i, names) for i in numbers))
        for position, row in enumerate(self.select("inputs", "? IN (source_id, destination_id)", self.run_id)):
            self.insert("inputs", (row | self.link(row, i, position) for i in numbers))

    def link(self, row: Row, i: int, position: int) -> Row:
        """Return the columns of a link of copy ``i``."""
        renamed = {self.run_id: _copy_id(i, "a"), self.model_id: f"m-{_copy_id(i, 'a')}"}
        ends = {name: renamed.get(row[name], row[name]) for name in ("source_id", "destination_id")}
        return ends | {"input_uuid": _copy_id(i, f"{position:x}f")}

    def add_versions(self) -> None:
        """Add versions 4, 5, ... that are archived."""
        numbers = range(4, self.sizes.versions + 1)

        def describe(number: int) -> Row:
            run_id = _copy_id(number, "a")
            row = {"version": number, "run_id": run_id, "source": f"models:/m-{run_id}", "current_stage": "Archived"}
            when = self.earliest - number * MINUTE
            return row | {"creation_time": when, "last_updated_time": when, "description": f"copy {number}"}

        self.insert("model_versions", (self.version | describe(number) for number in numbers))
        tags = self.select("model_version_tags", "name = ? AND version = ?", MODEL_NAME, self.version["version"])
        for tag in tags:
            if tag["key"] == "model.sha256":
                self.insert("model_version_tags", (tag | {"version": number} for number in numbers))

    def add_decisions(self) -> None:
        """Add decisions about versions 4, 5, ..., before the three that are there, which get the last numbers."""
        count = self.sizes.decisions - 3
        tags = self.select("model_version_tags", "name = ? AND key LIKE 'decision.%'", MODEL_NAME)
        for tag in tags:
            number = json.loads(tag["value"])["number"] + count
            self.database.execute(
                "UPDATE model_version_tags SET key = ?, value = ? WHERE name = ? AND version = ? AND key = ?",
                (f"decision.{number}", _edit(tag["value"], number=number), MODEL_NAME, tag["version"], tag["key"]),
            )
        self.database.execute(
            "UPDATE registered_model_tags SET value = ? WHERE name = ? AND key = 'decision.count'",
            (str(self.sizes.decisions), MODEL_NAME),
        )
        last = tags[-1]
        others = self.select(
            "model_version_tags", "name = ? AND version = ? AND key LIKE 'gate.%'", MODEL_NAME, last["version"]
        )
        numbers = range(1, count + 1)
        self.insert("model_version_tags", (last | self.describe_decision(i, last["value"]) for i in numbers))
        for tag in others:
            self.insert("model_version_tags", (tag | {"version": i + 3} for i in numbers))
        report_id = json.loads(last["value"])["decision_run_id"]
        (report,) = self.select("runs", "run_uuid = ?", report_id)
        self.add_runs(report, count, "d", lambda i: {})

    def describe_decision(self, i: int, text: str) -> Row:
        """Return the columns of the tag of decision ``i``, which is about version ``i + 3``."""
        when = datetime.fromtimestamp((self.earliest - (self.sizes.decisions - i) * MINUTE) / 1000, UTC)
        kind = "promoted" if i % 2 else "refused"
        changes: Row = {"number": i, "kind": kind, "version": i + 3, "previous_version": i + 2 if i > 1 else None}
        changes |= {"time": when.isoformat(timespec="milliseconds"), "decision_run_id": _copy_id(i, "d")}
        return {"version": i + 3, "key": f"decision.{i}", "value": _edit(text, **changes)}


def _copy_facts(
    rows: Sequence[Row], count: int, prefix: str, describe: Callable[[int], Mapping[str, Any]]
) -> Iterator[Row]:
    for i in range(1, count + 1):
        run_id = _copy_id(i, prefix)
        changed = describe(i)
        for row in rows:
            value = changed.get(row["key"], row["value"])
            yield row | {"run_uuid": run_id, "value": value}


def _rename(i: int, names: set[str]) -> Row:
    row = {"model_id": f"m-{_copy_id(i, 'a')}", "run_id": _copy_id(i, "a")}
    return {name: row[name] for name in names}


def _copy_id(i: int, prefix: str) -> str:
    """Return the id of copy ``i``, 32 hexadecimal digits."""
    return prefix + f"{i:0{32 - len(prefix)}x}"


def _edit(text: str, **changes: object) -> str:
    """Return the JSON object with other values."""
    return json.dumps(json.loads(text) | changes, separators=(",", ":"))
