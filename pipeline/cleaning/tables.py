"""Read tables of pixels, one row an image: CSV as Kaggle's digit recognizer has it, or columns of a Parquet file."""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from pipeline.cleaning.array_files import EMNIST_REMARK, is_emnist, list_array_images
from pipeline.cleaning.arrays import LabelledArray, find_split, label_array
from pipeline.cleaning.raw_images import FoundImages
from pipeline.cleaning.scratch import ScratchFile
from pipeline.cleaning.text_tables import is_table, open_table, read_first_rows
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile
from pipeline.text import printable

MIN_PIXELS = 16
PIXEL_PATTERN = "pixel#"  # the name of a column, with "#" for a number
MAX_CLASS_SHARE = 0.9  # of the rows in one class
BLOCK_SIZE = 2**23  # bytes that are parsed at once; a row is shorter
LABEL_COLUMNS = ("label", "labels", "class", "target", "y", "digit", "letter", "character")
COLOUR_REMARK = "{}: three values a pixel, taken as red, green, blue of the first pixel, then of the second"
PIXEL_TYPES = (pa.uint8(), pa.float32())  # the first that all values have


@dataclass(frozen=True)
class PixelColumns:
    """Where the pixels of a table are.

    Attributes
    ----------
    label : index of the column of the class; None if there is none.
    pixels : indices of the columns of the pixels, in their order.
    shape : of an image, [height, width] or [height, width, 3].
    """

    label: int | None
    pixels: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _TableForm:
    separator: str
    has_header: bool
    width: int
    columns: PixelColumns


def is_pixel_table(listed: ListedFile) -> bool:
    """Return whether a file is a table of pixels, by its first rows."""
    return is_table(listed.path) and _sniff(listed) is not None


def read_pixel_tables(files: Sequence[ListedFile], source: Path) -> FoundImages:
    """Return the images of tables of pixels. A table without labels is passed over, and named in the remarks.

    The side of the square images follows from the number of columns; three values a pixel are a colour image. The class
    is in the column that is called so, or in the first or last one. The file's name says which split it is.

    Raises
    ------
    UserError
        The values are normalised, or the tables are of several data sets.
    ValueError, OSError
        A table is damaged, or a value is no number.
    """
    forms = {listed: _sniff(listed) for listed in files}
    _check_one_set(forms, source)
    arrays: list[LabelledArray] = []
    ignored: list[str] = []
    remarks: list[str] = []
    for listed, form in forms.items():
        assert form
        name = listed.path.as_posix()
        if form.columns.label is None:
            ignored.append(name)
            remarks.append(f"{printable(name)} is passed over: it has no labels")
            continue
        labels, pixels = _read_table(listed, form)
        if is_emnist(listed.path) and not form.has_header and len(form.columns.shape) == 2:
            pixels = pixels.transpose(0, 2, 1)
            remarks.append(EMNIST_REMARK)
        if len(form.columns.shape) == 3:
            remarks.append(COLOUR_REMARK.format(printable(name)))
        arrays.append(label_array(name, pixels, labels, find_split(listed.path), source))
    found = list_array_images("csv", arrays, list(dict.fromkeys(remarks)))
    found.ignored_files.extend(ignored)
    return found


def _check_one_set(forms: Mapping[ListedFile, _TableForm | None], source: Path) -> None:
    """Raise UserError if tables have images of different shapes, or are several of EMNIST's sets."""
    first_of: dict[tuple[object, ...], str] = {}
    for listed, form in forms.items():
        assert form
        name = listed.path.name
        emnist_set = re.split("-(?:train|test)", name)[0] if is_emnist(listed.path) else ""
        first_of.setdefault((form.columns.shape, emnist_set), printable(name))
    if len(first_of) > 1:
        names = ", ".join(first_of.values())
        raise UserError(f"{source} has several data sets: {names}; put the tables of one into a folder of its own")


# --- which column is what -------------------------------------------------------------------------------------------


def _sniff(listed: ListedFile) -> _TableForm | None:
    """Return the form of a table of pixels by its first rows; None if it is none."""
    separator, rows = read_first_rows(listed)
    if not rows or len(rows[0]) < MIN_PIXELS:
        return None
    has_header = _is_header(rows[0])
    has_names = has_header and not all(map(_is_number, rows[0]))
    columns = find_pixel_columns(rows[0]) if has_names else _guess_columns(rows[has_header:])
    return _TableForm(separator, has_header, len(rows[0]), columns) if columns else None


def _is_header(row: Sequence[str]) -> bool:
    """Return whether the first row has names: several texts, or one that labels are called by, or counted numbers."""
    texts = [cell for cell in row if not _is_number(cell)]
    if texts:
        return len(texts) > 1 or texts[0].strip().lower() in LABEL_COLUMNS
    numbers = [float(cell) for cell in row]
    return all(second - first == 1 for first, second in pairwise(numbers))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def find_pixel_columns(names: Sequence[str]) -> PixelColumns | None:
    """Return the columns of a table by their names; None if it is no table of pixels.

    Pixels have one name with different numbers ("pixel0", "1x1", "0"). The class has one of `LABEL_COLUMNS`, or is the
    only other column, if it is the first or last. Others are left out: a row number, say.

    Raises
    ------
    ValueError
        The columns are called pixels, and make no square image.
    """
    patterns = [re.sub("[0-9]+", "#", name.strip().lower()) for name in names]
    (pattern, count), *_ = Counter(patterns).most_common(1)
    if count < MIN_PIXELS or "#" not in pattern:
        return None
    pixels = tuple(index for index, other in enumerate(patterns) if other == pattern)
    shape = _guess_shape(len(pixels))
    if shape is None and pattern == PIXEL_PATTERN:
        raise ValueError(f"a table with {count:,} columns of pixels, which make no square image")
    if shape is None:
        return None
    others = [index for index, other in enumerate(patterns) if other != pattern]
    named = [index for index in others if patterns[index] in LABEL_COLUMNS]
    if not named and len(others) == 1 and others[0] in (0, len(names) - 1):
        named = [index for index in others if patterns[index] and not patterns[index].startswith(("unnamed", "id"))]
    return PixelColumns(named[0] if named else None, pixels, shape)


