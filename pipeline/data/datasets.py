"""Load a data set by its name, or by the directory that prepare_data.py wrote: train, validation and test split."""

from pathlib import Path

from pipeline.data.catalog import TORCHVISION_DATASETS
from pipeline.data.digits import load_digits_dataset
from pipeline.data.prepared import read_prepared_dataset
from pipeline.data.splits import Dataset, Splits, stratified_mask, stratified_split
from pipeline.data.torchvision_files import read_torchvision_dataset
from pipeline.errors import UserError
from pipeline.text import printable

__all__ = ["Dataset", "Splits", "load_splits", "load_test_split", "stratified_mask", "stratified_split"]

MAX_VALIDATION_SIZE = 5_000  # images
DIGITS_TEST_SIZE = 360
DIGITS_VALIDATION_SIZE = 180


def load_splits(name: str, data_dir: Path, *, limit: int | None = None) -> Splits:
    """Return the train, validation and test split of a data set.

    MNIST and other data sets of torchvision have 55,000, 5,000 and 10,000 images; digits has 1,257, 180 and 360.
    Validation is cut from the training images, stratified by class, and always has the same images. For a prepared
    data set it is one image in ten, at most 5,000. ``name`` is one of `pipeline.data.catalog.DATASET_NAMES`, or the
    directory that prepare_data.py wrote; ``data_dir`` has torchvision's files, and only missing files are downloaded.
    With ``limit``, the training split has its first ``limit`` images only.

    Raises
    ------
    UserError
        The name is unknown, or files are damaged, unreadable, or missing and cannot be downloaded.
    """
    if name in TORCHVISION_DATASETS:
        rest = read_torchvision_dataset(name, "train", data_dir)
        test = read_torchvision_dataset(name, "test", data_dir)
        validation_size = MAX_VALIDATION_SIZE
    elif name == "digits":
        rest, test = stratified_split(load_digits_dataset(), DIGITS_TEST_SIZE)
        validation_size = DIGITS_VALIDATION_SIZE
    else:
        rest = read_prepared_dataset(name, "train")
        test = read_prepared_dataset(name, "test")
        _check_class_sizes(rest)
        tenth = min(MAX_VALIDATION_SIZE, len(rest) // 10)
        validation_size = max(len(rest.classes), tenth)  # at least one image of each class
    train, validation = stratified_split(rest, validation_size)
    if limit is not None:
        train = train.subset(slice(limit))
    return Splits(train, validation, test)


def _check_class_sizes(train: Dataset) -> None:
    """Raise UserError if a class has too few training images to cut one off for validation."""
    counts = train.labels.bincount(minlength=len(train.classes)).tolist()
    for name, count in zip(train.classes, counts, strict=True):
        if count < 2:
            raise UserError(
                f"{train.name}: class {printable(name)!r} has {count} training images, and 2 are needed, one of them "
                "for validation; add images, and run prepare_data.py again"
            )


def load_test_split(name: str, data_dir: Path) -> Dataset:
    """Return the test split alone, equal to ``load_splits(name, data_dir).test``.

    Raises
    ------
    UserError
        As `load_splits`.
    """
    if name in TORCHVISION_DATASETS:
        return read_torchvision_dataset(name, "test", data_dir)
    if name == "digits":
        _, test = stratified_split(load_digits_dataset(), DIGITS_TEST_SIZE)
        return test
    return read_prepared_dataset(name, "test")
