"""A data set that prepare_data.py wrote: ``classes.json``, a cleaning report, and IDX files named as MNIST's."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.catalog import CLASSES_FILE, CLEANING_REPORT_FILE, DATASET_NAMES, IMAGE_SHAPE, is_prepared
from pipeline.data.class_names import check_class_names
from pipeline.data.idx import name_idx_files, read_idx, write_idx
from pipeline.data.splits import Dataset
from pipeline.errors import UserError

IDX_FOLDER = Path("MNIST", "raw")  # so that torchvision's MNIST can read the data set too


def save_dataset(folder: Path, train: Dataset, test: Dataset) -> None:
    """Write a data set into ``folder``; `pipeline.data.datasets.load_splits` reads it by the path of the folder."""
    idx_folder = folder / IDX_FOLDER
    idx_folder.mkdir(parents=True)
    label_dtype = np.uint8 if len(train.classes) <= 256 else np.int16
    for split, dataset in (("train", train), ("test", test)):
        images_file, labels_file = name_idx_files(split)
        write_idx(idx_folder / f"{images_file}.gz", dataset.images[:, 0].numpy())
        write_idx(idx_folder / f"{labels_file}.gz", dataset.labels.numpy().astype(label_dtype))
    text = json.dumps(train.classes, ensure_ascii=False, indent=1) + "\n"
    (folder / CLASSES_FILE).write_text(text, encoding="utf-8")


def find_cleaning_report(name: str) -> Path | None:
    """Return the cleaning report of a prepared data set; None if it has none, or is not a prepared one."""
    if name in DATASET_NAMES:
        return None
    report = Path(name, CLEANING_REPORT_FILE)
    return report if report.is_file() else None


def read_prepared_dataset(name: str, split: str) -> Dataset:
    """Return the "train" or "test" split of the data set in the directory ``name``.

    Raises
    ------
    UserError
        The directory is not a prepared data set, a file is damaged or unreadable, a class has no name or that of
        another one, or the images are not those that the cleaning report describes.
    """
    folder = Path(name)
    if not is_prepared(name):
        raise UserError(
            f"no data set is called {name!r}, and there is no {folder / CLASSES_FILE}; "
            f"choose one of {', '.join(DATASET_NAMES)}, or the directory that prepare_data.py wrote"
        )
    classes = _read_classes(folder / CLASSES_FILE)
    images_name, labels_name = name_idx_files(split)
    labels_file = folder / IDX_FOLDER / f"{labels_name}.gz"
    images = _read_tensor(folder / IDX_FOLDER / f"{images_name}.gz").unsqueeze(1)
    labels = _read_tensor(labels_file).long()
    with _explain_errors(labels_file):
        _check_arrays(images, labels, len(classes))
    dataset = Dataset(name, images, labels, classes, folder.resolve().as_uri())
    _check_cleaning_report(dataset, split)
    return dataset


@contextmanager
def _explain_errors(file: Path) -> Iterator[None]:
    """Turn an error of reading or parsing into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror or error}); run prepare_data.py again") from None
    except (ValueError, EOFError, zlib.error, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); run prepare_data.py again") from None


def _read_classes(file: Path) -> tuple[str, ...]:
    with _explain_errors(file):
        classes = tuple(str(name) for name in json.loads(file.read_text(encoding="utf-8")))
    check_class_names(classes, file)
    return classes


def _read_tensor(file: Path) -> Tensor:
    with _explain_errors(file):
        return torch.from_numpy(read_idx(gzip.decompress(file.read_bytes())))


def _check_arrays(images: Tensor, labels: Tensor, class_count: int) -> None:
    """Raise ValueError if images and labels cannot be a split of a data set."""
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels of shape {tuple(labels.shape)}; at least one is needed, in one dimension")
    if images.dtype != torch.uint8 or images.shape != (len(labels), *IMAGE_SHAPE):
        raise ValueError(f"images of shape {tuple(images.shape)}, {images.dtype}, and {len(labels)} labels")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= class_count:
        text = f"labels up to {highest}" if lowest >= 0 else f"labels from {lowest}"
        raise ValueError(f"{text} for {class_count} classes")


def _check_cleaning_report(dataset: Dataset, split: str) -> None:
    """Raise UserError if there is a cleaning report and it describes other data."""
    report = find_cleaning_report(dataset.name)
    if report is None:
        return
    with _explain_errors(report):
        content = json.loads(report.read_bytes())
        expected_digest = content[split]["sha256"]
        if list(content["classes"]) != list(dataset.classes):
            raise ValueError(f"its classes are not those of {CLASSES_FILE}")
    if dataset.digest != expected_digest:
        raise UserError(
            f"{dataset.name} is not what its {CLEANING_REPORT_FILE} describes (SHA-256 of {split}); "
            "run prepare_data.py again"
        )
