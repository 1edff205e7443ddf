"""IDX, the file format of MNIST: http://yann.lecun.com/exdb/mnist (saved by the Internet Archive)."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

# The type code in the third byte of a file, and the big-endian type that it stands for.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
WRITABLE_CODES = {"uint8": 0x08, "int16": 0x0B}
FILE_PREFIXES = {"train": "train", "test": "t10k"}  # how MNIST's file names call the splits


def name_idx_files(split: str) -> tuple[str, str]:
    """Return MNIST's file names of the images and labels of a split ("train" or "test"), without ``.gz``."""
    prefix = FILE_PREFIXES[split]
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def read_idx(content: bytes) -> np.ndarray:
    """Return the array in the unpacked ``content`` of an IDX file, in the byte order of this machine.

    Raises
    ------
    ValueError
        The content is not IDX, or is not complete.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise ValueError("not an IDX file")
    dtype = np.dtype(DTYPES[content[2]])
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < start:
        raise ValueError("not a complete IDX file")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise ValueError("not a complete IDX file")
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def write_idx(file: Path, array: np.ndarray) -> None:
    """Write ``array``, uint8 or int16, as a gzipped IDX file; equal arrays give equal bytes."""
    code = WRITABLE_CODES[array.dtype.name]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    content = header + array.astype(DTYPES[code]).tobytes()
    file.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
