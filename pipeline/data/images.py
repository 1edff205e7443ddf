"""Read a picture file as grey levels or colours."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from pipeline.data.catalog import MAX_PIXELS
from pipeline.regular_files import file_size, open_regular_file
from pipeline.text import printable

HAS_AVIF = bool(features.check("avif"))  # some builds of Pillow cannot read it
AVIF_FORMATS, AVIF_SUFFIXES = (("AVIF",), (".avif",)) if HAS_AVIF else ((), ())
# Pillow reads more, but for some formats it runs programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", *AVIF_FORMATS)
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"),
    *AVIF_SUFFIXES,
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12, annex B
MAX_FILE_SIZE = 8 * MAX_PIXELS  # bytes: no format of `FORMATS` needs more for a pixel
BLOCK_SIZE = 2**20  # pixels that are computed at once: a number with a fraction needs four to eight times their memory
MAX_MEMORY = 700_000_000  # bytes that a process needs for the worst picture of `MAX_PIXELS`, measured
MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
WORKING_SIDE = 192  # pixels; larger pictures are reduced first, which saves time and averages noise away
WHITE_LEVELS = (1.0, 255.0, 65_535.0)  # of floats, of 8 bits, of 16 bits
# Of a file with 16 bits a pixel: cameras and scanners fill 12 or 14 of them, and the file does not say so.
WHITE_LEVELS_16_BITS = (1.0, 255.0, 4_095.0, 16_383.0, 65_535.0)

UNREADABLE = "unreadable"
NOT_FINITE = "not_finite"
OUT_OF_RANGE = "out_of_range"
BLANK = "blank"


class UnusableImageError(Exception):
    """A picture that no model can be asked about.

    Attributes
    ----------
    problem : UNREADABLE, NOT_FINITE, OUT_OF_RANGE or BLANK; the text says more.
    """

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(text)
        self.problem = problem


def read_image(file: Path | BinaryIO, *, channels: int = 1, side: int = WORKING_SIDE) -> np.ndarray:
    """Return a picture of one of `FORMATS`, upright: uint8 [height, width], or [height, width, 3] with 3 ``channels``.

    Its longer side has at most ``side`` pixels. A path may be a link, but has to lead to a regular file.

    A picture with 16 bits a pixel has its white at the first of 255, 4,095 (12 bits), 16,383 (14 bits) and 65,535 that
    is not below its brightest pixel. If there are several frames or pages, the first is read. A transparent background
    becomes white behind dark ink and black behind bright ink.

    Raises
    ------
    UnusableImageError
        The file is not a picture, is damaged, has more than 25 million pixels, or `convert_image` refuses it.
    """
    if isinstance(file, Path):
        try:
            with open_regular_file(file) as opened:
                return read_image(opened, channels=channels, side=side)
        except OSError as error:
            raise UnusableImageError(UNREADABLE, _describe_error(error)) from None
    try:
        _check_file_size(file)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            return _decode_image(image, channels, side)
    except UnusableImageError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit is higher
        raise UnusableImageError(UNREADABLE, f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:  # its own text contains the full path
        raise UnusableImageError(UNREADABLE, _describe_format(file)) from None
    except Exception as error:  # each format has its own exceptions for damaged files
        raise UnusableImageError(UNREADABLE, _describe_error(error)) from None


def _describe_format(file: BinaryIO) -> str:
    """Return why Pillow does not know a file, for people."""
    file.seek(4)
    if file.read(8) in [b"ftyp" + brand for brand in HEIC_BRANDS]:
        return "it is a HEIC picture, as phones take them; convert it to JPEG"
    return f"it is not a picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _check_file_size(file: BinaryIO) -> None:
    """Refuse a file that is too large before it is read: some formats are read at once."""
    size = file_size(file)
    if size > MAX_FILE_SIZE:
        raise UnusableImageError(UNREADABLE, f"{size:,} bytes are more than {MAX_FILE_SIZE:,}")


def _decode_image(image: Image.Image, channels: int, side: int) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        text = f"{image.width:,} x {image.height:,} pixels are more than {MAX_PIXELS:,}"
        raise UnusableImageError(UNREADABLE, text)
    image.draft(MODES[channels], (side, side))  # a large JPEG is decoded at a fraction of its size
    image.load()
    return convert_image(image, channels=channels, side=side)


def _describe_error(error: Exception) -> str:
    """Return the text of an error in one line; the name of its type if it has no text."""
    text = getattr(error, "strerror", None) or str(error)
    return printable(" ".join(text.split())) or type(error).__name__


def convert_image(image: Image.Image, *, channels: int = 1, side: int = WORKING_SIDE) -> np.ndarray:
    """Return an opened picture as `read_image` does; the picture may be changed.

    Raises
    ------
    UnusableImageError
        The picture is completely transparent, or has values that are not finite or out of range.
    """
    ImageOps.exif_transpose(image, in_place=True)  # a copy would need as much memory again
    converted = _convert_mode(image, MODES[channels])
    if max(converted.size) > side:
        converted.thumbnail((side, side), Image.Resampling.BOX)
    return np.array(converted)


def _convert_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return a picture of any mode in Pillow's mode L or RGB, with 8 bits."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        white = guess_white_level(float(values.max()), WHITE_LEVELS_16_BITS)
        return Image.fromarray(scale_to_bytes(values, white)).convert(mode)
    if image.mode in ("I", "F"):
        return Image.fromarray(scale_to_bytes(np.asarray(image))).convert(mode)
    if image.has_transparency_data:
        return _fill_background(image if image.mode == "RGBA" else image.convert("RGBA"), mode)
    if image.mode in ("1", "L", "P", "RGB"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)


def _fill_background(image: Image.Image, mode: str) -> Image.Image:
    """Return a picture of mode RGBA in mode L or RGB, on black if its visible part is bright, else on white."""
    grey = np.asarray(image.convert("L"))
    alpha = np.asarray(image.getchannel("A"))
    visible = int(alpha.sum(dtype=np.int64))
    if not visible:
        raise UnusableImageError(BLANK, "it is completely transparent")
    blended = np.empty(grey.shape, np.uint8)
    blocks = _list_blocks(grey, alpha, blended)
    brightness = sum(int(np.vdot(levels.astype(np.int64), opacity)) for levels, opacity, _ in blocks)
    background = 0 if brightness > 127 * visible else 255
    if mode == "RGB":
        filled = Image.new("RGB", image.size, (background,) * 3)
        filled.paste(image, mask=image.getchannel("A"))
        return filled
    for levels, opacity, target in blocks:
        ink = levels.astype(np.float32) * opacity
        target[:] = np.rint((ink + background * (255 - opacity.astype(np.float32))) / 255)
    return Image.fromarray(blended)


def _list_blocks(*arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Return the parts of contiguous arrays of one shape that are computed together, as one-dimensional views."""
    flat = [array.reshape(-1) for array in arrays]
    starts = range(0, arrays[0].size, BLOCK_SIZE)
    return [tuple(array[start : start + BLOCK_SIZE] for array in flat) for start in starts]


