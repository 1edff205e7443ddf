"""The team's server with many clients at once, and when it is killed."""

import time
from pathlib import Path

import pytest

from support.accounts import create_account
from support.scripts import run_at_once, start_script
from support.stack import TeamServer

EPOCH_METRICS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@pytest.fixture(scope="module")
def client(server: TeamServer) -> dict[str, str]:
    return create_account(server, "ada")


def test_sixteen_trainings_at_once_lose_nothing(server: TeamServer, client: dict[str, str], tmp_path: Path) -> None:
    options = ("--dataset", "digits", "--epochs", 3, "--limit", 300, "--model-name", "sixteen")
    calls = [(*options, "--seed", seed) for seed in range(16)]
    results = run_at_once(tmp_path, "pytorch_demo.py", calls, env=client)
    assert [result.code for result in results] == [0] * 16, results

    run_ids = {result.json["run_id"] for result in results}
    assert len(run_ids) == 16
    assert {result.json["model_version"] for result in results} == set(range(1, 17))
    for run_id in run_ids:
        assert server.query(f"SELECT status FROM runs WHERE run_uuid = '{run_id}'") == [("FINISHED",)]
        for metric in EPOCH_METRICS:
            assert read_steps(server, run_id, metric) == [1, 2, 3]


def test_a_training_survives_a_killed_server(server: TeamServer, client: dict[str, str], tmp_path: Path) -> None:
    options = ("--dataset", "digits", "--epochs", 120, "--run-name", "long")
    training = start_script(tmp_path, "pytorch_demo.py", *options, env=client)
    run_id = wait_for_epoch(server, "long", 20)
    server.kill()
    assert 20 < max(read_steps(server, run_id, "train_loss")) < 120
    time.sleep(3)  # the training goes on without the server
    server.start()

    result = training.wait()
    assert result.code == 0, result
    assert server.query(f"SELECT status FROM runs WHERE run_uuid = '{run_id}'") == [("FINISHED",)]
    assert read_steps(server, run_id, "validation_loss") == list(range(1, 121))


def read_steps(server: TeamServer, run_id: str, metric: str) -> list[int]:
    """Return the steps of a metric, in order."""
    condition = f"run_uuid = '{run_id}' AND `key` = '{metric}'"
    return [step for (step,) in server.query(f"SELECT step FROM metrics WHERE {condition} ORDER BY step")]


def wait_for_epoch(server: TeamServer, run_name: str, epoch: int) -> str:
    """Return the run with this name, as soon as it has more than so many epochs."""
    statement = (
        "SELECT runs.run_uuid FROM runs JOIN metrics ON runs.run_uuid = metrics.run_uuid "
        f"WHERE name = '{run_name}' AND step > {epoch} AND `key` = 'train_loss' LIMIT 1"
    )
    while True:  # pytest-timeout ends it
        rows = server.query(statement)
        if rows:
            return str(rows[0][0])
        time.sleep(0.2)
