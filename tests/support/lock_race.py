"""Processes that compete for one lock."""

import multiprocessing
import os
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

MODEL_NAME = "digits-classifier"


def race_for_lock(clients: Sequence[Mapping[str, str]], marker: Path, rounds: int) -> list[int]:
    """Let a process for each client hold the lock of the model ``rounds`` times.

    Return, for each process, how often another one had the lock at the same time: as long as a process has it, the file
    ``marker`` exists.
    """
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(len(clients), mp_context=context) as processes:
        compete = partial(_compete, marker=marker, rounds=rounds)
        return list(processes.map(compete, [{**os.environ, **client} for client in clients]))


def _compete(env: dict[str, str], marker: Path, rounds: int) -> int:
    os.environ.clear()  # the fork server keeps the environment of the test that started it
    os.environ.update(env)
    import mlflow

    from pipeline.promotion import lock

    mlflow.set_tracking_uri(env["MLFLOW_TRACKING_URI"])
    lock.POLL_INTERVAL = 0.02
    overlaps = 0
    for _ in range(rounds):
        time.sleep(random.uniform(0, 0.05))
        with lock.promotion_lock(MODEL_NAME):
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                overlaps += 1
            else:
                time.sleep(0.01)
                marker.unlink()
    return overlaps
