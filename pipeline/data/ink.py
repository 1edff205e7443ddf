"""Ink on paper: from a picture to bright ink on a black background, in the form of the training images.

Like `pipeline.data.images`, it does not import PyTorch, so that a worker process starts at once.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.data.forms import InkForm
from pipeline.data.images import BLANK, UnusableImageError
from pipeline.data.ink_form import has_form
from pipeline.data.paper import find_sheet, fit_plane, has_plain_paper, is_dark_on_light, list_frame
from pipeline.data.strokes import fit_into_box, widen_strokes

MIN_CONTRAST = 24  # of 255 grey levels; with less between paper and ink the page is blank
MIN_INK_SIZE = 0.04  # of the longer side of the picture; smaller ink is dust
MIN_PATCH_SIZE = 0.02  # of the largest patch of ink; smaller patches are dust
MIN_THING_SIZE = 0.4  # of the longest patch of ink; a shorter one is a part of another thing
MIN_THING_GAP = 0.2  # of the longest patch of ink; what is nearer belongs together
SEVERAL_THINGS = "there are several things on the picture; the model sees all of them together"
TABLE_EDGE = 3.0  # times as thick as the ink is what the frame cuts off, if it is no ink
MIN_LEGIBLE_SIZE = 0.3  # of the shorter side of the picture
PAPER_GRAIN = 0.15  # of the darkest ink; lighter differences are the grain of the paper
FULL_INK = 0.5  # of the darkest ink; darker ink is white
MAD_TO_STD = 1.4826  # median absolute deviation to standard deviation, for a normal distribution


@dataclass(frozen=True)
class PreparedInk:
    """An image in its form.

    Attributes
    ----------
    pixels : uint8 [height, width].
    changes : some of "inverted" and "resized".
    remarks : what a person should know about the picture; sentences.
    """

    pixels: np.ndarray
    changes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def prepare_ink(grey: np.ndarray, form: InkForm) -> PreparedInk:
    """Return a picture, uint8 [height, width], in the form.

    A picture that has the form already stays as it is, or is inverted if it is dark on light. Any other is prepared
    as MNIST's authors did (LeCun et al. 1998, section III.A; http://yann.lecun.com/exdb/mnist): the ink is fitted into
    the box, keeps its proportions, and its centre is in the middle. Before that, a dark table around the sheet is cut
    off, the paper becomes black, also if it is lit from one side, dust is removed, and strokes that are thinner than
    those of the training images are widened.

    Raises
    ------
    UnusableImageError
        There is no ink, or too little to read it, or no plain paper; the text says which.
    """
    is_inverted = is_dark_on_light(grey)
    bright = 255 - grey if is_inverted else grey
    changes = ("inverted",) if is_inverted else ()
    contrast = int(bright.max()) - int(bright.min())
    if contrast < MIN_CONTRAST:
        raise UnusableImageError(BLANK, f"too faint: its grey levels reach from {grey.min()} to {grey.max()} only")
    if bright.shape == form.shape[1:] and has_form(bright, form):
        return PreparedInk(bright, changes)
    sheet = find_sheet(grey)
    if sheet is not None:
        is_inverted = is_dark_on_light(sheet)
        bright = 255 - sheet if is_inverted else sheet
        changes = ("inverted",) if is_inverted else ()
    ink, remarks = _extract_ink(bright)
    if form.stroke:
        ink = widen_strokes(ink, form.stroke / form.box)
    small = fit_into_box(ink, form.box)
    pixels = _center_ink(small * (255 / small.max()), form)
    return PreparedInk(pixels, (*changes, "resized"), remarks)


def _extract_ink(bright: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the amount of ink, float32 [height, width], 0 on paper to 255, cropped to the ink; and remarks."""
    from scipy import ndimage  # slow to import, and not every picture needs it

    height, width = bright.shape
    values = bright.astype(np.float32)
    paper, noise = _estimate_paper(values)
    ink = np.clip(values - paper, 0, None)
    smooth = ndimage.gaussian_filter(ink, min(height, width) / 256)
    peak = float(smooth.max())
    if peak < max(MIN_CONTRAST, 6 * noise):
        if not has_plain_paper(bright):
            raise UnusableImageError(BLANK, "there is no plain paper around the ink; prepare such pictures as photos")
        raise UnusableImageError(BLANK, "too faint: nothing on it is clearly darker or brighter than its paper")
    is_ink = _find_large_patches(smooth > 0.3 * peak)
    rows = np.flatnonzero(is_ink.any(axis=1))
    columns = np.flatnonzero(is_ink.any(axis=0))
    ink_size = max(np.ptp(rows), np.ptp(columns)) + 1
    if ink_size < MIN_INK_SIZE * max(height, width):
        raise UnusableImageError(BLANK, "too small: there is only dust on it")
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    amount = np.asarray(255 * np.clip((cropped / peak - PAPER_GRAIN) / (FULL_INK - PAPER_GRAIN), 0, 1), np.float32)
    return amount, (SEVERAL_THINGS,) if _count_things(is_ink) > 1 else ()


