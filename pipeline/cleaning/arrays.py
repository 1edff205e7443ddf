"""Read arrays of images and labels from NumPy and IDX files, and pair them by their names."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.catalog import CLASSES_FILE, MAX_JSON_SIZE, MAX_PIXELS
from pipeline.data.class_names import check_class_names, parse_class_names
from pipeline.data.idx import read_idx
from pipeline.data.images import guess_white_level
from pipeline.data.numpy_files import is_npz, map_npy, read_npz
from pipeline.documents import parse_json
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile, open_file_below, open_real_file, read_limited
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


def read_numpy_files(files: Sequence[ListedFile]) -> Arrays:
    """Return the arrays of .npy and .npz files by name.

    Raises
    ------
    ValueError, OSError
        A file is damaged, does not fit into the memory, has a name twice, or contains Python objects (pickle), which
        could run code.
    """
    arrays: Arrays = {}
    for listed in files:
        with open_real_file(listed.real_path) as file:
            named = read_npz(file) if is_npz(file) else [(listed.path.name, map_npy(file))]
            for name, array in named:
                if name in arrays:
                    raise ValueError(f"there are two arrays called {name!r}")
                arrays[name] = array
    return arrays


def read_idx_files(files: Sequence[ListedFile], source: Path) -> Arrays:
    """Return the arrays of IDX files of one folder by name, labels as class names if there is a classes.json.

    The packed file is used if a file is there packed and unpacked, as torchvision leaves it.

    Raises
    ------
    UserError
        The files are in more than one folder, or classes.json has a name twice, or an empty one.
    ValueError, OSError
        A file is damaged, or classes.json does not fit to the labels.
    """
    folders = {str(source / file.path.parent) for file in files}
    if len(folders) > 1:
        names = ", ".join(printable(folder) for folder in sorted(folders))
        raise UserError(f"there are IDX files in {names}; name one of them")
    names_of_files = {file.path.name for file in files}
    arrays: Arrays = {}
    for listed in files:
        if f"{listed.path.name}.gz" in names_of_files:
            continue
        with open_real_file(listed.real_path) as file:
            arrays[listed.path.name.removesuffix(".gz")] = read_idx(file)
    classes_folder = _find_classes_folder(source, source / files[0].path.parent)
    if classes_folder is None:
        return arrays
    return _apply_class_names(arrays, classes_folder)


def _find_classes_folder(source: Path, folder: Path) -> Path | None:
    """Return the folder with the classes.json: the source, that of the IDX files, or one between.

    In the layout of torchvision, ``MNIST/raw``, it may be one of the two folders above, also if they are above the
    source.
    """
    candidates = [folder, *folder.parents][: len(folder.parts) - len(source.parts) + 1]
    if folder.parts[-2:] == ("MNIST", "raw"):
        candidates += folder.parents[:2]
    return next((candidate for candidate in candidates if (candidate / CLASSES_FILE).is_file()), None)


def _apply_class_names(arrays: Arrays, folder: Path) -> Arrays:
    """Return the arrays with class names in place of numbers."""
    classes_file = folder / CLASSES_FILE
    error = ValueError(f"{classes_file} is not a list with a name for each label")
    with open_file_below(folder, CLASSES_FILE) as file:
        try:
            names = parse_class_names(parse_json(read_limited(file, MAX_JSON_SIZE)))
        except ValueError:
            raise error from None
    check_class_names(names, classes_file)
    classes = np.array(names, str)
    result = {}
    for name, array in arrays.items():
        if array.ndim != 1:  # images
            result[name] = array
            continue
        is_integer = array.dtype.kind in "iu"
        if not is_integer or (array < 0).any() or (array >= len(names)).any():
            raise error
        result[name] = classes[array]
    return result


def pair_arrays(arrays: Arrays, source: Path) -> list[LabelledArray]:
    """Pair arrays of images with arrays of labels by their names, such as ``X_train`` and ``y_train``.

    Raises
    ------
    UserError
        A name says neither images nor labels, or an array has no partner, or two arrays have the same role.
    ValueError
        An array does not have the shape, type or length that it should have.
    """
    result = []
    for split_word, names in sorted(_group_names(arrays, source).items()):
        if len(names) < 2:
            (name,) = names.values()
            raise UserError(f"{source}: {name!r} has no partner; images and labels are needed")
        labels = _to_class_names(arrays[names["labels"]])
        split = SPLIT_OF_WORD.get(split_word, "")
        result.append(_label_array(names["images"], arrays[names["images"]], labels, split))
    return result


def _group_names(arrays: Arrays, source: Path) -> dict[str, dict[str, str]]:
    """Return the names of the arrays by the word for their split, then by "images" or "labels"."""
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        words = re.findall(r"[a-z0-9]+", name.lower())
        role = _find_role(words)
        if role is None:
            raise UserError(f"{source}: the array {name!r} is neither images (X) nor labels (y); remove it")
        split_word = next((word for word in words if word in SPLIT_OF_WORD), "")
        group = groups.setdefault(split_word, {})
        if role in group:
            raise UserError(f"{source}: {name!r} and {group[role]!r} both hold {role}; remove one of them")
        group[role] = name
    return groups


def _find_role(words: Sequence[str]) -> str | None:
    for role, role_words in WORDS_OF_ROLE.items():
        if role_words.intersection(words):
            return role
    return None


def _to_class_names(labels: np.ndarray) -> list[str]:
    """Return labels of any type as class names."""
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


def _label_array(name: str, pixels: np.ndarray, labels: list[str], split: str) -> LabelledArray:
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


def _find_white(pixels: np.ndarray) -> float:
    """Return the value of white, by the brightest pixel of the median image: one bad image does not change it."""
    brightest = np.fmax.reduce(pixels, tuple(range(1, pixels.ndim)))  # ignores NaN
    finite = brightest[np.isfinite(brightest)]
    if not len(finite):
        return 255.0
    white = guess_white_level(float(np.median(finite)))
    # Bytes of which most images are black: the median is 0, but the array is not of zeros and ones.
    if white == 1 and pixels.dtype.kind in "ui" and pixels.max() > 1:
        return 255.0
    return white
