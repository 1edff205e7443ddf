"""Checkpoints with seeded damage are restored and trained on, or refused with a UserError: nothing else happens."""

import json
import random
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from pipeline.training.checkpoint import BEST_FILE, LAST_FILE, CheckpointWriter, TrainingJob, load_checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import start_training, train_one_epoch
from support.evaluations import evaluate_predictions, make_mistakes
from support.evidence import build_test_split
from support.mutations import HOSTILE_VALUES, check_cases, damage_bytes, damage_document

LABELS = [0, 1, 2] * 20
EVALUATION = evaluate_predictions(make_mistakes(10, LABELS), LABELS)
CONFIG = TrainingConfig("pets", "mlp", epochs=3, lr=0.01, augment=("none",), batch_size=5)


@cache
def read_honest_checkpoint() -> dict[str, Any]:
    """Return the content of a checkpoint after two of three epochs, of which the first was the best."""
    with tempfile.TemporaryDirectory() as directory:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        test = build_test_split(EVALUATION)
        state = start(test)
        for _ in range(2):
            train_one_epoch(state, test, test, CONFIG)
        writer = CheckpointWriter(Path(directory), JOB)
        assert writer.write(state)
        content = dict(torch.load(Path(directory, LAST_FILE), weights_only=True))
    for result in content["history"]:
        result.update(dict.fromkeys(TIMES, 1.0))  # the same bytes each time
    content["history"][0]["validation_loss"] = 0.0
    return content


def start(test: Any) -> Any:
    """Return the state before the training."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, len(test.classes)))
    return start_training(model, CONFIG, len(test), torch.device("cpu"))


TIMES = ("time", "training_seconds", "images_per_second")
JOB = TrainingJob("8f1c", CONFIG, {"train_digest": "a" * 64}, "demo", None, None, None, threads=1)
OTHER_TENSORS = (
    torch.zeros(0),
    torch.zeros(1, dtype=torch.int64),
    torch.full((3, 784), torch.nan),
    torch.zeros(5056, dtype=torch.uint8),
    torch.zeros(3, 784, dtype=torch.complex64),
    torch.zeros(2, 2).to_sparse(),
    torch.zeros(1, device="meta"),
)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    honest = read_honest_checkpoint()
    test = build_test_split(EVALUATION)
    best = {"format": honest["format"], "run_id": JOB.run_id, "epoch": 1, "model": honest["model"]}

    def read(damage: Random) -> None:
        torch.save(honest, tmp_path / LAST_FILE)
        torch.save(best, tmp_path / BEST_FILE)
        name = damage.choice((LAST_FILE, LAST_FILE, BEST_FILE))
        original = honest if name == LAST_FILE else best
        if damage.random() < 0.3:
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(damage_bytes(damage, content))
        else:
            damaged = damage_document(damage, original, (*HOSTILE_VALUES, *OTHER_TENSORS))
            if "job" in original and isinstance(damaged, dict) and damage.random() < 0.4:
                damaged["job"] = json.dumps(damage_document(damage, json.loads(original["job"])))
            torch.save(damaged, tmp_path / name)
        checkpoint = load_checkpoint(tmp_path / LAST_FILE)
        json.dumps(asdict(checkpoint.job), allow_nan=False).encode()
        state = start(test)
        checkpoint.restore(state, len(test))
        if state.best:
            state.model.load_state_dict(state.best.weights)
        assert train_one_epoch(state, test, test, CONFIG)

    states = (torch.get_rng_state(), np.random.get_state())
    try:
        check_cases(200, read)
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
