import logging
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.datasets import Splits, load_splits
from pipeline.errors import UserError
from pipeline.training.checkpoint import CheckpointWriter, TrainingJob, load_checkpoint, lock_folder
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import TrainingState, never, start_training, train_one_epoch
from pipeline.training.models import build_model

CONFIG = TrainingConfig(dataset="digits", model="cnn", epochs=4, lr=0.03, augment=("affine",), batch_size=64)
JOB = TrainingJob(
    run_id="f00d",
    config=CONFIG,
    digests={"train_digest": "1", "validation_digest": "2", "test_digest": "3"},
    experiment="demo",
    run_name=None,
    model_name="digits-classifier",
    reproduces=None,
    threads=1,
)


@pytest.fixture(scope="module")
def splits() -> Splits:
    complete = load_splits("digits", Path())
    return complete._replace(train=complete.train.subset(slice(300)))


def start(splits: Splits) -> TrainingState:
    torch.manual_seed(0)
    model = build_model("cnn", 10, splits.train.images)
    return start_training(model, CONFIG, len(splits.train), torch.device("cpu"))


def train(state: TrainingState, splits: Splits, should_stop: Callable[[], bool] = never) -> None:
    """Train until the end, or until it should stop."""
    while state.epoch < CONFIG.epochs:
        if train_one_epoch(state, splits.train, splits.validation, CONFIG, should_stop=should_stop) is None:
            return


def stop_after(batches: int) -> Callable[[], bool]:
    asked = iter(range(10_000))
    return lambda: next(asked) == batches


def save_and_restore(state: TrainingState, splits: Splits, folder: Path) -> TrainingState:
    assert CheckpointWriter(folder, JOB).write(state)
    restored = start(splits)
    load_checkpoint(folder / "last.pt").restore(restored, len(splits.train))
    return restored


def assert_equal_weights(first: TrainingState, second: TrainingState) -> None:
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


# --- go on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [0, 5, 7, 13], ids=lambda batches: f"{batches} batches")
def test_restored_training_ends_with_the_same_weights(splits: Splits, tmp_path: Path, batches: int) -> None:
    complete = start(splits)
    train(complete, splits)
    interrupted = start(splits)
    train(interrupted, splits, stop_after(batches))
    restored = save_and_restore(interrupted, splits, tmp_path)
    train(restored, splits)
    assert_equal_weights(restored, complete)
    losses = [[result.train_loss for result in state.history] for state in (restored, complete)]
    assert losses[0] == losses[1]
    assert restored.best
    assert complete.best
    assert restored.best.epoch == complete.best.epoch
    for name, tensor in complete.best.weights.items():
        assert torch.equal(tensor, restored.best.weights[name])


def test_random_generators_of_the_process_are_restored(splits: Splits, tmp_path: Path) -> None:
    def draw() -> list[Any]:
        return [random.random(), np.random.random(), np.random.standard_normal(), torch.rand(1).item()]

    state = start(splits)
    CheckpointWriter(tmp_path, JOB).write(state)
    expected = draw()
    assert draw() != expected
    load_checkpoint(tmp_path / "last.pt").restore(start(splits), len(splits.train))
    assert draw() == expected


def test_job_is_read_back(splits: Splits, tmp_path: Path) -> None:
    job = replace(JOB, run_name="a name", model_name=None, reproduces="c0ffee")
    CheckpointWriter(tmp_path, job).write(start(splits))
    assert load_checkpoint(tmp_path / "last.pt").job == job


def test_lost_best_weights_end_nothing(splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = start(splits)
    train(state, splits)
    state.history[1] = replace(state.history[1], validation_loss=0.0)  # the best is in no file
    restored = save_and_restore(state, splits, tmp_path)
    assert restored.best is None
    assert "is not of epoch 2" in caplog.text


# --- refuse ---------------------------------------------------------------------------------------------------------


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_checkpoint_with_code_is_refused_unopened(tmp_path: Path) -> None:
    torch.save({"format": 1, "job": Trap(tmp_path / "sprung")}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint" * 100])
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"the checkpoint .*last\.pt is damaged"):
        load_checkpoint(tmp_path / "last.pt")


def test_cut_file_is_named(splits: Splits, tmp_path: Path) -> None:
    CheckpointWriter(tmp_path, JOB).write(start(splits))
    file = tmp_path / "last.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*last\.pt"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("content", [{"format": 2}, {"weights": 1}, [1]])
def test_other_version_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", {}),
        ("model", None),
        ("optimizer", 1),
        ("optimizer", {"state": {}, "param_groups": []}),
        ("schedule", {"last_epoch": 0, "_last_lr": [0.1], "step": 1}),
        ("schedule", {"last_epoch": 7, "_last_lr": [0.1]}),
        ("generator", torch.zeros(3)),
        ("history", [{}]),
        ("history", None),
        ("random", {}),
        ("epoch", "x"),
        ("epoch", 1),
        ("epoch", True),
        ("progress", {}),
    ],
)
def test_content_that_does_not_fit_is_damage(splits: Splits, tmp_path: Path, key: str, value: Any) -> None:
    file = tmp_path / "last.pt"
    CheckpointWriter(tmp_path, JOB).write(start(splits))
    content = torch.load(file, weights_only=True)
    torch.save(content | {key: value}, file)
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(file).restore(start(splits), len(splits.train))


# --- the disk -------------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_ends_no_training(splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = start(splits)
    writer = CheckpointWriter(tmp_path, JOB)
    assert writer.write(state)
    before = (tmp_path / "last.pt").read_bytes()
    with largest_file(10_000):
        assert not writer.write(state)
        assert not writer.write(state)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the training goes on" in caplog.text
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_folder_is_locked_against_a_second_process(tmp_path: Path) -> None:
    refusal = pytest.raises(UserError, match="another process trains in")
    with lock_folder(tmp_path / "f00d"), refusal, lock_folder(tmp_path / "f00d"):
        pass
    with lock_folder(tmp_path / "f00d"):
        pass
