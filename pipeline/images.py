"""From any picture to what the models see: 28x28 pixels, ink bright on dark. One way for cleaning and for asking.

Knows nothing of PyTorch, so that a worker process starts at once.
"""

import gzip
import os
import signal
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIDE, BOX = 28, 20  # of the image, and of the place in it that the ink is fitted into, in pixels
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # not all that Pillow can read: some formats run programs
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MOST_PIXELS = 50_000_000  # a small file can unpack to more than the memory holds
WORKING_SIDE = 192  # pixels; larger pictures are made so small first: it is quick, and noise averages out
CONTRAST = 24  # of 255 grey levels; less than that between paper and ink is a blank page
SMALLEST_INK = 0.04  # of the picture's longer side; what is smaller is dust
UNREADABLE, NOT_FINITE, OUT_OF_RANGE, BLANK = "unreadable", "not_finite", "out_of_range", "blank"

BLOCK = 4096  # items that are handed out at a time
T = TypeVar("T")
R = TypeVar("R")


class UnusableError(Exception):
    """There is nothing to see in this picture; ``problem`` is one of the four names above, the text says more."""

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(text)
        self.problem = problem


@dataclass(frozen=True)
class Prepared:
    """A picture as the models see it.

    Attributes
    ----------
    pixels : uint8 [28, 28], ink bright on dark.
    changes : what was done to it, of "inverted" and "resized".
    """

    pixels: np.ndarray
    changes: tuple[str, ...]


def read(file: Path | IO[bytes]) -> np.ndarray:
    """Return a picture of one of `FORMATS` as grey levels, uint8 [height, width], at most 192x192, upright.

    Of several frames or pages the first. Where it is transparent, the paper is white behind dark ink and black behind
    bright ink.

    Raises
    ------
    UnusableError
        No picture, a damaged one, or one of more than 50 million pixels.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnusableError(
                    UNREADABLE, f"{image.width:,} x {image.height:,} pixels are more than {MOST_PIXELS:,}"
                )
            image.draft("L", (WORKING_SIDE, WORKING_SIDE))  # a large JPEG is decoded at a fraction of its size
            image.load()
            return levels(image)
    except UnusableError:
        raise
    except UnidentifiedImageError:  # its text has the whole path
        raise UnusableError(UNREADABLE, f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    except Exception as error:  # what Pillow raises for damaged files is as various as the formats
        text = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UnusableError(UNREADABLE, text or type(error).__name__) from None


def levels(image: Image.Image) -> np.ndarray:
    """Return an opened picture as `read` does; raise UnusableError where it is transparent all over, or not finite."""
    grey = _grey(ImageOps.exif_transpose(image))
    if max(grey.size) > WORKING_SIDE:
        grey.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    return np.array(grey)


def _grey(image: Image.Image) -> Image.Image:
    """Return the picture in mode L."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # 16 bits and more
        return Image.fromarray(to_bytes(np.asarray(image)))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        grey, alpha = (np.asarray(each, np.float32) for each in (with_alpha.convert("L"), with_alpha.getchannel("A")))
        if not alpha.any():
            raise UnusableError(BLANK, "it is transparent all over")
        paper = 0 if np.average(grey, weights=alpha) > 127 else 255
        return Image.fromarray(np.rint((grey * alpha + paper * (255 - alpha)) / 255).astype(np.uint8))
    return image.convert("L") if image.mode in ("1", "L", "P", "RGB") else image.convert("RGB").convert("L")


def scale_of(largest: float) -> float:
    """Return the value of white where ``largest`` is the highest that is seen: 1, 255 or 65,535."""
    return next((white for white in (1.0, 255.0, 65_535.0) if largest <= white), largest)


def to_bytes(values: np.ndarray, white: float | None = None) -> np.ndarray:
    """Return grey levels of any type as uint8, scaled so that ``white``, by default `scale_of` the highest, is 255.

    Raises UnusableError where they are not finite, or outside 0 to white.
    """
    if not np.isfinite(values).all():
        raise UnusableError(NOT_FINITE, "it has pixels that are no numbers (NaN or infinite)")
    low, high = float(values.min()), float(values.max())
    white = white or scale_of(high)
    if low < -white / 1000 or high > white * 1.001:  # rounding apart
        raise UnusableError(OUT_OF_RANGE, f"it has pixels from {low:g} to {high:g}, outside 0 to {white:g}")
    if values.dtype == np.uint8 and white == 255:
        return values
    return np.rint(np.clip(values.astype(np.float64) * (255 / white), 0, 255)).astype(np.uint8)


def prepare(grey: np.ndarray) -> Prepared:
    """Return a picture, uint8 [height, width], as the models see it.

    One of 28x28 stays as it is, inverted where it is dark on light. Any other is brought there as MNIST's authors did
    (LeCun et al. 1998, section III.A; http://yann.lecun.com/exdb/mnist): the ink fitted into 20x20, its proportions
    kept, its centre of mass in the middle. Before that the paper, which a lamp may have lit from one side, becomes
    black, and dust goes.

    Raises UnusableError where the picture is blank, or nearly so.
    """
    inverted = _is_dark_on_light(grey)
    done: tuple[str, ...] = ("inverted",) if inverted else ()
    light = 255 - grey if inverted else grey
    if int(light.max()) - int(light.min()) < CONTRAST:
        raise UnusableError(BLANK, f"its grey levels reach from {grey.min()} to {grey.max()} only")
    if grey.shape == (SIDE, SIDE):
        return Prepared(light, done)
    return Prepared(_fit(_ink(light)), (*done, "resized"))


