"""Processes that compete for one lock on SQLite; tests/slow/test_tracking_over_http.py has the same over HTTP."""

from pathlib import Path

from pipeline.tracking import locks
from support.lock_race import MODEL_NAME, race_for_lock

PROCESSES = 8
ROUNDS = 4


def test_one_process_at_a_time_has_the_lock(store: Path) -> None:
    client = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
    overlaps = race_for_lock([client] * PROCESSES, store / "marker", ROUNDS)
    assert overlaps == [0] * PROCESSES
    assert locks.read_lock(MODEL_NAME) is None
