"""Read the files of MNIST, and of data sets in the same form, from torchvision's folders; download missing files."""

import hashlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pipeline.data.catalog import TORCHVISION_DATASETS
from pipeline.data.idx import BLOCK_SIZE, name_idx_files, read_idx
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.files import atomic_directory
from pipeline.regular_files import open_regular_file

DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer


def read_torchvision_dataset(name: str, split: str, data_dir: Path) -> Dataset:
    """Return the "train" or "test" split of a data set that torchvision has; missing files are downloaded.

    The ``.gz`` files are read directly: ``data_dir`` may be read-only, and no unpacked file can be incomplete.

    Raises
    ------
    UserError
        A file is damaged, unreadable, or missing and cannot be downloaded.
    """
    import torchvision  # slow to import, and the other data sets do not need it

    source = getattr(torchvision.datasets, TORCHVISION_DATASETS[name])
    images_file, labels_file = name_idx_files(split)
    images = _read_array(source, images_file, data_dir)
    labels = _read_array(source, labels_file, data_dir)
    return Dataset(
        name=name,
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(labels).long(),
        # torchvision names MNIST's classes "0 - zero" to "9 - nine"
        classes=tuple(class_name.split(" - ")[0] for class_name in source.classes),
        source=source.mirrors[0],
    )


def _read_array(source: Any, file_name: str, data_dir: Path) -> np.ndarray:
    """Read one file of ``source``, a class like torchvision's MNIST; the packed file counts if there are both."""
    unpacked = data_dir / source.__name__ / "raw" / file_name
    packed = unpacked.with_name(f"{file_name}.gz")
    md5 = dict(source.resources)[packed.name]
    try:
        if not packed.exists() and not unpacked.exists():
            _download_file(packed, md5, source.mirrors)
        is_packed = packed.exists()
        with open_regular_file(packed if is_packed else unpacked) as file:
            if is_packed:
                _check_md5(file, packed, md5)
            return read_idx(file)
    except OSError as error:
        name = error.filename or packed
        raise UserError(f"cannot read {name} ({error.strerror}); check --data-dir or its permissions") from None
    except ValueError as error:
        raise UserError(f"{unpacked} is damaged ({error}); delete it and run again") from None


def _check_md5(file: BinaryIO, packed: Path, expected_md5: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(BLOCK_SIZE):
        digest.update(block)
    file.seek(0)
    md5 = digest.hexdigest()
    if md5 != expected_md5:
        raise UserError(f"{packed} is damaged (MD5 {md5}, expected {expected_md5}); delete it and run again")


def _download_file(packed: Path, md5: str, mirrors: Sequence[str]) -> None:
    """Download a file from the first mirror that has it."""
    from torchvision.datasets.utils import download_url

    reason = ""
    with _socket_timeout(DOWNLOAD_TIMEOUT):
        for mirror in mirrors:
            try:
                with atomic_directory(packed.parent) as folder:
                    download_url(f"{mirror}{packed.name}", folder, packed.name, md5)
                return
            except (RuntimeError, OSError) as error:  # a wrong MD5 is torchvision's RuntimeError
                reason = str(error)
    raise UserError(
        f"{packed} is missing and could not be downloaded ({reason}); "
        f"put the four .gz files into {packed.parent}, or run with --dataset digits, which needs no download"
    )


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit how long a connection waits for an answer; torchvision sets no limit."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
