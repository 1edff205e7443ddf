"""The data sets that have a name, and the form of their images. Imports nothing heavy: options are checked fast.

To add a data set that torchvision has, in the same form: one line in `TORCHVISION_DATASETS`.
"""

from pathlib import Path

IMAGE_SHAPE = (1, 28, 28)  # channels, height, width
SPLITS = ("train", "validation", "test")
TORCHVISION_DATASETS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # name -> class in torchvision.datasets
DATASET_NAMES = (*TORCHVISION_DATASETS, "digits")

CLASSES_FILE = "classes.json"  # of a data set that prepare_data.py wrote
CLEANING_REPORT_FILE = "cleaning_report.json"


def short_name(dataset: str) -> str:
    """Return the name of a data set; a data set of one's own is named by its directory."""
    return Path(dataset).resolve().name


def is_prepared(dataset: str) -> bool:
    """Return whether ``dataset`` is a directory that prepare_data.py wrote."""
    return Path(dataset, CLASSES_FILE).is_file()
