"""Read the files of MNIST, and of data sets in the same form, from torchvision's folders; download missing files."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pipeline.data.catalog import TORCHVISION_DATASETS
from pipeline.data.downloads import compute_md5, download_file, explain_file_errors
from pipeline.data.idx import name_idx_files, read_idx
from pipeline.data.known_files import KNOWN_FILES, find_difference
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.regular_files import open_regular_file


def read_torchvision_dataset(name: str, split: str, data_dir: Path) -> Dataset:
    """Return the "train" or "test" split of a data set that torchvision has; missing files are downloaded.

    The ``.gz`` files are read directly, so ``data_dir`` may be read-only. A file is right if it has torchvision's MD5,
    or if its content is that of the data set, however it is packed; see `pipeline.data.known_files`.

    Raises
    ------
    UserError
        A file is damaged, is another one, is unreadable, or is missing and cannot be downloaded.
    """
    import torchvision  # slow to import, and the other data sets do not need it

    source = getattr(torchvision.datasets, TORCHVISION_DATASETS[name])
    images_file, labels_file = name_idx_files(split)
    images = _read_array(name, split, source, images_file, data_dir)
    labels = _read_array(name, split, source, labels_file, data_dir)
    return Dataset(
        name=name,
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(labels).long(),
        # torchvision names MNIST's classes "0 - zero" to "9 - nine"
        classes=tuple(class_name.split(" - ")[0] for class_name in source.classes),
        source=source.mirrors[0],
    )


def _read_array(name: str, split: str, source: Any, file_name: str, data_dir: Path) -> np.ndarray:
    """Read one file of ``source``, a class like torchvision's MNIST; the packed file counts if there are both."""
    unpacked = data_dir / source.__name__ / "raw" / file_name
    packed = unpacked.with_name(f"{file_name}.gz")
    md5 = dict(source.resources)[packed.name]
    with explain_file_errors(packed):
        if not packed.exists() and not unpacked.exists():
            urls = [f"{mirror}{packed.name}" for mirror in source.mirrors]
            download_file(packed, md5, urls, f"put the four .gz files into {packed.parent}")
        file = packed if packed.exists() else unpacked
        with open_regular_file(file) as opened:
            return _read_file(opened, file, md5, name, split)


def _read_file(opened: BinaryIO, file: Path, md5: str, name: str, split: str) -> np.ndarray:
    """Return the array of an open file; raise UserError if it is not that of the data set."""
    mismatch = ""
    if file.suffix == ".gz":
        actual_md5 = compute_md5(opened)
        if actual_md5 != md5:
            mismatch = f"MD5 {actual_md5}, expected {md5}"
    try:
        if mismatch and name not in KNOWN_FILES:  # nothing else tells whether the content is right
            raise ValueError(mismatch)
        array = read_idx(opened)
    except ValueError as error:
        raise UserError(f"{file} is damaged ({mismatch or error}); delete it and run again") from None
    if file.suffix == ".gz" and not mismatch:
        return array
    difference = find_difference(array, name, file.name.removesuffix(".gz"), split)
    if difference:
        raise UserError(f"{file} is not that of {name}: {difference}; delete it and run again")
    return array
