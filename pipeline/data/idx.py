"""IDX, the file format of MNIST: http://yann.lecun.com/exdb/mnist (saved by the Internet Archive)."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np

from pipeline.data.memory import check_array_size, check_image_shape
from pipeline.regular_files import file_size

# The type code in the third byte of a file, and the big-endian type that it stands for.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
WRITABLE_CODES = {"uint8": 0x08, "int16": 0x0B}
GZIP_START = b"\x1f\x8b"
MAX_GZIP_RATIO = 1032  # of DEFLATE, by its format: 258 bytes for 2 bits
BLOCK_SIZE = 2**20  # bytes that are unpacked at once
FILE_PREFIXES = {"train": "train", "test": "t10k"}  # how MNIST's file names call the splits


def name_idx_files(split: str) -> tuple[str, str]:
    """Return MNIST's file names of the images and labels of a split ("train" or "test"), without ``.gz``."""
    prefix = FILE_PREFIXES[split]
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def read_idx(file: BinaryIO) -> np.ndarray:
    """Return the array in an open IDX file, with or without gzip, in the byte order of this machine.

    The header says how many bytes follow: no more are unpacked than that, and one.

    Raises
    ------
    ValueError
        The content is not IDX, is not complete, or does not fit into the memory.
    """
    size = file_size(file)
    is_packed = file.read(len(GZIP_START)) == GZIP_START
    file.seek(0)
    if not is_packed:
        return _read_array(file, size)
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _read_array(cast("IO[bytes]", unpacked), size * MAX_GZIP_RATIO)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"not a complete gzip file: {error}") from None


def _read_array(file: IO[bytes], largest: int) -> np.ndarray:
    """Return the array of an unpacked file that cannot have more than ``largest`` bytes."""
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in DTYPES:
        raise ValueError("not an IDX file")
    dtype = np.dtype(DTYPES[header[2]])
    dimensions = header[3]
    lengths = file.read(4 * dimensions)
    if dimensions == 0 or len(lengths) < 4 * dimensions:
        raise ValueError("not a complete IDX file")
    shape = struct.unpack(f">{dimensions}I", lengths)
    size = math.prod(shape) * dtype.itemsize
    if size > largest:
        raise ValueError("not a complete IDX file")
    check_image_shape(shape)
    check_array_size(size)
    values = read_values(file, size)
    array = values.view(dtype).reshape(shape)
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def read_values(file: IO[bytes], size: int) -> np.ndarray:
    """Return the next ``size`` bytes of a file, uint8 [size].

    Raises
    ------
    ValueError
        There are fewer or more.
    """
    values = np.empty(size, np.uint8)
    count = 0
    while block := file.read(min(BLOCK_SIZE, size - count + 1)):  # one more at the end
        if count + len(block) > size:
            raise ValueError("more values than its header says")
        values[count : count + len(block)] = np.frombuffer(block, np.uint8)
        count += len(block)
    if count < size:
        raise ValueError("fewer values than its header says")
    return values


def write_idx(file: Path, array: np.ndarray) -> None:
    """Write ``array``, uint8 or int16, as a gzipped IDX file; equal arrays give equal bytes."""
    code = WRITABLE_CODES[array.dtype.name]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    content = header + array.astype(DTYPES[code]).tobytes()
    file.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
