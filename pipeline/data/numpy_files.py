"""Read .npy and .npz files that somebody else may have made: sizes are checked before memory is taken, no code is run.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy

from pipeline.data.idx import MAX_GZIP_RATIO, read_values
from pipeline.data.memory import check_array_size, check_image_shape
from pipeline.regular_files import file_size

ZIP_START = b"PK"
HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}  # by version
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy writes no other
# What NumPy and Python raise for a damaged header, among them Python's parser, which reads it.
HEADER_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class _Header:
    """What a .npy file says about its values: how many bytes they have, and in which form they are."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype
    size: int


def is_npz(file: BinaryIO) -> bool:
    """Return whether an open file begins as a .npz file does; it is read from the start again."""
    file.seek(0)
    start = file.read(len(ZIP_START))
    file.seek(0)
    return start == ZIP_START


def map_npy(file: BinaryIO) -> np.ndarray:
    """Return the array of an open .npy file. Its values are read when they are used.

    Raises
    ------
    ValueError
        The file is damaged, not complete, or contains Python objects (pickle), which could run code.
    """
    header = _read_header(file)
    start = file.tell()
    _check_size(header, file_size(file) - start)
    if not header.size:
        return np.empty(header.shape, header.dtype)
    values: np.ndarray = np.memmap(file, header.dtype, "r", start, header.shape, header.order)
    return values


def read_npz(file: BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and array of each member of an open .npz file.

    Raises
    ------
    ValueError
        The file is damaged, contains Python objects (pickle), or all its arrays do not fit into the memory.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_array_size(sum(member.file_size for member in members))
            for member in members:
                yield member.filename.removesuffix(".npy"), _read_member(archive, member)
    except ZIP_ERRORS as error:
        raise ValueError(f"not a complete .npz file: {error}") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in COMPRESSIONS or member.file_size > MAX_GZIP_RATIO * member.compress_size:
        raise ValueError(f"{member.filename} is not packed as NumPy packs it")
    with archive.open(member) as content:
        header = _read_header(content)
        _check_size(header, member.file_size - content.tell())
        values = read_values(content, header.size)  # at the end of the file its checksum is compared
    return np.ndarray(header.shape, header.dtype, values.data, order=header.order)


def _read_header(file: IO[bytes]) -> _Header:
    try:
        with warnings.catch_warnings(action="ignore"):
            shape, is_fortran, dtype = HEADER_READERS[npy.read_magic(file)](file)
    except HEADER_ERRORS as error:
        raise ValueError(f"not a .npy file: {error}") from None
    if dtype.hasobject:
        raise ValueError("it contains Python objects (pickle), which could run code")
    if min(shape, default=0) < 0:
        raise ValueError(f"not a .npy file: shape {shape}")
    check_image_shape(shape)
    return _Header(shape, "F" if is_fortran else "C", dtype, math.prod(shape) * dtype.itemsize)


def _check_size(header: _Header, size: int) -> None:
    if header.size != size:
        raise ValueError(f"{header.dtype} {list(header.shape)} needs {header.size:,} bytes, and there are {size:,}")
