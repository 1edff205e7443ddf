"""Find the images of a source: class folders, IDX files or NumPy arrays. No image is changed."""

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from pipeline.cleaning.arrays import SPLIT_OF_WORD, Arrays, LabelledArray, pair_arrays, read_idx_files, read_numpy_files
from pipeline.data.class_names import check_class_names
from pipeline.data.images import SUFFIXES, read_image, scale_to_bytes
from pipeline.errors import UserError

LAYOUTS = "a folder for each class, IDX files, or X_train.npy and y_train.npy (or one .npz)"


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image of the source.

    Attributes
    ----------
    name : the path of its file below the source; of an array, the array's name and the index, ``X_train.npy[17]``.
    label : the name of its class.
    split : "train", "test", or "" if the source has no splits.
    content : the file; or pixels of any numeric type, [height, width] or [height, width, 3].
    white : the value of white in the pixels, see `pipeline.data.images.scale_to_bytes`; None for a file.
    """

    name: str
    label: str
    split: str
    content: Path | np.ndarray
    white: float | None = None

    def read_grey(self) -> np.ndarray:
        """Return the grey levels, uint8 [height, width].

        Raises
        ------
        UnusableImageError
            The file cannot be read, or the pixels are not finite or out of range.
        """
        if isinstance(self.content, Path):
            return read_image(self.content)
        levels = scale_to_bytes(self.content, self.white)
        if levels.ndim == 2:
            return levels
        return np.array(Image.fromarray(levels).convert("L"))


@dataclass(frozen=True)
class FoundImages:
    """The content of a source.

    Attributes
    ----------
    kind : "folders", "idx" or "arrays".
    images : all images, in the order of their files or of their arrays.
    ignored_files : the files that are not images by their suffix, or that are in no class folder.
    """

    kind: str
    images: list[RawImage]
    ignored_files: list[str]


def find_images(source: Path) -> FoundImages:
    """Return the images of a folder or of a NumPy file.

    Raises
    ------
    UserError
        The source does not exist, has no images, is damaged, or its arrays do not fit together; or a class has no
        name, or the names of two differ by blanks at the ends only.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; name the folder with your images")
    try:
        result = _read_source(source)
    except (OSError, ValueError, EOFError, zlib.error, BadZipFile) as error:
        raise UserError(f"cannot read {source} ({error}); it has to contain {LAYOUTS}") from None
    if not result.images:
        raise UserError(f"there are no images in {source}; it has to contain {LAYOUTS}")
    check_class_names(sort_classes(image.label for image in result.images), source)
    return result


def sort_classes(labels: Iterable[str]) -> list[str]:
    """Return the classes among ``labels``: integers by value, names in the order of torchvision's ImageFolder."""
    classes = set(labels)
    if all(name.isdecimal() for name in classes):
        return sorted(classes, key=lambda name: (int(name), name))
    return sorted(classes)


def _read_source(source: Path) -> FoundImages:
    if source.is_file() and source.suffix in (".npz", ".npy"):
        return _list_array_images("arrays", read_numpy_files([source]), source)
    idx_files = _list_files(source.rglob("*idx[1-9]-ubyte*"))
    if idx_files:
        return _list_array_images("idx", read_idx_files(idx_files, source), source)
    numpy_files = _list_files([*source.glob("*.npz"), *source.glob("*.npy")])
    if numpy_files:
        return _list_array_images("arrays", read_numpy_files(numpy_files), source)
    return _list_folder_images(source)


def _list_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files in order, without hidden ones, such as macOS adds to a USB stick."""
    return sorted(path for path in paths if path.is_file() and not _is_hidden(path.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _list_array_images(kind: str, arrays: Arrays, source: Path) -> FoundImages:
    images: list[RawImage] = []
    for array in pair_arrays(arrays, source):
        images.extend(_split_array(array))
    return FoundImages(kind, images, [])


def _split_array(array: LabelledArray) -> Iterable[RawImage]:
    for index, label in enumerate(array.labels):
        yield RawImage(f"{array.name}[{index}]", label, array.split, array.pixels[index], array.white)


def _list_folder_images(source: Path) -> FoundImages:
    """Read the layout of torchvision's ImageFolder, with or without folders for the splits above the classes."""
    splits = _find_split_folders(source)
    images: list[RawImage] = []
    ignored_files: list[str] = []
    for file in _walk_files(source):
        path = file.relative_to(source)
        if any(_is_hidden(name) for name in path.parts):
            continue
        name = _check_name(path, source)
        folders = path.parts[:-1]
        split = ""
        if splits and folders:
            split = splits[folders[0]]
            folders = folders[1:]
        if folders and file.suffix.lower() in SUFFIXES:
            images.append(RawImage(name, folders[0], split, file))
        else:
            ignored_files.append(name)
    return FoundImages("folders", images, ignored_files)


def _find_split_folders(source: Path) -> dict[str, str]:
    """Return the split of each top folder by its name; nothing if the top folders are classes."""
    splits = {}
    for path in source.iterdir():
        if path.is_dir() and not _is_hidden(path.name):
            splits[path.name] = SPLIT_OF_WORD.get(path.name.lower(), "")
    # Classes may be called "train" and "bus": all names have to be those of splits.
    if "" in splits.values() or "train" not in splits.values():
        return {}
    return splits


def _walk_files(source: Path) -> list[Path]:
    """Return all files below the source, in order; links to folders are followed, as ImageFolder does."""
    files: list[Path] = []
    for folder, _, names in os.walk(source, followlinks=True):
        files.extend(Path(folder, name) for name in names)
    return sorted(files)


def _check_name(path: Path, source: Path) -> str:
    """Return the path with slashes; raise UserError if it is not UTF-8."""
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {name!a} in {source} is not UTF-8; rename it") from None
    return name
