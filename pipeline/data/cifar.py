"""CIFAR-10: colour photos of ten kinds of things (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from pipeline.data.catalog import CIFAR10
from pipeline.data.downloads import download_file, explain_file_errors
from pipeline.data.forms import PhotoForm
from pipeline.data.splits import Dataset
from pipeline.regular_files import open_regular_file

SHAPE = (3, 32, 32)
RECORD_SIZE = 1 + 3 * 32 * 32  # bytes: the label, then the red, the green and the blue plane
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Archive:
    """The binary version of the data set: an archive of files of records, without pickle.

    Attributes
    ----------
    url : where its authors publish it.
    md5 : of the published archive, which a download has to have.
    records : number of images in each file.
    sha256 : SHA-256 of each file in hexadecimal, by its name: an archive that was packed again is right, too.
    splits : names of the files of each split, in their order.
    """

    url: str
    md5: str
    records: int
    sha256: Mapping[str, str]
    splits: Mapping[str, tuple[str, ...]]


ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    records=10_000,
    sha256={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    splits={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
)


def read_cifar10_dataset(split: str, data_dir: Path, archive: Archive = ARCHIVE) -> Dataset:
    """Return the "train" or "test" split of CIFAR-10; a missing archive is downloaded to ``CIFAR10`` in ``data_dir``.

    The archive is read where it lies, and nothing is unpacked to the disk.

    Raises
    ------
    UserError
        The archive is damaged, is another one, is unreadable, or is missing and cannot be downloaded.
    """
    file = data_dir / "CIFAR10" / Path(archive.url).name
    with explain_file_errors(file):
        if not file.exists():
            advice = f"put {file.name} from {archive.url} into {file.parent}"
            download_file(file, archive.md5, [archive.url], advice)
        with open_regular_file(file) as opened:
            records = _read_records(opened, archive, split)
    pixels = np.ascontiguousarray(records[:, 1:]).reshape(-1, *SHAPE)
    return Dataset(
        name=CIFAR10,
        images=torch.from_numpy(pixels),
        labels=torch.from_numpy(records[:, 0].astype(np.int64)),
        classes=CLASSES,
        source=archive.url,
        form=PhotoForm(SHAPE),
    )


def _read_records(file: BinaryIO, archive: Archive, split: str) -> np.ndarray:
    """Return the records of a split, uint8 [N, 3073]; raise ValueError if they are not those of the data set."""
    names = archive.splits[split]
    batches: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as members:
            for member in members:
                name = Path(member.name).name
                if name in names and name not in batches:
                    batches[name] = _read_batch(members, member, archive)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(str(error) or "it is not complete") from None
    missing = [name for name in names if name not in batches]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    return np.concatenate([batches[name] for name in names])


def _read_batch(members: tarfile.TarFile, member: tarfile.TarInfo, archive: Archive) -> np.ndarray:
    name = Path(member.name).name
    size = archive.records * RECORD_SIZE
    if not member.isreg() or member.size != size:  # what is larger is not read
        raise ValueError(f"{name} is not a file of {size:,} bytes")
    content = members.extractfile(member)
    data = content.read() if content else b""
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != archive.sha256[name]:
        raise ValueError(f"{name} has the SHA-256 {sha256}, expected {archive.sha256[name]}")
    return np.frombuffer(data, np.uint8).reshape(-1, RECORD_SIZE)
