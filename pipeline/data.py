"""The data sets: uint8 images, int64 labels, three splits, a digest. The only room that imports torchvision."""

import gzip
import hashlib
import json
import socket
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline import UserError
from pipeline.cli import whole
from pipeline.images import from_idx, write_idx

NAMES = ("mnist", "fashion-mnist", "digits")
CLASSES, REPORT = "classes.json", "cleaning_report.json"  # of a data set of your own
_RAW = Path("MNIST", "raw")
SPLIT_SEED = 0  # cuts validation from training; not the training seed, so every run validates on the same images


@dataclass(frozen=True)
class Dataset:
    """One split of a data set, held in memory.

    Attributes
    ----------
    name : one of `NAMES`, or the directory that prepare_data.py made.
    images : uint8 [N, 1, 28, 28], 0 to 255, ink bright on dark.
    labels : int64 [N], 0 to len(classes) - 1.
    classes : the class names, in the order of the labels.
    source : where the data comes from, a URL.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, pixels and labels, in hexadecimal: equal digests mean equal data."""
        sha256 = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        sha256.update(self.images.contiguous().numpy().data)
        sha256.update(self.labels.contiguous().numpy().astype("<i8", copy=False).data)
        return sha256.hexdigest()

    def take(self, indices: Tensor | slice) -> "Dataset":
        """Return the images at ``indices`` as a data set of their own."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


class Splits(NamedTuple):
    """The three splits of a data set."""

    train: Dataset
    validation: Dataset
    test: Dataset


def load(name: str, data_dir: Path) -> Splits:
    """Return the train, validation and test split of a data set: one of `NAMES`, or the directory of one of your own.

    MNIST and Fashion-MNIST: 55,000 / 5,000 / 10,000; digits: 1,257 / 180 / 360. Validation is cut from the training
    set, stratified by class, always the same images; of your own one in ten, 5,000 at most. Nothing is downloaded that
    lies in ``data_dir``.

    Raises
    ------
    UserError
        Unknown name; files missing and not to be downloaded; files damaged or unreadable.
    """
    if name not in NAMES:
        every = _own(name, "train")
        train, validation = _cut(every, max(len(every.classes), min(5_000, len(every) // 10)))
        test = _own(name, "t10k")
    elif name == "digits":
        every = _digits()
        rest, test = _cut(every, 360)
        train, validation = _cut(rest, 180)
    else:
        train, validation = _cut(_idx(name, "train", data_dir), 5_000)
        test = _idx(name, "t10k", data_dir)
    return Splits(train, validation, test)


def load_test(name: str, data_dir: Path) -> Dataset:
    """Return the test split alone, equal to ``load(name, data_dir).test``. Raises as `load` does."""
    if name not in NAMES:
        return _own(name, "t10k")
    return _cut(_digits(), 360)[1] if name == "digits" else _idx(name, "t10k", data_dir)


def save(folder: Path, train: Dataset, test: Dataset) -> None:
    """Write a data set of your own into ``folder``: ``classes.json``, and IDX files laid out as torchvision's MNIST.

    `load` reads them by the folder's path.
    """
    raw = folder / _RAW
    raw.mkdir(parents=True)
    for part, dataset in (("train", train), ("t10k", test)):
        labels = dataset.labels.numpy().astype(np.uint8 if len(dataset.classes) <= 256 else np.int16)
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", dataset.images[:, 0].numpy())
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", labels)
    (folder / CLASSES).write_text(json.dumps(train.classes, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def report_of(name: str) -> Path | None:
    """Return the cleaning report of a data set of your own; None where there is none."""
    report = Path(name) / REPORT
    return report if name not in NAMES and report.is_file() else None


def _own(name: str, part: str) -> Dataset:
    """Read one part of a data set that `save` wrote; where there is a cleaning report, its digest has to fit."""
    folder = Path(name)
    if not (folder / CLASSES).is_file():
        raise UserError(
            f"no data set is called {name!r}, and there is no {folder / CLASSES}; choose one of {', '.join(NAMES)}, "
            "or the directory that prepare_data.py made"
        )
    file = folder / CLASSES
    try:
        classes = tuple(str(each) for each in json.loads(file.read_text(encoding="utf-8")))
        arrays = []
        for kind in ("images-idx3", "labels-idx1"):
            file = folder / _RAW / f"{part}-{kind}-ubyte.gz"
            arrays.append(torch.from_numpy(from_idx(gzip.decompress(file.read_bytes()))))
        images, labels = arrays[0].unsqueeze(1), arrays[1].long()
        if images.dtype != torch.uint8 or images.shape != (len(labels), 1, 28, 28) or not len(labels):
            raise ValueError(f"images of shape {tuple(arrays[0].shape)} and {len(labels)} labels")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise ValueError(f"labels up to {int(labels.max())} for {len(classes)} classes")
        found = Dataset(name, images, labels, classes, folder.resolve().as_uri())
        expected = None
        if report := report_of(name):
            file = report
            described = json.loads(file.read_bytes())
            expected = described["train" if part == "train" else "test"]["sha256"]
            if list(described["classes"]) != list(classes):
                raise ValueError(f"its classes are not those of {CLASSES}")
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror or error}); run prepare_data.py again") from None
    except (ValueError, EOFError, zlib.error, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); run prepare_data.py again") from None
    if expected and found.digest != expected:
        raise UserError(f"{folder} is not what its {REPORT} describes (SHA-256 of {part}); run prepare_data.py again")
    return found


def choose(labels: np.ndarray, size: int) -> np.ndarray:
    """Return where ``size`` images are that stand for all, stratified by class; bool [N], always the same."""
    from sklearn.model_selection import train_test_split

    _, places = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=SPLIT_SEED)
    chosen = np.zeros(len(labels), bool)
    chosen[places] = True
    return chosen


def _cut(dataset: Dataset, size: int) -> tuple[Dataset, Dataset]:
    """Return the rest and ``size`` images cut off from it, stratified by class; the order of the images stays."""
    chosen = choose(dataset.labels.numpy(), size)
    rest, cut = (dataset.take(torch.from_numpy(np.flatnonzero(each))) for each in (~chosen, chosen))
    return rest, cut


def _digits() -> Dataset:
    """scikit-learn's handwritten digits, 1,797 scans of 8x8 pixels with 17 grey levels, enlarged to 28x28.

    Source: https://archive.ics.uci.edu/dataset/80 (test part). Bilinear, in whole numbers, so that the pixels and
    with them the digest are the same on every machine.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    position = np.clip(4 * np.arange(28) - 5, 0, 7 * 14)  # of each new pixel's centre on the old grid, in 14ths
    low, part = np.divmod(position, 14)
    weights = np.zeros((28, 8), np.int64)
    weights[np.arange(28), low] = 14 - part
    weights[np.arange(28), np.minimum(low + 1, 7)] += part
    sums = weights @ scans.images.astype(np.int64) @ weights.T  # 0 to 16 * 14 * 14
    images = ((255 * sums + 1_568) // 3_136).astype(np.uint8)  # 3,136 = 16 * 14 * 14; 1,568 rounds
    return Dataset(
        name="digits",
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(scans.target.astype(np.int64)),
        classes=tuple(str(digit) for digit in range(10)),
        source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    )


def _idx(name: str, part: str, data_dir: Path) -> Dataset:
    """Read one part (train or t10k) of MNIST or Fashion-MNIST from torchvision's folders, downloading what is missing.

    The ``.gz`` files are read as they are: a data directory may be read-only, and no half-unpacked file can lie there.
    """
    from torchvision.datasets import MNIST, FashionMNIST

    source = {"mnist": MNIST, "fashion-mnist": FashionMNIST}[name]
    raw = data_dir / source.__name__ / "raw"
    md5s = dict(source.resources)
    images, labels = (
        _read_idx(raw, file, md5s[f"{file}.gz"], source.mirrors)
        for file in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    )
    return Dataset(
        name=name,
        images=images.unsqueeze(1),
        labels=labels.long(),
        classes=tuple(str(digit) for digit in range(10)) if name == "mnist" else tuple(source.classes),
        source=source.mirrors[0],
    )


def _read_idx(raw: Path, file: str, md5: str, mirrors: list[str]) -> Tensor:
    """Read one IDX file (format: http://yann.lecun.com/exdb/mnist, saved by the Internet Archive)."""
    packed, unpacked = raw / f"{file}.gz", raw / file
    try:
        if not packed.exists() and not unpacked.exists():
            _download(packed, md5, mirrors)
        content = _unpack(packed, md5) if packed.exists() else unpacked.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or packed} ({error.strerror}); check --data-dir or its permissions"
        ) from None
    try:
        return torch.from_numpy(from_idx(content))
    except ValueError as error:
        raise UserError(f"{unpacked} is damaged ({error}); delete it and run again") from None


def _unpack(packed: Path, md5: str) -> bytes:
    content = packed.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(f"{packed} is damaged (MD5 {found}, expected {md5}); delete it and run again")
    return gzip.decompress(content)


def _download(packed: Path, md5: str, mirrors: list[str]) -> None:
    from torchvision.datasets.utils import download_url

    reason = ""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer; torchvision sets none
    try:
        for mirror in mirrors:
            try:
                with whole(packed.parent) as folder:
                    download_url(f"{mirror}{packed.name}", folder, packed.name, md5)
                return
            except (RuntimeError, OSError) as error:  # torchvision's for a wrong MD5; the network's
                reason = str(error)
    finally:
        socket.setdefaulttimeout(timeout)
    raise UserError(
        f"{packed} is not there and could not be downloaded ({reason}); "
        f"put the four .gz files into {packed.parent}, or run with --dataset digits, which needs no download"
    )
