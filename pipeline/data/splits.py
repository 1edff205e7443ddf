"""One split of a data set, in memory or mapped from a file, and how a smaller split is cut from it."""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.data.forms import INK, Form, Shape
from pipeline.errors import UserError

SPLIT_SEED = 0  # not the training seed: every run validates on the same images
BLOCK_BYTES = 2**26  # of images that are hashed or copied at once: a mapped set may be larger than the memory


@dataclass(frozen=True)
class Dataset:
    """One split of a data set, held in memory or mapped from a file.

    Attributes
    ----------
    name : one of `pipeline.data.catalog.DATASET_NAMES`, or the directory that prepare_data.py wrote.
    images : uint8 [N, channels, height, width], 0 to 255; 1 or 3 channels. Those of a prepared data set are mapped from
        its file: to write to them ends the process, and to copy them all may need more than the memory.
    labels : int64 [N], 0 to len(classes) - 1.
    classes : the class names, in the order of the labels.
    source : the URL that the data come from.
    form : into which the pictures were prepared; None if nobody says so: then it can be measured on the images.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str
    form: Form | None = None

    @property
    def kind(self) -> str:
        """Of the pictures, see `pipeline.data.forms`: "ink", bright ink on a dark background, or "photo"."""
        return self.form.kind if self.form else INK

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def check_shape(self, shape: Shape, origin: str) -> None:
        """Check that a model, called ``origin`` in the error, that takes images of ``shape`` can take these.

        Raises
        ------
        UserError
            It cannot.
        """
        if shape != self.shape:
            raise UserError(
                f"{origin} takes images of shape {shape}, and those of {self.name} have {self.shape}; "
                "evaluate it on the data set that it was trained on"
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shape, pixels and labels, in hexadecimal: equal digests mean equal data."""
        labels = self.labels.cpu().contiguous().numpy().astype("<i8", copy=False)
        sha256 = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for block in self.images.split(count_block_images(self.shape)):
            sha256.update(block.cpu().contiguous().numpy().data)
        sha256.update(labels.data)
        return sha256.hexdigest()

    def subset(self, indices: Tensor | slice) -> "Dataset":
        """Return the images and labels at ``indices`` as a new data set."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the data set with images and labels on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def count_block_images(shape: Shape) -> int:
    """Return how many images of a shape are handled at once, at least one; see `BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // max(1, math.prod(shape)))


class Splits(NamedTuple):
    """The three splits of a data set."""

    train: Dataset
    validation: Dataset
    test: Dataset


def stratified_mask(labels: np.ndarray, size: int) -> np.ndarray:
    """Return which ``size`` images to cut off, so that each class keeps its share; bool [N], always the same."""
    from sklearn.model_selection import train_test_split  # slow to import; reading a test split does not need it

    indices = np.arange(len(labels))
    _, chosen = train_test_split(indices, test_size=size, stratify=labels, random_state=SPLIT_SEED)
    mask = np.zeros(len(labels), bool)
    mask[chosen] = True
    return mask


def stratified_split(dataset: Dataset, size: int) -> tuple[Dataset, Dataset]:
    """Return the rest, and ``size`` images cut from it, stratified by class; both keep the order of the images."""
    is_cut = torch.from_numpy(stratified_mask(dataset.labels.numpy(), size))
    return dataset.subset(~is_cut), dataset.subset(is_cut)
