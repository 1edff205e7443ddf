"""Find the images that a table names, with their classes: labels.csv beside a folder of images."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipeline.cleaning.arrays import SPLIT_OF_WORD, find_split
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.cleaning.text_tables import is_table, open_table, read_first_rows
from pipeline.data.images import SUFFIXES
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile
from pipeline.text import printable

MAX_TABLE_SIZE = 256_000_000  # bytes
MAX_COLUMNS = 50
# In the order in which they are looked for.
FILE_COLUMNS = (
    *("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_name", "image_path", "img"),
    *("img_name", "image_id", "imageid", "id", "name"),
)
CLASS_COLUMNS = ("label", "class", "label_name", "class_name", "category", "target", "labels", "breed", "species", "y")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
GUESSED_WORD = "submission"  # in the name of Kaggle's examples of predictions, which have labels that mean nothing


@dataclass(frozen=True)
class _Columns:
    file: int
    label: int
    split: int | None


def is_label_table(listed: ListedFile) -> bool:
    """Return whether a file is a table of file names and classes, by its first row."""
    if not is_table(listed.path) or GUESSED_WORD in listed.path.name.lower():
        return False
    _, rows = read_first_rows(listed)
    return bool(rows) and _find_columns(rows[0]) is not None


def read_label_tables(tables: Sequence[ListedFile], files: Sequence[ListedFile], source: Path) -> FoundImages:
    """Return the images that tables name, with their classes.

    Parameters
    ----------
    tables
        `is_label_table` is true for them. A column says the split of an image, or the name of the table does.
    files
        All files of the source. A table names them by their path below the source or below the folder of the table, or
        by their name alone, each with or without its suffix.
    source
        The folder.

    Raises
    ------
    UserError
        A table names a file outside of the folder, or one file in two classes, or a name fits to several files.
    ValueError, OSError
        A table cannot be read.
    """
    index = _Index([file for file in files if file.path.suffix.lower() in SUFFIXES])
    found: dict[Path, RawImage] = {}
    remarks: list[str] = []
    for table in tables:
        rows = _read_rows(table, source)
        missing = []
        for name, label, split in rows:
            file = index.find(name, table, source)
            if file is None:
                missing.append(name)
                continue
            image = RawImage(file.path.as_posix(), label, split, file.real_path)
            known = found.setdefault(file.path, image)
            if known.label != label:
                raise UserError(
                    f"{_show(table, source)} has {printable(image.name)} in two classes, {known.label!r} and {label!r}"
                )
        if missing:
            remarks.append(
                f"{len(missing):,} of {len(rows):,} files that {printable(table.path.as_posix())} names are not there, "
                f"such as {printable(missing[0])}"
            )
    images = [found[path] for path in sorted(found)]
    ignored = [file.path.as_posix() for file in files if file.path not in found and file not in tables]
    return FoundImages("labels", images, ignored, remarks=remarks)


class _Index:
    """The image files of a source by their names."""

    def __init__(self, files: Sequence[ListedFile]) -> None:
        self._by_path = _group({file.path.as_posix(): [file] for file in files})
        by_name: dict[str, list[ListedFile]] = {}
        for file in files:
            by_name.setdefault(file.path.name, []).append(file)
        self._by_name = _group(by_name)

    def find(self, name: str, table: ListedFile, source: Path) -> ListedFile | None:
        """Return the file that a table names; None if there is none."""
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
            raise UserError(f"{_show(table, source)} names {printable(name[:200])!r}, which leads out of the folder")
        beside = (table.path.parent / path).as_posix()
        for files, key in ((self._by_path, beside), (self._by_path, path.as_posix()), (self._by_name, path.name)):
            matches = files.get(key, [])
            if len(matches) > 1:
                split = find_split(table.path)
                matches = [file for file in matches if split and find_split(file.path.parent) == split] or matches
            if len(matches) > 1:
                names = " and ".join(printable(file.path.as_posix()) for file in matches[:2])
                raise UserError(f"{_show(table, source)} names {printable(name[:200])!r}, which may be {names}")
            if matches:
                return matches[0]
        return None


def _group(files: Mapping[str, list[ListedFile]]) -> dict[str, list[ListedFile]]:
    """Return the files also by their names without suffix; a name with a suffix goes before."""
    result: dict[str, list[ListedFile]] = {}
    for name, members in files.items():
        result.setdefault(name.removesuffix(PurePosixPath(name).suffix), []).extend(members)
    return {**result, **files}


def _read_rows(table: ListedFile, source: Path) -> list[tuple[str, str, str]]:
    """Return file name, class and split of each row."""
    separator, first_rows = read_first_rows(table)
    columns = _find_columns(first_rows[0])
    assert columns
    with open_table(table) as file:
        content = file.read(MAX_TABLE_SIZE + 1)
    if len(content) > MAX_TABLE_SIZE:
        raise UserError(f"{_show(table, source)} has more than {MAX_TABLE_SIZE:,} bytes; cut it into several")
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=separator)
        rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{_show(table, source)} is no table in UTF-8 ({error}); save it as CSV, UTF-8") from None
    split = find_split(table.path)
    result = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) <= max(columns.file, columns.label):
            raise UserError(f"{_show(table, source)}: row {number:,} has {len(row):,} columns; complete it")
        name, label = row[columns.file].strip(), row[columns.label].strip()
        if not name or not label:
            raise UserError(f"{_show(table, source)}: row {number:,} has no file or no class; complete it")
        result.append((name, label, _read_split(row, columns) or split))
    return result


def _read_split(row: Sequence[str], columns: _Columns) -> str:
    if columns.split is None or len(row) <= columns.split:
        return ""
    return SPLIT_OF_WORD.get(row[columns.split].strip().lower(), "")


def _find_columns(header: Sequence[str]) -> _Columns | None:
    """Return the columns of file names, classes and splits; None if it is no such table.

    A table of two columns has the class in the other one, whatever its name.
    """
    names = [name.strip().lower() for name in header]
    if not 2 <= len(names) <= MAX_COLUMNS:
        return None
    file = _find_name(names, FILE_COLUMNS)
    label = _find_name(names, CLASS_COLUMNS)
    if file is not None and label is None and len(names) == 2:
        label = 1 - file
    if file is None or label is None or file == label:
        return None
    return _Columns(file, label, _find_name(names, SPLIT_COLUMNS))


def _find_name(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _show(table: ListedFile, source: Path) -> str:
    return printable(str(source / table.path))
