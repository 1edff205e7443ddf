"""Find the images of a source: class folders, IDX files or NumPy arrays. No image is changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.cleaning.arrays import SPLIT_OF_WORD, Arrays, LabelledArray, pair_arrays, read_idx_files, read_numpy_files
from pipeline.data.class_names import check_class_names
from pipeline.data.images import (
    SUFFIXES,
    UNREADABLE,
    UnusableImageError,
    convert_to_grey,
    read_image,
    scale_to_bytes,
)
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile, RefusedFile, list_files, open_real_file
from pipeline.text import printable

IDX_NAMES = "*idx[1-9]-ubyte*"
LAYOUTS = "a folder for each class, IDX files, or X_train.npy and y_train.npy (or one .npz)"


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image of the source.

    Attributes
    ----------
    name : the path of its file below the source; of an array, the array's name and the index, ``X_train.npy[17]``.
    label : the name of its class.
    split : "train", "test", or "" if the source has no splits.
    content : the file, by its real path; or pixels of any numeric type, [height, width] or [height, width, 3].
    white : the value of white in the pixels, see `pipeline.data.images.scale_to_bytes`; None for a file.
    """

    name: str
    label: str
    split: str
    content: Path | np.ndarray
    white: float | None = None

    def read_grey(self) -> np.ndarray:
        """Return the grey levels, uint8 [height, width], at most 192x192.

        Raises
        ------
        UnusableImageError
            The file cannot be read, or the pixels are not finite or out of range.
        """
        if isinstance(self.content, Path):
            return _read_file(self.content)
        return convert_to_grey(Image.fromarray(scale_to_bytes(self.content, self.white)))


def _read_file(file: Path) -> np.ndarray:
    try:
        with open_real_file(file) as content:
            return read_image(content)
    except OSError as error:
        raise UnusableImageError(UNREADABLE, error.strerror or "the file cannot be read") from None


@dataclass(frozen=True)
class FoundImages:
    """The content of a source.

    Attributes
    ----------
    kind : "folders", "idx" or "arrays".
    images : all images, in the order of their files or of their arrays.
    ignored_files : the files that are not images by their suffix, or that are in no class folder.
    refused : what is not read because it is no regular file, or a link that leads elsewhere.
    """

    kind: str
    images: list[RawImage]
    ignored_files: list[str]
    refused: Sequence[RefusedFile] = ()


def find_images(source: Path) -> FoundImages:
    """Return the images of a folder or of a NumPy file. ``source`` is a real path: nothing in it is a link.

    Raises
    ------
    UserError
        The source does not exist, has no images, is damaged, or its arrays do not fit together; or a class has no
        name, or the names of two differ by blanks at the ends only.
    """
    try:
        result = _read_source(source)
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; name the folder with your images") from None
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {source} ({printable(text)}); it has to contain {LAYOUTS}") from None
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
    if not source.is_dir():
        if source.suffix not in (".npz", ".npy"):
            source.stat()  # raises an error if there is none
            raise ValueError("neither a folder nor a NumPy file")
        return _list_array_images("arrays", read_numpy_files([ListedFile(Path(source.name), source)]), source)
    files, refused = list_files(source)
    for path in [*(file.path for file in files), *(entry.path for entry in refused)]:
        _check_name(path, source)
    idx_files = [file for file in files if fnmatch(file.path.name, IDX_NAMES)]
    numpy_files = [file for file in files if len(file.path.parts) == 1 and file.path.suffix in (".npz", ".npy")]
    if idx_files:
        found = _list_array_images("idx", read_idx_files(idx_files, source), source)
    elif numpy_files:
        found = _list_array_images("arrays", read_numpy_files(numpy_files), source)
    else:
        found = _list_folder_images(source, files)
    return replace(found, refused=refused)


def _list_array_images(kind: str, arrays: Arrays, source: Path) -> FoundImages:
    images: list[RawImage] = []
    for array in pair_arrays(arrays, source):
        images.extend(_split_array(array))
    return FoundImages(kind, images, [])


def _split_array(array: LabelledArray) -> Iterable[RawImage]:
    for index, label in enumerate(array.labels):
        yield RawImage(f"{array.name}[{index}]", label, array.split, array.pixels[index], array.white)


def _list_folder_images(source: Path, files: Sequence[ListedFile]) -> FoundImages:
    """Read the layout of torchvision's ImageFolder, with or without folders for the splits above the classes."""
    splits = _find_split_folders(source)
    images: list[RawImage] = []
    ignored_files: list[str] = []
    for file in files:
        folders = file.path.parts[:-1]
        split = ""
        if splits and folders:
            split = splits[folders[0]]
            folders = folders[1:]
        if folders and file.path.suffix.lower() in SUFFIXES:
            images.append(RawImage(file.path.as_posix(), folders[0], split, file.real_path))
        else:
            ignored_files.append(file.path.as_posix())
    return FoundImages("folders", images, ignored_files)


def _find_split_folders(source: Path) -> dict[str, str]:
    """Return the split of each top folder by its name; nothing if the top folders are classes."""
    splits = {}
    for path in source.iterdir():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            splits[path.name] = SPLIT_OF_WORD.get(path.name.lower(), "")
    # Classes may be called "train" and "bus": all names have to be those of splits.
    if "" in splits.values() or "train" not in splits.values():
        return {}
    return splits


def _check_name(path: Path, source: Path) -> None:
    """Raise UserError if the path is not UTF-8."""
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {name!a} in {source} is not UTF-8; rename it") from None
