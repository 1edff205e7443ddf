"""The data sets that have a name. Imports nothing heavy: options are checked fast.

To add a data set that torchvision has in four files as MNIST's: one line in `TORCHVISION_DATASETS`.
"""

import os
from pathlib import Path

SPLITS = ("train", "validation", "test")
# name -> class in torchvision.datasets
TORCHVISION_DATASETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
EMNIST_DATASETS = {"emnist-letters": "letters", "emnist-balanced": "balanced"}  # name -> what EMNIST's authors call it
CIFAR10 = "cifar10"
DIGITS = "digits"
DATASET_NAMES = (*TORCHVISION_DATASETS, *EMNIST_DATASETS, CIFAR10, DIGITS)

MAX_PIXELS = 25_000_000  # of a picture: a small file can unpack to more than the memory holds
CLASSES_FILE = "classes.json"  # of a data set that prepare_data.py wrote
CLEANING_REPORT_FILE = "cleaning_report.json"
MAX_CLASSES = 1000
MAX_JSON_SIZE = 64_000_000  # bytes of each of the two files: 300,000 images with a problem


def short_name(dataset: str) -> str:
    """Return the name of a data set; a data set of one's own is named by its directory."""
    try:
        return Path(os.path.realpath(dataset)).name  # Path.resolve raises an error if links lead in a circle
    except ValueError:  # no file can have this name
        return Path(dataset).name


def is_prepared(dataset: str) -> bool:
    """Return whether ``dataset`` is a directory that prepare_data.py wrote."""
    try:
        return Path(dataset, CLASSES_FILE).is_file()
    except OSError:  # the name is too long, or a directory is closed to this user
        return False
