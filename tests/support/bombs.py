"""Small files that unpack to more than a memory holds, and the most memory that reading one takes."""

import gzip
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.lib import format as npy
from PIL import Image, PngImagePlugin

ROOT = Path(__file__).parent.parent.parent
PEAK_MEMORY = """
import resource
import sys
from pathlib import Path
from typing import Any

import prepare_data
from pipeline.cleaning.importers import find_images
from pipeline.data.images import UnusableImageError, read_image
from pipeline.errors import UserError

def read(name):
    file = Path(name).resolve()
    try:
        if file.suffix == ".npz" or file.is_dir():
            find_images(file)
        else:
            read_image(file)
    except (UserError, UnusableImageError) as error:
        return str(error)
    return ""

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
answer = read(sys.argv[1])
print(peak() - before)
print(answer)
"""


def measure_peak(file: Path, root: Path = ROOT) -> tuple[int, str]:
    """Return how many bytes more a process takes that reads a picture or a source, and why it is refused."""
    command = [sys.executable, "-c", PEAK_MEMORY, str(file)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    size, _, answer = result.stdout.partition("\n")
    return int(size), answer.strip()


def picture_bomb(file_format: str, side: int, mode: str = "L") -> bytes:
    """Return a picture of one colour with ``side`` x ``side`` pixels."""
    file = io.BytesIO()
    compression: dict[str, dict[str, Any]] = {
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "WEBP": {"lossless": True, "method": 0},
    }
    colour = {"RGBA": (90, 90, 90, 200), "LA": (90, 200)}
    Image.new(mode, (side, side), colour.get(mode, 0)).save(file, file_format, **compression.get(file_format, {}))
    return file.getvalue()


def frames_bomb(file_format: str, side: int, count: int) -> bytes:
    """Return a picture of many frames."""
    file = io.BytesIO()
    frames = [Image.new("L", (side, side), index % 256) for index in range(count)]
    frames[0].save(file, file_format, save_all=True, append_images=frames[1:])
    return file.getvalue()


def text_bomb(size: int, count: int = 1) -> bytes:
    """Return a PNG file with packed texts of ``size`` bytes each."""
    text = PngImagePlugin.PngInfo()
    for index in range(count):
        text.add_text(f"text {index}", "a" * size, zip=True)
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def gzip_zeros(start: bytes, size: int) -> bytes:
    """Return a gzip file of ``start`` and ``size`` zeros."""
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = bytes(2**20)
    parts = [packer.compress(start)]
    parts += [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, packer.compress(block[: size % len(block)]), packer.flush()])


def idx_header(*shape: int) -> bytes:
    """Return the header of an IDX file of unsigned bytes."""
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def write_idx_source(folder: Path, images: bytes) -> None:
    """Write a source of one label and the given file of images."""
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(images)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_header(1) + bytes(1)))


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """Return the header of a .npy file."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
    return file.getvalue()


def write_npz(file: Path, start: bytes, zeros: int) -> None:
    """Write a packed .npz file whose only member has ``start`` and ``zeros`` zeros."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(start)
        for _ in range(zeros // 2**20):
            member.write(bytes(2**20))
