"""A data set that prepare_data.py wrote: images and labels of each split as .npy files, which are mapped, not read.

Beside them are ``classes.json``, ``form.json`` (into which form the pictures were prepared) and a cleaning report.
Data sets of earlier releases have IDX files in the place of the .npy files, and no form; they are read, too.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from pipeline.data.catalog import (
    CLASSES_FILE,
    CLEANING_REPORT_FILE,
    DATASET_NAMES,
    MAX_CLASSES,
    MAX_JSON_SIZE,
    SPLITS,
    is_prepared,
)
from pipeline.data.class_names import check_class_names, parse_class_names
from pipeline.data.forms import Form, Shape, describe_form, parse_form
from pipeline.data.idx import name_idx_files, read_idx
from pipeline.data.memory import check_array_size
from pipeline.data.numpy_files import map_npy
from pipeline.data.splits import Dataset, Splits, count_block_images, stratified_mask, stratified_split
from pipeline.documents import parse_json
from pipeline.errors import UserError
from pipeline.regular_files import open_file_below, read_limited
from pipeline.text import printable

FORM_FILE = "form.json"
IDX_FOLDER = Path("MNIST", "raw")  # of a data set of an earlier release
MAX_VALIDATION_SIZE = 5_000  # images


# --- write ----------------------------------------------------------------------------------------------------------


def choose_splits(labels: np.ndarray, is_test: np.ndarray, class_count: int) -> dict[str, np.ndarray]:
    """Return the indices of the images of each split, int64, in their order.

    Parameters
    ----------
    labels
        int64 [N].
    is_test
        bool [N]. Validation is cut from the others, see `count_validation_images`.
    class_count
        Of each class at least two images are not for testing.
    """
    rest = np.flatnonzero(~is_test)
    is_validation = stratified_mask(labels[rest], count_validation_images(len(rest), class_count))
    return {"train": rest[~is_validation], "validation": rest[is_validation], "test": np.flatnonzero(is_test)}


def count_validation_images(size: int, class_count: int) -> int:
    """Return how many of ``size`` images are for validation: a tenth, at most 5,000, at least one of each class."""
    return max(class_count, min(MAX_VALIDATION_SIZE, size // 10))


def save_splits(folder: Path, dataset: Dataset, indices: Mapping[str, np.ndarray]) -> None:
    """Write a data set into ``folder``; `pipeline.data.datasets.load_splits` reads it by the path of the folder.

    The images are copied in blocks, so that they may be more than the memory holds.

    Parameters
    ----------
    folder
        Exists.
    dataset
        All images, with their form.
    indices
        Of the images of each split.
    """
    if dataset.form is None:
        raise ValueError("a prepared data set has a form")
    for split in SPLITS:
        images_name, labels_name = name_files(split)
        _write_images(folder / images_name, dataset.images, indices[split])
        labels = dataset.labels.numpy()[indices[split]].astype("<i8")
        np.save(folder / labels_name, labels, allow_pickle=False)
    classes = json.dumps(dataset.classes, ensure_ascii=False, indent=1)
    (folder / CLASSES_FILE).write_text(classes + "\n", encoding="utf-8")
    (folder / FORM_FILE).write_text(
        json.dumps(describe_shape_and_form(dataset.form), indent=1) + "\n", encoding="utf-8"
    )


def name_files(split: str) -> tuple[str, str]:
    """Return the names of the files with the images and the labels of a split."""
    return f"{split}_images.npy", f"{split}_labels.npy"


def describe_shape_and_form(form: Form) -> dict[str, object]:
    """Return what form.json and the cleaning report say of the form."""
    return {"shape": list(form.shape), **describe_form(form)}


def _write_images(file: Path, images: Tensor, indices: np.ndarray) -> None:
    shape = (len(indices), *images.shape[1:])
    with file.open("wb") as content:
        header = {"descr": npy.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(content, header)
        values = images.numpy()
        size = count_block_images((shape[1], shape[2], shape[3]))
        for start in range(0, len(indices), size):
            content.write(values[indices[start : start + size]].data)


# --- read -----------------------------------------------------------------------------------------------------------


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


def read_prepared_splits(name: str) -> Splits:
    """Return the splits of the data set in the directory ``name``. The images are mapped: no memory holds them all.

    Raises
    ------
    UserError
        The directory is not a prepared data set, a file is damaged or unreadable, a class has no name or that of
        another one, or no training images, or the images are not those that the cleaning report describes.
    """
    _check_prepared(name)
    if _has_idx_files(name):
        rest, test = _read_split(name, "train"), _read_split(name, "test")
        _check_class_sizes(rest, 2)
        train, validation = stratified_split(rest, count_validation_images(len(rest), len(rest.classes)))
        return Splits(train, validation, test)
    splits = Splits(*(_read_split(name, split) for split in SPLITS))
    _check_class_sizes(splits.train, 1)
    return splits


def read_prepared_test_split(name: str) -> Dataset:
    """Return the test split alone, equal to ``read_prepared_splits(name).test``.

    Raises
    ------
    UserError
        As `read_prepared_splits`.
    """
    _check_prepared(name)
    return _read_split(name, "test")


def _check_prepared(name: str) -> None:
    if not is_prepared(name):
        raise UserError(
            f"no data set is called {name!r}, and there is no {Path(name) / CLASSES_FILE}; "
            f"choose one of {', '.join(DATASET_NAMES)}, or the directory that prepare_data.py wrote"
        )


def _has_idx_files(name: str) -> bool:
    """Return whether an earlier release wrote the data set."""
    return (Path(name) / IDX_FOLDER).is_dir() and not (Path(name) / FORM_FILE).exists()


def _read_split(name: str, split: str) -> Dataset:
    folder = Path(name)
    classes = _read_classes(folder)
    form = None
    if _has_idx_files(name):
        images_file, labels_file = [IDX_FOLDER / f"{file}.gz" for file in name_idx_files(split)]
        images = _read_idx(folder, images_file).unsqueeze(1)
        labels = _read_idx(folder, labels_file)
    else:
        images_file, labels_file = [Path(file) for file in name_files(split)]
        form = _read_form(folder)
        images = _map_images(folder, images_file, form.shape)
        labels = _read_labels(folder, labels_file)
    with _explain_errors(folder / labels_file):
        _check_arrays(images, labels, len(classes))
    dataset = Dataset(name, images, labels.long(), classes, folder.resolve().as_uri(), form)
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


def _read_form(folder: Path) -> Form:
    with _explain_errors(folder / FORM_FILE), open_file_below(folder, FORM_FILE) as content:
        return _parse_shape_and_form(parse_json(read_limited(content, MAX_JSON_SIZE)))


def _parse_shape_and_form(content: Any) -> Form:
    """Return the form that `describe_shape_and_form` described."""
    if not isinstance(content, dict) or "shape" not in content:
        raise ValueError("there is no form")
    description = dict(content)
    return parse_form(description.pop("shape"), description)


def _map_images(folder: Path, name: Path, shape: Shape) -> Tensor:
    with _explain_errors(folder / name), open_file_below(folder, name) as file:
        values = map_npy(file)
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[1:] != shape:
            raise ValueError(f"{values.dtype} {list(values.shape)}, and the form is {list(shape)}")
        if not values.flags.c_contiguous:
            raise ValueError("its values are in the order of Fortran")
        with warnings.catch_warnings(action="ignore"):  # that nobody may write to them
            return torch.from_numpy(values)


def _read_labels(folder: Path, name: Path) -> Tensor:
    with _explain_errors(folder / name), open_file_below(folder, name) as file:
        values = map_npy(file)
        if values.dtype != np.dtype("<i8"):
            raise ValueError(f"labels of type {values.dtype}")
        check_array_size(values.nbytes)
        return torch.from_numpy(np.array(values, np.int64))


def _read_idx(folder: Path, name: Path) -> Tensor:
    with _explain_errors(folder / name), open_file_below(folder, name) as file:
        return torch.from_numpy(read_idx(file))


def _check_arrays(images: Tensor, labels: Tensor, class_count: int) -> None:
    """Raise ValueError if images and labels cannot be a split of a data set."""
    if labels.ndim != 1 or len(labels) < 2:  # a model is exported with two images as an example
        raise ValueError(f"labels of shape {tuple(labels.shape)}; at least two are needed, in one dimension")
    if labels.is_floating_point():
        raise ValueError(f"labels of type {labels.dtype}; integers are needed")
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels) or not images[0].numel():
        raise ValueError(f"images of shape {tuple(images.shape)}, {images.dtype}, and {len(labels)} labels")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= class_count:
        text = f"labels up to {highest}" if lowest >= 0 else f"labels from {lowest}"
        raise ValueError(f"{text} for {class_count} classes")


def _check_class_sizes(train: Dataset, needed: int) -> None:
    """Raise UserError if a class has fewer training images than it needs, one to train on and one to validate on."""
    counts = train.labels.bincount(minlength=len(train.classes)).tolist()
    for name, count in zip(train.classes, counts, strict=True):
        if count < needed:
            raise UserError(
                f"{train.name}: class {printable(name)!r} has {count} training images, and {needed} are needed; "
                "add images, and run prepare_data.py again"
            )


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
        if dataset.form and _parse_shape_and_form(content["form"]) != dataset.form:
            raise ValueError(f"its form is not that of {FORM_FILE}")
    if dataset.digest != expected_digest:
        raise UserError(
            f"{dataset.name} is not what its {CLEANING_REPORT_FILE} describes (SHA-256 of {split}); "
            "run prepare_data.py again"
        )