def _estimate_paper(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the grey level of the paper at each pixel, and the standard deviation of its noise.

    The paper is a plane through the frame, because a lamp may light it from one side. It is fitted three times, each
    time without the pixels that are far above the last plane: they are ink. Ink is never darker than the paper here, so
    the noise is that of the darker pixels.
    """
    height, width = values.shape
    terms, levels = list_frame(values)
    paper = np.full(len(levels), np.median(levels))
    for _ in range(3):
        limit = max(8.0, 3 * _measure_noise(levels - paper))
        is_paper = levels - paper <= limit
        coefficients = fit_plane(terms[is_paper], levels[is_paper])
        paper = terms @ coefficients
    plane_rows = coefficients[1] * np.arange(height) / height
    plane_columns = coefficients[2] * np.arange(width) / width
    plane = coefficients[0] + plane_rows[:, None] + plane_columns[None, :]
    return plane.astype(np.float32), _measure_noise(levels - paper)


def _measure_noise(deviation: np.ndarray) -> float:
    """Return the standard deviation of the paper's noise, by the pixels that are darker than the paper."""
    darker = deviation[deviation < 0]
    return MAD_TO_STD * float(np.median(-darker)) if len(darker) else 0.0


def _find_large_patches(is_ink: np.ndarray) -> np.ndarray:
    """Return the ink without dust and without what the frame cuts off; bool [height, width].

    Dust are patches that are small compared with the largest one. A patch that touches the frame is a part of something
    else if another one does not touch it and is larger; or much thinner, as ink is compared with the corner of a table;
    or legible, while the patch runs along a side of the frame, as the edge of the sheet does.
    """
    from scipy import ndimage

    patches, count = ndimage.label(is_ink, np.ones((3, 3)))
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0  # patch 0 is the paper
    lines = (patches[0], patches[-1], patches[:, 0], patches[:, -1])
    contact = np.max([np.bincount(line, minlength=count + 1) for line in lines], axis=0)
    contact[0] = 0
    whole = int(np.where(contact > 0, 0, sizes).argmax())
    if whole:
        rows, columns = ndimage.find_objects(patches, whole)[whole - 1]
        extent = max(rows.stop - rows.start, columns.stop - columns.start)
        radius = ndimage.maximum(ndimage.distance_transform_edt(is_ink), patches, np.arange(count + 1))
        is_thicker = (radius > TABLE_EDGE * radius[whole]) & (sizes[whole] >= MIN_PATCH_SIZE * sizes.max())
        is_border = (contact >= min(is_ink.shape) / 2) & (extent >= MIN_LEGIBLE_SIZE * min(is_ink.shape))
        sizes[(contact > 0) & ((sizes < sizes[whole]) | is_thicker | is_border)] = 0
    is_large = (sizes > 0) & (sizes >= MIN_PATCH_SIZE * sizes.max())
    return np.asarray(is_large[patches])


def _count_things(is_ink: np.ndarray) -> int:
    """Return how many separate things there are: patches of ink that are far apart, compared with their height."""
    from scipy import ndimage

    patches, count = ndimage.label(is_ink, np.ones((3, 3)))
    extents = [
        max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in ndimage.find_objects(patches)
    ]
    tall = [index + 1 for index, extent in enumerate(extents) if extent >= MIN_THING_SIZE * max(extents)]
    if len(tall) < 2:
        return count and 1
    gap = MIN_THING_GAP * max(extents)
    is_near = ndimage.distance_transform_edt(~np.isin(patches, tall)) <= gap / 2
    return int(ndimage.label(is_near, np.ones((3, 3)))[1])


def _center_ink(ink: np.ndarray, form: InkForm) -> np.ndarray:
    """Return the ink in an image of the form's size, uint8 [height, width], centred as the form says."""
    height, width = ink.shape
    top = _find_start(ink.sum(axis=1), form.shape[1], form.centring)
    left = _find_start(ink.sum(axis=0), form.shape[2], form.centring)
    pixels = np.zeros(form.shape[1:], np.uint8)
    pixels[top : top + height, left : left + width] = np.rint(ink).astype(np.uint8)
    return pixels


def _find_start(mass: np.ndarray, side: int, centring: str) -> int:
    """Return at which pixel ink has to start along one axis; ``mass`` is the amount of ink in each row or column."""
    size = len(mass)
    if centring == "box":
        return (side - size) // 2
    center = float((mass * np.arange(size)).sum() / mass.sum())
    start = round(side / 2 - center)
    return min(max(start, 0), side - size)
