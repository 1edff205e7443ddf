"""Read a picture file as grey levels."""

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # Pillow reads more, but for some formats it runs programs
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MAX_PIXELS = 50_000_000  # a small file can unpack to more than the memory holds
WORKING_SIDE = 192  # pixels; larger pictures are reduced first, which saves time and averages noise away
WHITE_LEVELS = (1.0, 255.0, 65_535.0)  # of floats, of 8 bits, of 16 bits

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


def read_image(file: Path | IO[bytes]) -> np.ndarray:
    """Return a picture of one of `FORMATS` as grey levels, uint8 [height, width], at most 192x192, upright.

    If there are several frames or pages, the first is read. A transparent background becomes white behind dark ink
    and black behind bright ink.

    Raises
    ------
    UnusableImageError
        The file is not a picture, is damaged, has more than 50 million pixels, or `convert_to_grey` refuses it.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            return _decode_image(image)
    except UnusableImageError:
        raise
    except UnidentifiedImageError:  # its own text contains the full path
        formats = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UnusableImageError(UNREADABLE, f"it is not a picture in {formats}") from None
    except Exception as error:  # each format has its own exceptions for damaged files
        raise UnusableImageError(UNREADABLE, _describe_error(error)) from None


def _decode_image(image: Image.Image) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        text = f"{image.width:,} x {image.height:,} pixels are more than {MAX_PIXELS:,}"
        raise UnusableImageError(UNREADABLE, text)
    image.draft("L", (WORKING_SIDE, WORKING_SIDE))  # a large JPEG is decoded at a fraction of its size
    image.load()
    return convert_to_grey(image)


def _describe_error(error: Exception) -> str:
    """Return the text of an error in one line; the name of its type if it has no text."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def convert_to_grey(image: Image.Image) -> np.ndarray:
    """Return an opened picture as grey levels, as `read_image` does.

    Raises
    ------
    UnusableImageError
        The picture is completely transparent, or has values that are not finite or out of range.
    """
    grey = _to_mode_l(ImageOps.exif_transpose(image))
    if max(grey.size) > WORKING_SIDE:
        grey.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    return np.array(grey)


def _to_mode_l(image: Image.Image) -> Image.Image:
    """Return a picture of any mode in Pillow's mode L, 8-bit grey."""
    has_16_bits_or_more = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if has_16_bits_or_more:
        return Image.fromarray(scale_to_bytes(np.asarray(image)))
    if image.has_transparency_data:
        return _fill_background(image.convert("RGBA"))
    if image.mode in ("1", "L", "P", "RGB"):
        return image.convert("L")
    return image.convert("RGB").convert("L")


def _fill_background(image: Image.Image) -> Image.Image:
    """Return a picture of mode RGBA in mode L, on black if its visible part is bright, else on white."""
    grey = np.asarray(image.convert("L"), np.float32)
    alpha = np.asarray(image.getchannel("A"), np.float32)
    if not alpha.any():
        raise UnusableImageError(BLANK, "it is completely transparent")
    is_bright = np.average(grey, weights=alpha) > 127
    background = 0 if is_bright else 255
    blended = (grey * alpha + background * (255 - alpha)) / 255
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def guess_white_level(largest: float) -> float:
    """Return which value means white if ``largest`` is the highest one: 1, 255, 65,535, or itself if it is higher."""
    for white in WHITE_LEVELS:
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
    scaled = values.astype(np.float64) * (255 / white)
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
