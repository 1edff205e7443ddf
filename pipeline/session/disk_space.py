"""Is there room for what a training is going to write? Asked before it begins: a full disk ends it after hours."""

import shutil
from collections import defaultdict
from pathlib import Path

from torch import Tensor

from pipeline.errors import UserError
from pipeline.session.training import Training
from pipeline.tracking.artifact_store import find_local_folder

CHECKPOINT_FACTOR = 3  # AdamW keeps two numbers for each weight
REPORTS_SIZE = 2_000_000  # bytes of reports, figures and provenance; 1.0 MB was seen for digits
DIGEST_SIZE = 8  # bytes for each training image, in provenance/train_digests.npy
PROGRAM_FACTOR = 1.5  # model.pt2 has the weights and the program


def check_disk_space(training: Training, artifact_location: str | None) -> None:
    """Check that the disks of the checkpoints, and of the artifacts if they are in a folder, have enough free space.

    Parameters
    ----------
    training
        A training that is ready.
    artifact_location
        Where the store keeps the files of the run; None: not known before there is a run.

    Raises
    ------
    UserError
        There is too little.
    """
    checkpoints, artifacts = _estimate_sizes(training)
    needs = {training.checkpoints.directory: checkpoints}
    folder = find_local_folder(artifact_location) if artifact_location else None
    if folder is not None:
        needs[folder] = artifacts
    by_disk: dict[int, dict[Path, int]] = defaultdict(dict)
    for path, size in needs.items():
        existing = _find_existing(path)
        if existing is not None:
            by_disk[existing.stat().st_dev][existing] = size
    for sizes in by_disk.values():
        _check_disk(next(iter(sizes)), sum(sizes.values()))


def _estimate_sizes(training: Training) -> tuple[int, int]:
    """Return how many bytes the training writes beside its checkpoints, and to the artifact store."""
    state, policy = training.state, training.checkpoints
    weights = sum(_size(tensor) for tensor in state.model.state_dict().values())
    model = round(weights * PROGRAM_FACTOR)
    saved = CHECKPOINT_FACTOR * weights
    if training.job.config.keep == "best":
        saved += weights
    outputs = model + REPORTS_SIZE
    checkpoints = outputs + (2 * saved if policy.every else 0)  # a new one is written beside the last one
    images = len(training.splits.train) + len(training.splits.validation)
    artifacts = outputs + DIGEST_SIZE * images + (saved if policy.logged else 0)
    return checkpoints, artifacts


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _find_existing(path: Path) -> Path | None:
    """Return the path, or the nearest folder above it that exists; None if it cannot be reached."""
    for folder in (path.absolute(), *path.absolute().parents):
        try:
            folder.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return folder
    return None


def _check_disk(folder: Path, needed: int) -> None:
    usage = shutil.disk_usage(folder)
    free = usage.free
    if usage.total > 0 and free < needed:  # a file system without a size, such as of the kernel's, has no blocks
        raise UserError(
            f"the disk of {folder} has {_format_size(free)} free, and this training writes about "
            f"{_format_size(needed)} there; free some space, or choose another --checkpoint-dir or store"
        )


def _format_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
