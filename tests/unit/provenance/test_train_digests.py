from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.datasets import load_splits
from pipeline.data.image_digests import image_digests
from pipeline.data.splits import Dataset, Splits
from pipeline.errors import UserError
from pipeline.provenance.train_digests import TRAIN_DIGESTS_FILE, count_overlap, write_train_digests
from pipeline.tracking import artifacts, runs

IMAGES = torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1).repeat(1, 1, 28, 28)


def select(*indices: int) -> Dataset:
    """Return a data set of these of twelve images."""
    images = IMAGES[list(indices)]
    return Dataset("own", images, torch.zeros(len(images), dtype=torch.int64), ("a", "b"), "")


def log_run(folder: Path, splits: Splits) -> str:
    """Log a run that trained on the splits; return its id."""
    with runs.start_run("demo", None) as run_id:
        write_train_digests(folder, splits)
        artifacts.log_artifacts(run_id, folder, "provenance")
    return run_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "provenance"
    folder.mkdir()
    return folder


def test_file_has_sorted_digests_once(folder: Path) -> None:
    write_train_digests(folder, Splits(select(3, 1, 3), select(2), select(9)))
    digests = np.load(folder / TRAIN_DIGESTS_FILE, allow_pickle=False)
    assert np.array_equal(digests, np.sort(image_digests(IMAGES[1:4])))


def test_training_and_validation_images_are_counted(store: Path, folder: Path) -> None:
    run_id = log_run(folder, Splits(select(0, 1, 2), select(3, 4), select(9)))
    assert count_overlap(run_id, select(2, 3, 9, 10)) == 2
    assert count_overlap(run_id, select(2, 2)) == 2
    assert count_overlap(run_id, select(10, 11)) == 0


def test_overlap_is_unknown_without_a_file(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        pass
    assert count_overlap(run_id, select(1)) is None


@pytest.mark.parametrize("array", [None, np.zeros(3), np.zeros((2, 2), np.uint64)], ids=["text", "floats", "table"])
def test_damaged_file_is_named(store: Path, folder: Path, array: np.ndarray | None) -> None:
    run_id = log_run(folder, Splits(select(0), select(1), select(2)))
    if array is None:
        (folder / TRAIN_DIGESTS_FILE).write_text("no array")
    else:
        np.save(folder / TRAIN_DIGESTS_FILE, array)
    artifacts.log_artifacts(run_id, folder, "provenance")
    with pytest.raises(UserError, match=rf"train_digests\.npy of run {run_id} is .*; train again"):
        count_overlap(run_id, select(1))


def test_digits_have_no_overlap(store: Path, folder: Path) -> None:
    splits = load_splits("digits", Path("unused"))
    assert count_overlap(log_run(folder, splits), splits.test) == 0
