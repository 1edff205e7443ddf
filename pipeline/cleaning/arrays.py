"""Pair arrays of images and labels by their names or shapes, and check them."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cleaning.raw_images import RawImage
from pipeline.data.catalog import MAX_PIXELS
from pipeline.data.images import WHITE_LEVELS_16_BITS, guess_white_level
from pipeline.errors import UserError
from pipeline.text import printable

Arrays = dict[str, np.ndarray]  # by name

# What folders and arrays call the splits. Validation images count as training: loading cuts a validation split from it.
SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "train",
    "valid": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}
MIN_NEGATIVE = 0.01  # what a rounding error stays below
UNNAMED = re.compile(r"arr_[0-9]+")  # how numpy.savez calls arrays that have no name
WORDS_OF_ROLE = {
    "images": {"x", "images", "image", "data"},
    "labels": {"y", "labels", "label", "targets", "target"},
}


@dataclass(frozen=True)
class LabelledArray:
    """Images and their labels.

    Attributes
    ----------
    name : of the array of images.
    pixels : any numeric type, [N, height, width] or [N, height, width, 3].
    labels : class names, N of them.
    split : "train", "test", or "" if the name says neither.
    white : the value of white in ``pixels``.
    """

    name: str
    pixels: np.ndarray
    labels: list[str]
    split: str
    white: float


def find_split(path: Path) -> str:
    """Return the split that a file is called after, by the words of its name, else of its folders; "" if none."""
    for part in reversed(path.parts):
        for word in _list_words(part):
            if word in SPLIT_OF_WORD:
                return SPLIT_OF_WORD[word]
    return ""


def split_array(array: LabelledArray) -> Iterator[RawImage]:
    """Yield the images of an array."""
    for index, label in enumerate(array.labels):
        yield RawImage(f"{array.name}[{index}]", label, array.split, array.pixels[index], array.white)


def pair_arrays(arrays: Mapping[str, np.ndarray], source: Path) -> list[LabelledArray]:
    """Pair arrays of images with arrays of labels by their names, such as ``X_train`` and ``y_train``.

    Arrays without names, ``arr_0`` and so on, are images if they have rows, else labels. Of two pairs, the first is for
    training and the second for testing.

    Raises
    ------
    UserError
        A name says neither images nor labels, or an array has no partner, or two arrays have the same role, or its
        values are normalised.
    ValueError
        An array does not have the shape, type or length that it should have.
    """
    if arrays and all(UNNAMED.fullmatch(name) for name in arrays):
        groups = _group_shapes(arrays, source)
    else:
        groups = _group_names(arrays, source)
    result = []
    for split_word, names in sorted(groups.items()):
        if len(names) < 2:
            (name,) = names.values()
            raise UserError(f"{source}: {name!r} has no partner; images and labels are needed")
        labels = to_class_names(arrays[names["labels"]])
        split = SPLIT_OF_WORD.get(split_word, "")
        result.append(label_array(names["images"], arrays[names["images"]], labels, split, source))
    return result


def _group_shapes(arrays: Mapping[str, np.ndarray], source: Path) -> dict[str, dict[str, str]]:
    """Return the names of arrays without names, in their order, by "train" and "test" or "", then by role."""
    by_role: dict[str, list[str]] = {"images": [], "labels": []}
    for name in sorted(arrays, key=lambda name: int(name.removeprefix("arr_"))):
        is_flat = math.prod(arrays[name].shape[1:]) == 1
        by_role["labels" if is_flat else "images"].append(name)
    counts = {role: len(names) for role, names in by_role.items()}
    if counts["images"] != counts["labels"] or counts["images"] > 2:
        raise UserError(
            f"{source}: {', '.join(arrays)} are {counts['images']:,} arrays of images and {counts['labels']:,} of "
            "labels; save them by name: numpy.savez(file, X_train=..., y_train=..., X_test=..., y_test=...)"
        )
    splits = [""] if counts["images"] == 1 else ["train", "test"]
    groups = {}
    for split, images, labels in zip(splits, by_role["images"], by_role["labels"], strict=True):
        groups[split] = {"images": images, "labels": labels}
    return groups


def _group_names(arrays: Mapping[str, np.ndarray], source: Path) -> dict[str, dict[str, str]]:
    """Return the names of the arrays by the word for their split, then by "images" or "labels"."""
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        role = find_role(name)
        if role is None:
            raise UserError(f"{source}: the array {name!r} is neither images (X) nor labels (y); remove it")
        split_word = next((word for word in _list_words(name) if word in SPLIT_OF_WORD), "")
        group = groups.setdefault(split_word, {})
        if role in group:
            raise UserError(f"{source}: {name!r} and {group[role]!r} both hold {role}; remove one of them")
        group[role] = name
    return groups


def _list_words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def find_role(name: str) -> str | None:
    """Return whether an array holds "images" or "labels" by the words of its name; None if they say neither."""
    words = _list_words(name)
    for role, role_words in WORDS_OF_ROLE.items():
        if role_words.intersection(words):
            return role
    return None


def to_class_names(labels: np.ndarray) -> list[str]:
    """Return labels of any type, [N] or [N, 1], as class names.

    Raises
    ------
    ValueError
        They are not one label for each image, or are not integers.
    """
    if labels.ndim == 0:
        raise ValueError("a single number instead of labels")
    columns = math.prod(labels.shape[1:])
    if columns != 1:
        raise ValueError(f"labels of {columns} columns; one label for each image is needed")
    values = labels.reshape(len(labels))
    if values.dtype.kind == "f":
        is_integer = np.isfinite(values) & (values == np.round(values))
        if not is_integer.all():
            raise ValueError("labels that are not integers")
        return [str(int(value)) for value in values.tolist()]
    if values.dtype.kind == "S":
        return [value.decode() for value in values.tolist()]
    return [str(value) for value in values.tolist()]


def label_array(name: str, pixels: np.ndarray, labels: list[str], split: str, source: Path) -> LabelledArray:
    """Return an array of images with its labels, and with the value of white in it.

    ``pixels`` is of any numeric type, [N, height, width], [N, 1 or 3, height, width], [N, height, width, 1 or 3], or
    [N, side * side].

    Raises
    ------
    UserError
        Most images have values below 0: the array is normalised.
    ValueError
        The array does not have the shape, type or length that it should have.
    """
    count = len(pixels) if pixels.ndim else 0
    if count != len(labels) or not labels:
        raise ValueError(f"{name}: {count:,} images and {len(labels):,} labels")
    pixels = _arrange_axes(pixels)
    is_grey = pixels.ndim == 3
    is_colour = pixels.ndim == 4 and pixels.shape[3] == 3
    is_numeric = pixels.dtype.kind in "buif"
    if not is_numeric or not (is_grey or is_colour):
        shape = list(pixels.shape)
        raise ValueError(f"{name}: {pixels.dtype} {shape} is not an array of images, [N, height, width]")
    height, width = pixels.shape[1:3]
    if height * width > MAX_PIXELS:
        raise ValueError(f"{name}: images of {height:,} x {width:,} pixels are more than {MAX_PIXELS:,}")
    _check_not_normalised(name, pixels, source)
    return LabelledArray(name, pixels, labels, split, _find_white(pixels))


def _arrange_axes(pixels: np.ndarray) -> np.ndarray:
    """Return [N, height, width] or [N, height, width, 3] if that is possible, else the pixels as they are."""
    if pixels.ndim == 2:  # one row for each image
        side = math.isqrt(pixels.shape[1])
        if side * side == pixels.shape[1]:
            return pixels.reshape(len(pixels), side, side)
    if pixels.ndim != 4:
        return pixels
    _, second, _, last = pixels.shape
    if second in (1, 3) and last not in (1, 3):
        pixels = np.moveaxis(pixels, 1, 3)
    if pixels.shape[3] == 1:
        return pixels[..., 0]
    return pixels


def _check_not_normalised(name: str, pixels: np.ndarray, source: Path) -> None:
    """Raise UserError if most images have values below 0; a few with such values are bad ones."""
    if pixels.dtype.kind in "bu":
        return
    axes = tuple(range(1, pixels.ndim))
    darkest = np.fmin.reduce(pixels, axes)  # ignores NaN
    finite = darkest[np.isfinite(darkest)]
    if not len(finite) or np.median(finite) >= -MIN_NEGATIVE:
        return
    brightest = np.fmax.reduce(pixels, axes)
    low, high = float(finite.min()), float(brightest[np.isfinite(brightest)].max())
    raise UserError(
        f"{source}: {printable(name)} has normalised values from {low:g} to {high:g}; give 0 to 255, as the images were"
    )


def _find_white(pixels: np.ndarray) -> float:
    """Return the value of white, by the brightest pixel of the median image: one bad image does not change it.

    Values above 255 have 12, 14 or 16 bits, by the brightest pixel of all.
    """
    brightest = np.fmax.reduce(pixels, tuple(range(1, pixels.ndim)))  # ignores NaN
    finite = brightest[np.isfinite(brightest)]
    if not len(finite):
        return 255.0
    white = guess_white_level(float(np.median(finite)))
    if white == WHITE_LEVELS_16_BITS[-1]:
        return min(white, guess_white_level(float(finite.max()), WHITE_LEVELS_16_BITS))
    # Bytes of which most images are black: the median is 0, but the array is not of zeros and ones.
    if white == 1 and pixels.dtype.kind in "ui" and pixels.max() > 1:
        return 255.0
    return white
