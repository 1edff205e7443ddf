"""Files in the formats that the scripts read."""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np


def write_idx_file(path: Path, array: np.ndarray) -> str:
    """Write a gzipped IDX file of unsigned bytes; return its MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    pixels = array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(header + pixels, mtime=0))
    return hashlib.md5(path.read_bytes()).hexdigest()


def png_bomb(side: int) -> bytes:
    """Return a complete PNG file of ``side`` x ``side`` pixels, one bit each, all black."""
    rows = bytes((1 + side // 8) * side)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [_png_chunk(b"IHDR", header), _png_chunk(b"IDAT", zlib.compress(rows, 1)), _png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
