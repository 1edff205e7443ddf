"""What is in the files of MNIST and of data sets in the same form, however they are packed."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

IMAGE_SIDE = 28  # pixels
TRAIN_SIZE, TEST_SIZE = 60_000, 10_000  # images of MNIST, and of the data sets that replace it
UNSIGNED_BYTES = 0x08  # the type in the header of an IDX file


@dataclass(frozen=True)
class KnownFiles:
    """What the four files of a data set hold.

    Attributes
    ----------
    sizes : number of images by split.
    sha256 : SHA-256 of each unpacked file in hexadecimal, by its name. Empty if nobody here has computed them on the
        real files: then only kind, shape and number can be checked.
    """

    sizes: Mapping[str, int] = field(default_factory=lambda: {"train": TRAIN_SIZE, "test": TEST_SIZE})
    sha256: Mapping[str, str] = field(default_factory=dict)


# Computed on the files with the MD5s that torchvision has for them.
KNOWN_FILES = {
    "mnist": KnownFiles(
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        }
    ),
    "fashion-mnist": KnownFiles(
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        }
    ),
}


def find_difference(array: np.ndarray, dataset: str, file_name: str, split: str) -> str | None:
    """Return how an array differs from the content of a file of a data set, for people; None if it does not.

    Kind, shape and number come first, because they say more than a digest. Without a known digest they are all that
    is compared, and that the file is not one of another data set.
    """
    known = KNOWN_FILES.get(dataset, KnownFiles())
    difference = _find_shape_difference(array, file_name, known.sizes[split])
    if difference:
        return difference
    sha256 = digest_content(array)
    expected = known.sha256.get(file_name)
    if sha256 == expected:
        return None
    for other, files in KNOWN_FILES.items():
        for name, digest in files.sha256.items():
            if sha256 == digest:
                return f"it is {name} of {other}"
    if expected:
        return f"its content has the SHA-256 {sha256}, and that of {dataset} has {expected}"
    return None


def _find_shape_difference(array: np.ndarray, file_name: str, size: int) -> str | None:
    has_images = "images" in file_name
    if array.dtype != np.uint8:
        return f"it holds {array.dtype} values, not bytes"
    if has_images and array.ndim == 1:
        return f"it holds {len(array):,} labels, not images"
    if not has_images and array.ndim == 3:
        return f"it holds {len(array):,} images, not labels"
    if array.shape[1:] != ((IMAGE_SIDE, IMAGE_SIDE) if has_images else ()):
        return f"it holds an array of shape {array.shape}"
    if len(array) != size:
        kind = "images" if has_images else "labels"
        return f"it holds {len(array):,} {kind}, not {size:,}"
    return None


def digest_content(array: np.ndarray) -> str:
    """Return the SHA-256 of the unpacked IDX file that holds an array of bytes, in hexadecimal."""
    header = struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTES, array.ndim, *array.shape)
    sha256 = hashlib.sha256(header)
    sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
