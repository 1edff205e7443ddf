"""Load a data set by its name, or by the directory that prepare_data.py wrote: train, validation and test split."""

from pathlib import Path

from pipeline.data.catalog import CIFAR10, DIGITS, EMNIST_DATASETS, TORCHVISION_DATASETS
from pipeline.data.cifar import read_cifar10_dataset
from pipeline.data.digits import load_digits_dataset
from pipeline.data.emnist import read_emnist_dataset
from pipeline.data.prepared import MAX_VALIDATION_SIZE, read_prepared_splits, read_prepared_test_split
from pipeline.data.splits import Dataset, Splits, stratified_mask, stratified_split
from pipeline.data.torchvision_files import read_torchvision_dataset

__all__ = ["Dataset", "Splits", "load_splits", "load_test_split", "stratified_mask", "stratified_split"]

DIGITS_TEST_SIZE = 360
DIGITS_VALIDATION_SIZE = 180


def load_splits(name: str, data_dir: Path, *, limit: int | None = None) -> Splits:
    """Return the train, validation and test split of a data set.

    Validation is cut from the training images, stratified by class, and always has the same images: 5,000 of a data
    set that is downloaded, so that MNIST has 55,000, 5,000 and 10,000 images; digits has 1,257, 180 and 360. For a
    prepared data set it is one image in ten, at most 5,000. ``name`` is one of `pipeline.data.catalog.DATASET_NAMES`,
    or the directory that prepare_data.py wrote; ``data_dir`` has the downloaded files, and only missing files are
    downloaded.
    With ``limit``, the training split has its first ``limit`` images only.

    Raises
    ------
    UserError
        The name is unknown, or files are damaged, unreadable, or missing and cannot be downloaded.
    """
    splits = _load_all(name, data_dir)
    if limit is None:
        return splits
    return splits._replace(train=splits.train.subset(slice(limit)))


def _load_all(name: str, data_dir: Path) -> Splits:
    if name == DIGITS:
        rest, test = stratified_split(load_digits_dataset(), DIGITS_TEST_SIZE)
        validation_size = DIGITS_VALIDATION_SIZE
    elif name in (*TORCHVISION_DATASETS, *EMNIST_DATASETS, CIFAR10):
        rest = _read_downloaded(name, "train", data_dir)
        test = _read_downloaded(name, "test", data_dir)
        validation_size = MAX_VALIDATION_SIZE
    else:
        return read_prepared_splits(name)
    train, validation = stratified_split(rest, validation_size)
    return Splits(train, validation, test)


def _read_downloaded(name: str, split: str, data_dir: Path) -> Dataset:
    if name in TORCHVISION_DATASETS:
        return read_torchvision_dataset(name, split, data_dir)
    if name in EMNIST_DATASETS:
        return read_emnist_dataset(name, split, data_dir)
    return read_cifar10_dataset(split, data_dir)


def load_test_split(name: str, data_dir: Path) -> Dataset:
    """Return the test split alone, equal to ``load_splits(name, data_dir).test``.

    Raises
    ------
    UserError
        As `load_splits`.
    """
    if name in (*TORCHVISION_DATASETS, *EMNIST_DATASETS, CIFAR10):
        return _read_downloaded(name, "test", data_dir)
    if name == DIGITS:
        _, test = stratified_split(load_digits_dataset(), DIGITS_TEST_SIZE)
        return test
    return read_prepared_test_split(name)