def guess_white_level(largest: float, levels: Sequence[float] = WHITE_LEVELS) -> float:
    """Return which value means white if ``largest`` is the highest one: the first level that is not below it.

    The levels are 1, 255 and 65,535 if no others are given. A value above all of them is white itself.
    """
    for white in levels:
        if largest <= white:
            return white
    return largest


def scale_to_bytes(values: np.ndarray, white: float | None = None) -> np.ndarray:
    """Return grey levels of any type and shape as uint8, scaled so that ``white`` becomes 255.

    By default ``white`` is `guess_white_level` of the highest value.

    Raises
    ------
    UnusableImageError
        A value is not finite, or outside 0 to ``white``.
    """
    if not np.isfinite(values).all():
        raise UnusableImageError(NOT_FINITE, "it has pixels that are not numbers (NaN or infinite)")
    low, high = float(values.min()), float(values.max())
    white = white or guess_white_level(high)
    tolerance = white / 1000  # for rounding errors
    if low < -tolerance or high > white + tolerance:
        raise UnusableImageError(OUT_OF_RANGE, f"it has pixels from {low:g} to {high:g}, outside 0 to {white:g}")
    if values.dtype == np.uint8 and white == 255:
        return values
    scaled = np.empty(values.shape, np.uint8)
    for block, target in _list_blocks(values, scaled):
        target[:] = np.rint(np.clip(block.astype(np.float64) * (255 / white), 0, 255))
    return scaled
