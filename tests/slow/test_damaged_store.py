"""Hostile values in the store, as any account can write them: what reads them answers, or prints one line."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import mlflow

import compare
import lineage
import promote
import pytorch_demo
from pipeline.errors import UserError
from pipeline.reports.checklist import CURVES
from support.mutations import HOSTILE_TEXTS, LONG, EnoughError, as_bug_of, damage_json, is_harmless
from support.pipelines import PipelineRun
from support.scripts import Result, call_main

# table -> the columns of texts, and those of numbers, that an account can set
TEXTS = {
    "params": ["value"],
    "tags": ["value"],
    "runs": ["name"],
    "model_versions": ["description"],
    "model_version_tags": ["value"],
    "registered_model_tags": ["value"],
    "datasets": ["dataset_source"],
}
NUMBERS = {
    "metrics": ["value", "step", "timestamp"],
    "latest_metrics": ["value", "step", "timestamp"],
    "runs": ["start_time", "start_time", "end_time"],
}
HOSTILE_INTEGERS = (0, -1, 1, 7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 253402300800000, None)
HOSTILE_FLOATS = (0.0, -1.0, 1.5, 1e308, -1e308, 1e-320, 1e6)
DECISION_TAGS = ("decision.1", "decision.2", "decision.count", "decision.pending", "decision.9999999999", "promoting.x")


def damage_store(random: Random, database: sqlite3.Connection) -> None:
    """Change one to four values of the store."""
    for _ in range(random.randint(1, 4)):
        change = random.choice((change_text, change_text, change_number, change_json, add_tag, delete_row))
        with database:
            change(random, database)


def choose_row(random: Random, database: sqlite3.Connection, table: str) -> int:
    rows = database.execute(f"SELECT rowid FROM {table}").fetchall()
    return int(random.choice(rows)[0]) if rows else 0


def change_text(random: Random, database: sqlite3.Connection) -> None:
    table = random.choice(list(TEXTS))
    text = random.choice([text for text in HOSTILE_TEXTS if text.isascii() or text.isprintable()])
    set_value(random, database, table, random.choice(TEXTS[table]), text)


def change_number(random: Random, database: sqlite3.Connection) -> None:
    table = random.choice(list(NUMBERS))
    column = random.choice(NUMBERS[table])
    if column != "value":
        value = random.choice(HOSTILE_INTEGERS)
        if value is not None or column == "end_time":
            set_value(random, database, table, column, value)
    elif random.random() < 0.3:
        set_value(random, database, table, "is_nan", 1)
    else:
        set_value(random, database, table, column, random.choice(HOSTILE_FLOATS))


def change_json(random: Random, database: sqlite3.Connection) -> None:
    """Damage a text that is JSON."""
    tables = ("model_version_tags", "registered_model_tags", "datasets", "tags")
    table = random.choice(tables)
    column = TEXTS[table][0]
    rows = database.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '{{%'").fetchall()
    if rows:
        row, text = random.choice(rows)
        damaged = damage_json(random, text.encode()).decode(errors="replace")
        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (damaged, row))


def set_value(random: Random, database: sqlite3.Connection, table: str, column: str, value: Any) -> None:
    row = choose_row(random, database, table)
    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))


def add_tag(random: Random, database: sqlite3.Connection) -> None:
    """Add a tag, or a parameter, that nobody of us writes."""
    table = random.choice(("tags", "params", "model_version_tags", "registered_model_tags"))
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    row = database.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
    values = dict(zip(columns, row or (), strict=False))
    values["key"] = random.choice((*DECISION_TAGS, *HOSTILE_TEXTS[1:30:7], "=x", "<b>", "a" * 250))
    values["value"] = random.choice(("", "1", LONG, "{}", "[" * 4000, "9" * 4999, '{"a": 1}'))
    places = ", ".join("?" * len(values))
    names = ", ".join(values)
    if len(values) == len(columns):
        database.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({places})", tuple(values.values()))


def delete_row(random: Random, database: sqlite3.Connection) -> None:
    table = random.choice(("params", "tags", "latest_metrics", "metrics", "model_version_tags"))
    database.execute(f"DELETE FROM {table} WHERE rowid = ?", (choose_row(random, database, table),))


# --- what reads it ---------------------------------------------------------------------------------------------------


def read_store(random: Random, run_id: str, folder: Path) -> Result:
    """Call one of the scripts that read what others logged."""
    sort = random.choice((*CURVES, "test_accuracy", "duration", "training_seconds"))
    calls: list[Callable[[], Result]] = [
        lambda: call_main(compare.main, "--sort", sort, folder=folder),
        lambda: call_main(compare.main, "--csv", "compare.csv", folder=folder),
        lambda: call_main(compare.main, "--plot", "compare.svg", "--sort", sort, folder=folder),
        lambda: call_main(lineage.main, folder=folder),
        lambda: call_main(lineage.main, "--json", folder=folder),
        lambda: call_main(lineage.main, "--run-id", run_id, "--prov", "prov.json", folder=folder),
        lambda: call_main(promote.main, "--history", folder=folder),
        lambda: call_main(promote.main, "--history", "--json", folder=folder),
        lambda: call_main(promote.main, "--run-id", run_id, "--dry-run", folder=folder),
        lambda: call_main(promote.main, "--run-id", run_id, "--wait", 0, folder=folder),
        lambda: call_main(promote.main, "--rollback", "--reason", "x", "--wait", 0, folder=folder),
        lambda: call_main(pytorch_demo.main, "--reproduce", run_id, folder=folder),
        lambda: call_main(pytorch_demo.main, "--dataset", "digits", "--from", run_id, folder=folder),
        lambda: call_main(pytorch_demo.main, "--resume", run_id, folder=folder),
    ]
    return random.choice(calls)()


def test_hostile_values_in_the_store_are_one_line(digits_pipeline: PipelineRun) -> None:
    folder, run_id = digits_pipeline.folder, digits_pipeline.run_id
    database = sqlite3.connect(folder / "mlflow.db")
    honest = sqlite3.connect(":memory:")
    database.backup(honest)
    bugs = []
    count = 90
    with patch("pipeline.session.epochs.train", side_effect=EnoughError("enough")):
        for seed in range(count):
            random = Random(seed)
            damage_store(random, database)
            try:
                with as_bug_of(f"seed {seed}"):
                    result = read_store(random, run_id, folder)
            except AssertionError as error:
                bugs.append(str(error))
                continue
            finally:
                mlflow.end_run()
                honest.backup(database)
            if not is_harmless(result):
                bugs.append(f"seed {seed}: {result.code} {result.stderr.strip().splitlines()[-3:]}")
    print(f"{count} cases, {len(bugs)} bugs")
    assert not bugs, f"{len(bugs)} of {count} cases:\n" + "\n".join(bugs)


def test_checklist_answers_whatever_runs_have_logged(digits_pipeline: PipelineRun) -> None:
    from pipeline.evaluation.record import EvaluationRecord
    from pipeline.reports.checklist_evidence import answer_checklist
    from pipeline.tracking import loading, runs
    from pipeline.tracking.registry import ModelReference

    folder, run_id = digits_pipeline.folder, digits_pipeline.run_id
    record = EvaluationRecord.read(folder / "evaluation" / run_id, "here")
    database = sqlite3.connect(folder / "mlflow.db")
    honest = sqlite3.connect(":memory:")
    database.backup(honest)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    stored = loading.load_model(ModelReference(digits_pipeline.model_uri))
    bugs = []
    count = 50
    with patch("pipeline.reports.checklist_evidence.measure_latencies", return_value=[0.001]):
        for seed in range(count):
            damage_store(Random(seed), database)
            try:
                answers = answer_checklist(record, stored, runs.get_run(run_id))
                json.dumps([answer.figures for answer in answers], allow_nan=False).encode()
            except UserError:
                pass
            except Exception as error:
                bugs.append(f"seed {seed}: {type(error).__name__}: {error}")
            finally:
                honest.backup(database)
    print(f"{count} cases, {len(bugs)} bugs")
    assert not bugs, f"{len(bugs)} of {count} cases:\n" + "\n".join(bugs)
