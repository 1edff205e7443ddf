"""Find the images of a source: class folders, IDX files or NumPy arrays. No image is changed."""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from pipeline.cleaning.arrays import Arrays, LabelledArray, pair_arrays, read_idx_files, read_numpy_files
from pipeline.cleaning.folders import list_folder_images
from pipeline.cleaning.raw_images import FoundImages, RawImage, sort_classes
from pipeline.data.class_names import check_class_names
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile, list_files
from pipeline.text import printable

IDX_NAMES = "*idx[1-9]-ubyte*"
LAYOUTS = "a folder for each class, IDX files, or X_train.npy and y_train.npy (or one .npz)"


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
        found = list_folder_images(source, files)
    return replace(found, refused=refused)


def _list_array_images(kind: str, arrays: Arrays, source: Path) -> FoundImages:
    images: list[RawImage] = []
    for array in pair_arrays(arrays, source):
        images.extend(_split_array(array))
    return FoundImages(kind, images, [])


def _split_array(array: LabelledArray) -> Iterable[RawImage]:
    for index, label in enumerate(array.labels):
        yield RawImage(f"{array.name}[{index}]", label, array.split, array.pixels[index], array.white)


def _check_name(path: Path, source: Path) -> None:
    """Raise UserError if the path is not UTF-8."""
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {name!a} in {source} is not UTF-8; rename it") from None
