"""Find the images of a source: here it is recognised in which layout they are. No image is changed.

A layout that is not class folders, or a table of labels, is one line in `LAYOUTS`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from pipeline.cleaning.archives import ARCHIVE_SUFFIXES
from pipeline.cleaning.array_files import read_idx_source, read_numpy_source
from pipeline.cleaning.folders import MACOS_FOLDER, list_folder_images
from pipeline.cleaning.label_tables import is_label_table, read_label_tables
from pipeline.cleaning.matlab import read_matlab_source
from pipeline.cleaning.parquet_files import read_parquet_source
from pipeline.cleaning.raw_images import FoundImages, sort_classes
from pipeline.cleaning.source_summary import format_ignored_files
from pipeline.cleaning.tables import is_pixel_table, read_pixel_tables
from pipeline.data.class_names import check_class_names
from pipeline.data.images import SUFFIXES
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile, list_files
from pipeline.text import printable

DESCRIPTION = (
    "a folder for each class; images and labels.csv; IDX, .npy, .npz, .csv, .parquet or .mat files; "
    "or one of these in a .zip or .tar file"
)
PICKLE_SUFFIXES = (".pkl", ".pkl.gz", ".pickle", ".pickle.gz")
CIFAR_NAMES = "data_batch_[1-5]"  # of CIFAR-10's files for Python, which are pickles
TORCH_SUFFIXES = (".pt", ".pth")
HDF5_SUFFIXES = (".h5", ".hdf5")
OTHER_ARCHIVE_SUFFIXES = (".rar", ".7z", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
SAVE = "numpy.savez('images.npz', X_train=..., y_train=..., X_test=..., y_test=...)"


@dataclass(frozen=True)
class Layout:
    """A kind of files that images come in.

    Attributes
    ----------
    name : for people.
    is_member : whether a file belongs to it, by its name or content; the second argument is the folder of all files.
    read : returns the images of the files that belong to it; the second argument is the source.
    """

    name: str
    is_member: Callable[[ListedFile, Path], bool]
    read: Callable[[Sequence[ListedFile], Path], FoundImages]


def _has_suffix(*suffixes: str) -> Callable[[ListedFile, Path], bool]:
    return lambda file, base: file.path.parent == base and file.path.suffix.lower() in suffixes


LAYOUTS = (
    Layout("IDX", lambda file, _: fnmatch(file.path.name, "*idx[1-9]-ubyte*"), read_idx_source),
    Layout("NumPy", _has_suffix(".npy", ".npz"), read_numpy_source),
    Layout("CSV", lambda file, base: file.path.parent == base and is_pixel_table(file), read_pixel_tables),
    Layout("Parquet", lambda file, _: file.path.suffix.lower() == ".parquet", read_parquet_source),
    Layout("MATLAB", _has_suffix(".mat"), read_matlab_source),
)


def find_images(source: Path) -> FoundImages:
    """Return the images of a folder or of a file. ``source`` is a real path: nothing in it is a link.

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
        raise UserError(f"cannot read {source} ({printable(text)}); it has to contain {DESCRIPTION}") from None
    if not result.images:
        reasons = [*result.remarks, format_ignored_files(result.ignored_files)]
        details = f" ({'; '.join(filter(None, reasons))})" if any(reasons) else ""
        raise UserError(f"there are no images in {source}{details}; it has to contain {DESCRIPTION}")
    check_class_names(sort_classes(image.label for image in result.images), source)
    return result


def _read_source(source: Path) -> FoundImages:
    if not source.is_dir():
        source.stat()  # raises an error if there is none
        return _read_files(source, [ListedFile(Path(source.name), source)])
    files, refused = list_files(source)
    for path in [*(file.path for file in files), *(entry.path for entry in refused)]:
        _check_name(path, source)
    return replace(_read_files(source, files), refused=refused)


def _read_files(source: Path, files: Sequence[ListedFile]) -> FoundImages:
    """Return the images of the one layout that the files have."""
    files = [file for file in files if MACOS_FOLDER not in file.path.parts]
    base = _find_base(files)
    members = {}
    for layout in LAYOUTS:
        matches = [file for file in files if layout.is_member(file, base)]
        if matches:
            members[layout] = matches
    if len(members) > 1:
        shown = [f"{layout.name} ({printable(files[0].path.as_posix())})" for layout, files in members.items()]
        raise UserError(f"{source} has several kinds of files: {', '.join(shown)}; leave or name one of them")
    for layout, matches in members.items():
        try:
            found = layout.read(matches, source)
            return replace(found, remarks=[*found.remarks, *_count_pictures(files, layout)])
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"cannot read {source} as {layout.name} ({printable(text)}); export or download it again"
            ) from None
    return _read_images(source, files, base)


def _count_pictures(files: Sequence[ListedFile], layout: Layout) -> list[str]:
    """Return how many picture files lie beside those of a layout, as a remark."""
    count = sum(file.path.suffix.lower() in SUFFIXES for file in files)
    return [f"{count:,} picture files beside the {layout.name} files are not read"] if count else []


def _read_images(source: Path, files: Sequence[ListedFile], base: Path) -> FoundImages:
    """Return the images that a table names, or those of class folders."""
    tables = [file for file in files if file.path.parent == base and is_label_table(file)]
    if tables and source.is_dir():
        found = read_label_tables(tables, files, source)
        if found.images:
            return found
    if source.is_dir():
        found = list_folder_images(source, files)
        if found.images:
            return found
    for file in files:
        way_on = _describe_other_format(file.path)
        if way_on:
            raise UserError(f"{printable(str(source / file.path if source.is_dir() else source))} {way_on}")
    if tables and not source.is_dir():
        raise UserError(f"{source} is a table of labels; name the folder that it and the images lie in")
    if tables:
        raise UserError(f"{source}: none of the images that {printable(str(tables[0].path))} names is there")
    if not source.is_dir():
        raise ValueError("no kind of file that is known")
    return found


def _find_base(files: Sequence[ListedFile]) -> Path:
    """Return the folder that all files are in, below the source: an archive is often one folder too deep."""
    return Path(os.path.commonpath([file.path.parent for file in files])) if files else Path()


def _describe_other_format(path: Path) -> str:
    """Return why a file is not read, and the way on; "" if nothing is known about its format."""
    name = path.name.lower()
    if name.endswith(PICKLE_SUFFIXES) or fnmatch(name, CIFAR_NAMES):
        return f"is not read: a pickle can run code. Where you trust it, load it in Python, then: {SAVE}"
    if name.endswith(TORCH_SUFFIXES):
        return f"is not read: it can run code. Load it with torch.load(file, weights_only=True), then: {SAVE}"
    if name.endswith(HDF5_SUFFIXES):
        return f"is not read: it is HDF5. Load it with h5py, then: {SAVE}"
    if name.endswith(ARCHIVE_SUFFIXES):
        return "is an archive: give it to prepare_data.py itself, or unpack it"
    if name.endswith(OTHER_ARCHIVE_SUFFIXES):
        return "is an archive that is not read: unpack it, or pack it as .zip"
    return ""


def _check_name(path: Path, source: Path) -> None:
    """Raise UserError if the path is not UTF-8."""
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {name!a} in {source} is not UTF-8; rename it") from None
