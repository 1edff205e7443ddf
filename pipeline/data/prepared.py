"""A data set that prepare_data.py wrote: ``classes.json``, a cleaning report, and IDX files named as MNIST's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.catalog import (
    CLASSES_FILE,
    CLEANING_REPORT_FILE,
    DATASET_NAMES,
    MAX_CLASSES,
    MAX_JSON_SIZE,
    is_prepared,
)
from pipeline.data.class_names import check_class_names, parse_class_names
from pipeline.data.forms import MNIST_FORM
from pipeline.data.idx import name_idx_files, read_idx, write_idx
from pipeline.data.splits import Dataset
from pipeline.documents import parse_json
from pipeline.errors import UserError
from pipeline.regular_files import open_file_below, read_limited
from pipeline.text import printable

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


def read_cleaning_report(report: Path) -> bytes:
    """Return the content of the cleaning report that `find_cleaning_report` returned.

    Raises
    ------
    UserError
        It cannot be read, or leads to a file elsewhere.
    """
    with _explain_errors(report), open_file_below(report.parent, report.name) as file:
        return read_limited(file, MAX_JSON_SIZE)


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
    classes = _read_classes(folder)
    images_name, labels_name = name_idx_files(split)
    labels_file = IDX_FOLDER / f"{labels_name}.gz"
    images = _read_tensor(folder, IDX_FOLDER / f"{images_name}.gz").unsqueeze(1)
    labels = _read_tensor(folder, labels_file)
    with _explain_errors(folder / labels_file):
        _check_arrays(images, labels, len(classes))
    dataset = Dataset(name, images, labels.long(), classes, folder.resolve().as_uri())
    _check_cleaning_report(dataset, split)
    return dataset


@contextmanager
def _explain_errors(file: Path) -> Iterator[None]:
    """Turn an error of reading or parsing into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror or error}); run prepare_data.py again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({printable(str(error))}); run prepare_data.py again") from None


def _read_classes(folder: Path) -> tuple[str, ...]:
    file = folder / CLASSES_FILE
    with _explain_errors(file), open_file_below(folder, CLASSES_FILE) as content:
        classes = parse_class_names(parse_json(read_limited(content, MAX_JSON_SIZE)))
        if not 2 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"{len(classes):,} classes, and 2 to {MAX_CLASSES:,} are needed")
    check_class_names(classes, file)
    return classes


def _read_tensor(folder: Path, name: Path) -> Tensor:
    with _explain_errors(folder / name), open_file_below(folder, name) as file:
        return torch.from_numpy(read_idx(file))


def _check_arrays(images: Tensor, labels: Tensor, class_count: int) -> None:
    """Raise ValueError if images and labels cannot be a split of a data set."""
    if labels.ndim != 1 or len(labels) < 2:  # a model is exported with two images as an example
        raise ValueError(f"labels of shape {tuple(labels.shape)}; at least two are needed, in one dimension")
    if labels.is_floating_point():
        raise ValueError(f"labels of type {labels.dtype}; integers are needed")
    if images.dtype != torch.uint8 or images.shape != (len(labels), *MNIST_FORM.shape):
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
        content = parse_json(read_cleaning_report(report))
        expected_digest = content[split]["sha256"]
        if list(content["classes"]) != list(dataset.classes):
            raise ValueError(f"its classes are not those of {CLASSES_FILE}")
    if dataset.digest != expected_digest:
        raise UserError(
            f"{dataset.name} is not what its {CLEANING_REPORT_FILE} describes (SHA-256 of {split}); "
            "run prepare_data.py again"
        )