def _frame(width: int, height: int) -> np.ndarray:
    """Return where the outermost pixels are, bool [height, width]: one in twenty on each side, one at least."""
    inner = np.zeros((height, width), bool)
    edge = max(1, min(width, height) // 20)
    inner[edge : height - edge, edge : width - edge] = True
    return ~inner


def _is_dark_on_light(grey: np.ndarray) -> bool:
    """Return whether the ink is further below the paper than above: seen from the whole frame and from its corners.

    From both, because clothes may fill the frame, and then they do not fill the corners.
    """
    frame = _frame(*grey.shape[::-1])
    high, wide = (max(1, side // 10) for side in grey.shape)
    corners = np.zeros_like(frame)
    corners[:high, :wide] = corners[:high, -wide:] = corners[-high:, :wide] = corners[-high:, -wide:] = True
    coarse = Image.fromarray(grey).reduce(max(1, max(grey.shape) // 128))  # grain is averaged away
    darkest, brightest = np.asarray(coarse).min(), np.asarray(coarse).max()
    papers = [float(np.median(grey[place])) for place in (frame, corners)]
    return all(paper - darkest > brightest - paper for paper in papers)


def _ink(light: np.ndarray) -> np.ndarray:
    """Return how much ink there is, float32 [height, width], 0 on paper to 255, of a picture that is bright on dark."""
    from scipy import ndimage

    height, width = light.shape
    values = light.astype(np.float32)
    # The paper: a plane through the frame, twice, the second time without what lies far from the first.
    rows, columns = np.mgrid[:height, :width]
    plane = np.stack([np.ones_like(rows), rows / height, columns / width], -1).astype(np.float32)
    frame = _frame(width, height)
    for _ in range(2):
        paper = plane @ np.linalg.lstsq(plane[frame], values[frame], rcond=None)[0]
        gap = np.abs(values - paper)
        frame = frame & (gap <= max(8.0, 3 * float(np.median(gap[frame]))))
    noise = 1.4826 * float(np.median(gap[frame]))  # a standard deviation, as the median tells it
    ink = np.clip(values - paper, 0, None)
    smooth = ndimage.gaussian_filter(ink, min(height, width) / 128)
    peak = float(smooth.max())
    if peak < max(CONTRAST, 6 * noise):
        raise UnusableError(BLANK, "nothing on it is darker or brighter than its paper")
    ink = np.clip((ink / peak - 0.15) / 0.85, 0, 1)  # the grain of the paper goes
    # Dust: what is small beside the largest patch of ink.
    patches, _ = ndimage.label(smooth > 0.3 * peak, np.ones((3, 3)))
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0
    kept = (sizes >= 0.02 * sizes.max())[patches] & (patches > 0)
    rows_with, columns_with = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    if max(np.ptp(rows_with), np.ptp(columns_with)) + 1 < SMALLEST_INK * max(height, width):
        raise UnusableError(BLANK, "there is nothing on it but dust")
    around = slice(rows_with[0], rows_with[-1] + 1), slice(columns_with[0], columns_with[-1] + 1)
    return np.asarray(255 * ink[around])


def _fit(ink: np.ndarray) -> np.ndarray:
    """Return ``ink`` fitted into 20x20, its centre of mass in the middle of uint8 [28, 28]."""
    height, width = (max(1, round(BOX * side / max(ink.shape))) for side in ink.shape)
    small = np.array(Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
    small = np.clip(small, 0, 255)
    small *= 255 / small.max()
    result = np.zeros((SIDE, SIDE), np.uint8)
    places = []
    for axis, side in enumerate(small.shape):
        mass = small.sum(1 - axis)
        start = round(SIDE / 2 - float((mass * np.arange(side)).sum() / mass.sum()))
        start = min(max(start, 0), SIDE - side)
        places.append(slice(start, start + side))
    result[tuple(places)] = np.rint(small).astype(np.uint8)
    return result


# --- IDX, the format of MNIST's files: http://yann.lecun.com/exdb/mnist, saved by the Internet Archive ----------------

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def from_idx(content: bytes) -> np.ndarray:
    """Return the array in an unpacked IDX file; raise ValueError where it is not a whole one."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ValueError("no IDX file")
    start = 4 + 4 * content[3]
    shape = struct.unpack_from(f">{content[3]}I", content, 4) if len(content) >= start else ()
    if not shape or len(content) != start + np.prod(shape) * np.dtype(_TYPES[content[2]]).itemsize:
        raise ValueError("no whole IDX file")
    values = np.frombuffer(content, _TYPES[content[2]], offset=start).reshape(shape)
    return values.astype(values.dtype.newbyteorder("="))


def write_idx(file: Path, array: np.ndarray) -> None:
    """Write ``array`` of uint8 or int16 as a packed IDX file, the same bytes each time."""
    kind = {"uint8": 0x08, "int16": 0x0B}[array.dtype.name]
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    file.write_bytes(gzip.compress(header + array.astype(_TYPES[kind]).tobytes(), compresslevel=6, mtime=0))


# --- many at once ---------------------------------------------------------------------------------------------------


def for_each(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Return ``function(item)`` for each item, in order, computed by as many processes as there are cores.

    They start at once, and are a few thousand items ahead at most, so the memory does not grow with their number.
    """
    items = iter(items)
    first = list(islice(items, BLOCK))
    if len(first) < 32:  # not worth starting processes
        return map(function, first)
    processes = ProcessPoolExecutor(os.cpu_count(), initializer=_leave_signals_to_the_parent)
    return _results(processes, function, processes.map(function, first, chunksize=16), items)


def _results(
    processes: ProcessPoolExecutor, function: Callable[[T], R], under_way: Iterator[R], items: Iterator[T]
) -> Iterator[R]:
    with processes:
        yield from under_way
        while block := list(islice(items, BLOCK)):
            yield from processes.map(function, block, chunksize=16)


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
