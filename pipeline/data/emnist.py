"""EMNIST: handwritten letters and digits in the form of MNIST (Cohen et al. 2017, https://arxiv.org/abs/1702.05373)."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch

from pipeline.data.catalog import EMNIST_DATASETS
from pipeline.data.downloads import compute_md5, download_file, explain_file_errors
from pipeline.data.idx import read_idx
from pipeline.data.splits import Dataset
from pipeline.regular_files import open_regular_file

NO_CLASS = "N/A"  # torchvision's name for label 0 of the letters, which no image has


def read_emnist_dataset(name: str, split: str, data_dir: Path) -> Dataset:
    """Return the "train" or "test" split of one of EMNIST's data sets, upright; a missing archive is downloaded.

    The archive is that of torchvision, and is read where torchvision puts it, ``EMNIST/raw/gzip.zip``. Nothing is
    unpacked to the disk. As distributed, every image has its rows and columns exchanged.

    Raises
    ------
    UserError
        The archive is damaged, is unreadable, or is missing and cannot be downloaded.
    """
    from torchvision.datasets import EMNIST  # slow to import, and the other data sets do not need it

    part = EMNIST_DATASETS[name]
    file = data_dir / "EMNIST" / "raw" / "gzip.zip"
    images, labels = _read_archive(file, f"emnist-{part}-{split}", EMNIST.url, EMNIST.md5)
    classes = tuple(EMNIST.classes_split_dict[part])
    first_label = 1 if classes[0] == NO_CLASS else 0
    upright = np.ascontiguousarray(images.transpose(0, 2, 1))
    return Dataset(
        name=name,
        images=torch.from_numpy(upright).unsqueeze(1),
        labels=torch.from_numpy(labels.astype(np.int64) - first_label),
        classes=classes[first_label:],
        source=EMNIST.url,
    )


def _read_archive(file: Path, prefix: str, url: str, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 [N, 28, 28], and labels, uint8 [N], of a part of the archive."""
    with explain_file_errors(file):
        if not file.exists():
            download_file(file, md5, [url], f"put {file.name} from {url} into {file.parent}")
        with open_regular_file(file) as opened:
            actual_md5 = compute_md5(opened)
            if actual_md5 != md5:
                raise ValueError(f"MD5 {actual_md5}, expected {md5}")
            try:
                with zipfile.ZipFile(opened) as archive:
                    images = _read_member(archive, f"{prefix}-images-idx3-ubyte.gz")
                    labels = _read_member(archive, f"{prefix}-labels-idx1-ubyte.gz")
            except zipfile.BadZipFile as error:
                raise ValueError(str(error)) from None
    return images, labels


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    try:
        content = archive.read(f"gzip/{name}")
    except KeyError:
        raise ValueError(f"it has no {name}") from None
    return read_idx(io.BytesIO(content))
