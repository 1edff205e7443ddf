"""Processes that compete for one lock."""

import multiprocessing
import os
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

MODEL_NAME = "digits-classifier"


def race_for_lock(clients: Sequence[Mapping[str, str]], marker: Path, rounds: int) -> list[int]:
    """Let a process for each client create and remove the lock ``rounds`` times.

    Return, for each process, how often another one had the lock at the same time: as long as a process has it, the file
    ``marker`` exists.
    """
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(len(clients), mp_context=context) as processes:
        compete = partial(_compete, marker=marker, rounds=rounds)
        return list(processes.map(compete, [dict(client) for client in clients]))


def _compete(client: dict[str, str], marker: Path, rounds: int) -> int:
    os.environ.update(client)
    import mlflow

    from pipeline.tracking import locks

    mlflow.set_tracking_uri(client["MLFLOW_TRACKING_URI"])
    overlaps = 0
    for _ in range(rounds):
        tags = {"nonce": uuid.uuid4().hex}
        while not locks.create_lock(MODEL_NAME, tags):
            time.sleep(random.uniform(0, 0.05))
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            overlaps += 1
        else:
            time.sleep(0.01)
            marker.unlink()
        assert locks.delete_lock(MODEL_NAME, tags)
    return overlaps
