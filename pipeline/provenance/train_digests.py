"""Which images a run trained on: the digest of each, in a file of the run. An evaluation must not test on them.

Validation images count as well: the weights and the epochs are chosen on them.
"""

import tempfile
from pathlib import Path

import numpy as np

from pipeline.data.image_digests import image_digests
from pipeline.data.numpy_files import map_npy
from pipeline.data.splits import Dataset, Splits
from pipeline.errors import UserError
from pipeline.provenance.record import PROVENANCE_FOLDER
from pipeline.regular_files import open_regular_file
from pipeline.tracking import artifacts

TRAIN_DIGESTS_FILE = "train_digests.npy"
TRAIN_DIGESTS_PATH = f"{PROVENANCE_FOLDER}/{TRAIN_DIGESTS_FILE}"  # of a run's artifacts


def write_train_digests(folder: Path, splits: Splits) -> None:
    """Write the digests of the training and validation images into ``folder``: uint64, sorted, each once."""
    digests = np.concatenate([image_digests(splits.train.images), image_digests(splits.validation.images)])
    np.save(folder / TRAIN_DIGESTS_FILE, np.unique(digests), allow_pickle=False)


def count_overlap(run_id: str, test: Dataset) -> int | None:
    """Return how many test images are training or validation images of the run; None if it does not record these.

    Raises
    ------
    UserError
        The file of the run is damaged.
    """
    if TRAIN_DIGESTS_PATH not in artifacts.list_artifact_paths(run_id, PROVENANCE_FOLDER):
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = artifacts.download_artifact(run_id, TRAIN_DIGESTS_PATH, Path(folder))
        train_digests = _read_digests(file, run_id)
    return int(np.isin(image_digests(test.images), train_digests).sum())


def _read_digests(file: Path, run_id: str) -> np.ndarray:
    try:
        with open_regular_file(file) as content:
            digests = map_npy(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{TRAIN_DIGESTS_PATH} of run {run_id} is damaged ({error}); train again") from None
    if digests.dtype != np.uint64 or digests.ndim != 1:
        raise UserError(f"{TRAIN_DIGESTS_PATH} of run {run_id} is not a list of digests; train again")
    return digests