def _guess_columns(rows: Sequence[Sequence[str]]) -> PixelColumns | None:
    """Return the columns of a table without names; the class is first, or last if only that looks like classes."""
    if not rows:
        return None
    width = len(rows[0])
    shape = _guess_shape(width - 1)
    if shape is None:
        whole = _guess_shape(width)
        return PixelColumns(None, tuple(range(width)), whole) if whole else None
    is_last = _looks_like_pixel(rows, 0) and not _looks_like_pixel(rows, -1)
    label = width - 1 if is_last else 0
    return PixelColumns(label, tuple(index for index in range(width) if index != label), shape)


def _looks_like_pixel(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Return whether a column is one of pixels, not of classes: nearly all values are equal, or most are different.

    A corner of ink is black nearly everywhere, and that of a photo has more values than there are classes.
    """
    counts = Counter(row[column] for row in rows)
    ((_, largest),) = counts.most_common(1)
    return largest > MAX_CLASS_SHARE * len(rows) or len(counts) > len(rows) / 4 + MIN_PIXELS


def _guess_shape(size: int) -> tuple[int, ...] | None:
    """Return the shape of a square image of so many values, grey if possible."""
    for channels in (1, 3):
        side = math.isqrt(size // channels)
        if size >= MIN_PIXELS and channels * side * side == size:
            return (side, side) if channels == 1 else (side, side, 3)
    return None


# --- rows -----------------------------------------------------------------------------------------------------------


def _read_table(listed: ListedFile, form: _TableForm) -> tuple[list[str], np.ndarray]:
    """Return labels and pixels, uint8 if all values are integers up to 255, else float32."""
    for pixel_type in PIXEL_TYPES:
        try:
            with open_table(listed) as file:
                return read_pixel_rows(_iterate_batches(file, form, pixel_type), form.columns, pixel_type)
        except pa.ArrowInvalid as error:
            if pixel_type == PIXEL_TYPES[-1]:
                raise ValueError(f"{listed.path.as_posix()}: {' '.join(str(error).split())[:200]}") from None
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{listed.path.as_posix()}: not a complete gzip file: {error}") from None
    raise AssertionError


def _iterate_batches(file: BinaryIO, form: _TableForm, pixel_type: pa.DataType) -> Iterable[pa.RecordBatch]:
    names = [str(index) for index in range(form.width)]
    types = {names[index]: pixel_type for index in form.columns.pixels}
    assert form.columns.label is not None
    types[names[form.columns.label]] = pa.string()
    return arrow_csv.open_csv(  # type: ignore[no-any-return]
        file,
        arrow_csv.ReadOptions(block_size=BLOCK_SIZE, column_names=names, skip_rows=int(form.has_header)),
        arrow_csv.ParseOptions(delimiter=form.separator),
        arrow_csv.ConvertOptions(column_types=types),
    )


def read_pixel_rows(
    batches: Iterable[pa.RecordBatch], columns: PixelColumns, pixel_type: pa.DataType
) -> tuple[list[str], np.ndarray]:
    """Return the labels of all rows, and their pixels in a temporary file, [N, *columns.shape].

    Raises
    ------
    pyarrow.ArrowInvalid
        A value is not of the type.
    ValueError
        A row has no label.
    """
    dtype = np.dtype(pixel_type.to_pandas_dtype())
    scratch = ScratchFile()
    labels: list[str] = []
    for batch in batches:
        pixels = np.empty((batch.num_rows, len(columns.pixels)), dtype)
        for target, index in enumerate(columns.pixels):
            column = batch.column(index).cast(pixel_type)
            if column.null_count and dtype.kind != "f":
                raise pa.ArrowInvalid("a value is missing")
            pixels[:, target] = column.to_numpy(zero_copy_only=False)
        scratch.write(pixels)
        assert columns.label is not None
        labels.extend(name_labels(batch.column(columns.label).to_pylist(), len(labels)))
    return labels, scratch.map(dtype, (len(labels), *columns.shape))


def name_labels(values: Sequence[object], start: int) -> list[str]:
    """Return labels of any type as class names: 5, 5.0 and "5.0" become "5".

    Raises
    ------
    ValueError
        A label is missing; the error counts from row ``start``.
    """
    names = []
    for index, value in enumerate(values, start + 1):
        name = "" if value is None else str(value).strip()
        if not name:
            raise ValueError(f"row {index:,} has no label")
        names.append(re.sub(r"(?<=[0-9])\.0+\Z", "", name) if _is_number(name) else name)
    return names
