import threading
from pathlib import Path

import pytest

from pipeline.tracking import metric_log, runs
from pipeline.tracking.metric_log import ALIVE_TAG, MetricLog

STEPS = (1, 2, 3)


def read_losses(run_id: str) -> list[float]:
    return runs.get_metric_histories(run_id, ["loss"])["loss"]


def test_metrics_arrive_until_the_end_of_the_block(store: Path) -> None:
    with runs.start_run("demo", None) as run_id, MetricLog(run_id) as log:
        for step in STEPS:
            log.log_metrics({"loss": 1 / step, "accuracy": 0.5}, step, when=1e9 + step)
    assert read_losses(run_id) == [1.0, 0.5, 1 / 3]
    assert runs.list_logged_steps(run_id, "accuracy") == set(STEPS)


def test_logged_steps_are_left_out(store: Path) -> None:
    with runs.start_run("demo", None) as run_id, MetricLog(run_id, {1, 3}) as log:
        for step in STEPS:
            log.log_metrics({"loss": step}, step, when=1e9)
    assert read_losses(run_id) == [2]


def test_files_arrive_in_their_folder(store: Path) -> None:
    (store / "last.pt").write_text("state")
    with runs.start_run("demo", None) as run_id, MetricLog(run_id) as log:
        log.log_file(store / "last.pt", "checkpoints")
    (file,) = (store / "mlruns").rglob("last.pt")
    assert (file.parent.name, file.read_text()) == ("checkpoints", "state")


def test_silent_training_gives_a_sign_of_life(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_log, "HEARTBEAT", 0.05)
    with runs.start_run("demo", None) as run_id, MetricLog(run_id):
        while ALIVE_TAG not in runs.get_run(run_id).data.tags:
            threading.Event().wait(0.05)
