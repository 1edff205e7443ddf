"""Read arrays of images and labels from NumPy and IDX files, as people have them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.cleaning.arrays import Arrays, LabelledArray, find_role, label_array, pair_arrays, split_array
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.data.catalog import CLASSES_FILE, MAX_JSON_SIZE
from pipeline.data.class_names import check_class_names, parse_class_names
from pipeline.data.idx import read_idx
from pipeline.data.numpy_files import is_npz, map_npy, read_npz
from pipeline.documents import parse_json
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile, open_file_below, open_real_file, read_limited
from pipeline.text import printable

QUICKDRAW_PREFIX = "full_numpy_bitmap_"
EMNIST = "emnist"  # in the names of its files, whose images lie on their side
EMNIST_REMARK = "EMNIST's files have rows and columns exchanged: its images were turned upright"


# --- NumPy ----------------------------------------------------------------------------------------------------------


def read_numpy_source(files: Sequence[ListedFile], source: Path) -> FoundImages:
    """Return the images of .npy and .npz files: arrays of images and labels, or one .npy file for each class.

    The labels get the names in a classes.json beside the files, if there is one.

    Raises
    ------
    UserError, ValueError, OSError
        As `read_numpy_files` and `pipeline.cleaning.arrays.pair_arrays`.
    """
    arrays = _read_numpy_files(files)
    folder = source / files[0].path.parent
    if len(arrays) > 1 and all(_is_class_array(name, array) for name, array in arrays.items()):
        return list_array_images("arrays", _label_class_arrays(arrays, source))
    if source.is_dir() and (folder / CLASSES_FILE).is_file():  # a data set that prepare_data.py wrote
        arrays = _apply_class_names(arrays, folder)
    return list_array_images("arrays", pair_arrays(arrays, source))


def list_array_images(kind: str, arrays: Sequence[LabelledArray], remarks: Sequence[str] = ()) -> FoundImages:
    """Return the images of all arrays."""
    images: list[RawImage] = []
    for array in arrays:
        images.extend(split_array(array))
    return FoundImages(kind, images, [], remarks=remarks)


def _is_class_array(name: str, array: np.ndarray) -> bool:
    """Return whether an array holds images of one class, as QuickDraw has them: uint8 [N, 784] or [N, 28, 28]."""
    has_no_role = name.startswith(QUICKDRAW_PREFIX) or find_role(name) is None
    return name.endswith(".npy") and has_no_role and array.dtype == np.uint8 and array.ndim in (2, 3)


def _label_class_arrays(arrays: Arrays, source: Path) -> list[LabelledArray]:
    result = []
    for name, array in sorted(arrays.items()):
        label = name.removesuffix(".npy").removeprefix(QUICKDRAW_PREFIX)
        result.append(label_array(name, array, [label] * len(array), "", source))
    return result


def _read_numpy_files(files: Sequence[ListedFile]) -> Arrays:
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


# --- IDX ------------------------------------------------------------------------------------------------------------


def read_idx_source(files: Sequence[ListedFile], source: Path) -> FoundImages:
    """Return the images of IDX files of one folder; labels are class names if there is a classes.json.

    The packed file is used if a file is there packed and unpacked, as torchvision leaves it. A file may be doubled, in
    a folder of its own name or with a dot in its name (``train-images.idx3-ubyte``): equal content counts once.

    Raises
    ------
    UserError
        The files are in more than one folder, two have one name and another content, or `pair_arrays` refuses them, or
        classes.json has a name twice, or an empty one.
    ValueError, OSError
        A file is damaged, or classes.json does not fit to the labels.
    """
    folders = {str(source / _idx_folder(file.path)) for file in files}
    if len(folders) > 1:
        names = ", ".join(printable(folder) for folder in sorted(folders))
        raise UserError(f"there are IDX files in {names}; name one of them")
    arrays, remarks = _read_idx_files(files, source)
    classes_folder = _find_classes_folder(source, source / _idx_folder(files[0].path))
    if classes_folder is not None:
        arrays = _apply_class_names(arrays, classes_folder)
    return list_array_images("idx", pair_arrays(arrays, source), remarks)


def _idx_key(path: Path) -> str:
    """Return the name that doubles of a file share: ``train-images.idx3-ubyte.gz`` -> ``train-images-idx3-ubyte``."""
    return path.name.removesuffix(".gz").replace(".idx", "-idx")


def _idx_folder(path: Path) -> Path:
    """Return the folder of an IDX file; a folder that is called as the file does not count."""
    return path.parent.parent if path.parent.name and _idx_key(path.parent) == _idx_key(path) else path.parent


def _read_idx_files(files: Sequence[ListedFile], source: Path) -> tuple[Arrays, list[str]]:
    paths = {file.path for file in files}
    arrays: Arrays = {}
    remarks: list[str] = []
    first_paths: dict[str, Path] = {}
    for listed in sorted(files, key=lambda file: (len(file.path.parts), file.path)):
        path = listed.path
        if path.with_name(f"{path.name}.gz") in paths:
            continue
        with open_real_file(listed.real_path) as file:
            array = read_idx(file)
        key = _idx_key(path)
        if key in first_paths:
            first = first_paths[key]
            if not np.array_equal(arrays[first.name.removesuffix(".gz")], _turn_emnist(path, array)):
                names = f"{printable(str(first))} and {printable(str(path))}"
                raise UserError(f"{source}: {names} have different content; remove one of them")
            continue
        first_paths[key] = path
        arrays[path.name.removesuffix(".gz")] = _turn_emnist(path, array)
    if any(is_emnist(path) for path in paths):
        remarks.append(EMNIST_REMARK)
    return arrays, remarks


def is_emnist(path: Path) -> bool:
    """Return whether a file is one of EMNIST's, by its name."""
    return EMNIST in path.name.lower()


def _turn_emnist(path: Path, array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 1) if is_emnist(path) and array.ndim == 3 else array


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
    """Return the arrays with the class names of the folder's classes.json in place of numbers."""
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
