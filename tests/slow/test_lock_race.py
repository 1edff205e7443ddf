"""Processes that compete for one lock on SQLite; tests/slow/test_tracking_over_http.py has the same over HTTP."""

from pathlib import Path

from mlflow import MlflowClient

from pipeline.promotion.lock import read_tickets
from support.lock_race import MODEL_NAME, race_for_lock

PROCESSES = 8
ROUNDS = 4


def test_one_process_at_a_time_has_the_lock(store: Path) -> None:
    MlflowClient().create_registered_model(MODEL_NAME)
    client = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}
    overlaps = race_for_lock([client] * PROCESSES, store / "marker", ROUNDS)
    assert overlaps == [0] * PROCESSES
    assert read_tickets(MODEL_NAME) == []
