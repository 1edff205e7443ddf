"""The paper on a picture: is there plain paper at all, and where is the sheet?"""

import numpy as np
from PIL import Image

MIN_SHARE = 0.6  # of the pixels at the edge that have the level of the paper
MAX_DISTANCE = 20  # grey levels of 255 from the paper
MIN_PHOTO_SIDE = 64  # pixels of the shorter side of a picture that may show a table around the sheet
MAX_LIGHT_EDGE = 0.4  # of the edge, if there is a table around the sheet
MIN_SHEET = 0.15  # of the picture
MAX_INK = 0.25  # of the sheet
MIN_RECTANGLE = 0.85  # of the smallest rectangle around the sheet; a round 0 fills 0.79 of it


def has_plain_paper(grey: np.ndarray) -> bool:
    """Return whether most of the edge of a picture, uint8 [height, width], is plain, also if one side is darker.

    The paper is a plane through the grey levels at the edge, fitted a second time without those far from the first.
    """
    terms, levels = list_frame(grey)
    is_paper = np.abs(levels - np.median(levels)) <= 3 * MAX_DISTANCE
    coefficients = fit_plane(terms[is_paper], levels[is_paper])
    is_plain = np.abs(terms @ coefficients - levels) <= MAX_DISTANCE
    return bool(is_plain.mean() >= MIN_SHARE)


def list_frame(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels at the edge of a picture, [height, width]: the terms of a plane there, and the grey levels.

    The terms are float64 [N, 3]: 1, the row as a share of the height, the column as a share of the width. The levels
    are float64 [N].
    """
    height, width = values.shape
    rows, columns = np.nonzero(_frame_mask(height, width))
    terms = np.stack([np.ones(len(rows)), rows / height, columns / width], axis=1)
    return terms, values[rows, columns].astype(np.float64)


def fit_plane(terms: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the coefficients, float64 [3], of the plane through grey levels; see `list_frame`."""
    coefficients: np.ndarray = np.linalg.lstsq(terms, levels, rcond=None)[0]
    return coefficients


def _frame_mask(height: int, width: int) -> np.ndarray:
    """Return which pixels are at the edge, bool [height, width]: 5% of the shorter side, at least one pixel."""
    edge = max(1, min(width, height) // 20)
    mask = np.ones((height, width), bool)
    mask[edge : height - edge, edge : width - edge] = False
    return mask


def _corner_mask(height: int, width: int) -> np.ndarray:
    """Return which pixels are in a corner, bool [height, width]: 10% of each side, at least one pixel."""
    rows = max(1, height // 10)
    columns = max(1, width // 10)
    mask = np.zeros((height, width), bool)
    mask[:rows, :columns] = True
    mask[:rows, -columns:] = True
    mask[-rows:, :columns] = True
    mask[-rows:, -columns:] = True
    return mask


def is_dark_on_light(grey: np.ndarray) -> bool:
    """Return whether the darkest pixel differs more from the paper than the brightest one does.

    The paper is measured in the frame and in the corners, and both must agree: clothes may fill the frame, but then
    they do not fill the corners.
    """
    reduced = np.asarray(Image.fromarray(grey).reduce(max(1, max(grey.shape) // 128)))  # averages the grain away
    darkest, brightest = float(reduced.min()), float(reduced.max())
    for mask in (_frame_mask(*grey.shape), _corner_mask(*grey.shape)):
        paper = float(np.median(grey[mask]))
        if paper - darkest <= brightest - paper:
            return False
    return True


def find_sheet(grey: np.ndarray) -> np.ndarray | None:
    """Return the sheet on a picture of a light sheet on a darker table, uint8 [height, width]; None if there is none.

    A sheet is a light rectangle, perhaps turned, with something darker on it, and most of the frame is darker. What the
    result shows of the table is filled with the level of the paper.
    """
    height, width = grey.shape
    if min(height, width) < MIN_PHOTO_SIDE:
        return None
    is_light = grey > _find_threshold(grey)
    edge = np.concatenate([is_light[0], is_light[-1], is_light[:, 0], is_light[:, -1]])
    if edge.mean() > MAX_LIGHT_EDGE:
        return None
    from scipy import ndimage  # slow to import, and not every picture needs it

    patches, _ = ndimage.label(is_light)
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0  # patch 0 is dark
    patch = patches == sizes.argmax()
    sheet = ndimage.binary_fill_holes(patch)
    area = int(sheet.sum())
    ink_share = 1 - patch.sum() / area
    if area < MIN_SHEET * grey.size or not 0 < ink_share <= MAX_INK or area < MIN_RECTANGLE * _enclosing_area(sheet):
        return None
    inner = ndimage.binary_erosion(sheet, iterations=max(1, min(height, width) // 48))  # its edge is blurred
    rows, columns = np.nonzero(inner)
    filled = np.where(inner, grey, np.uint8(np.median(grey[patch])))
    return np.asarray(filled[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], np.uint8)


def _find_threshold(grey: np.ndarray) -> int:
    """Return the grey level that separates dark from light best (Otsu 1979, https://doi.org/10.1109/TSMC.1979.4310076)."""
    levels = np.arange(256)
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    dark = np.cumsum(counts)
    light = dark[-1] - dark
    dark_sum = np.cumsum(counts * levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = dark * light * (dark_sum / dark - (dark_sum[-1] - dark_sum) / light) ** 2
    return int(np.nanargmax(np.nan_to_num(between)))


def _enclosing_area(mask: np.ndarray) -> float:
    """Return the area of the smallest rectangle, turned by any angle, around the pixels of a mask."""
    lines = np.flatnonzero(mask.any(axis=1))
    angles = np.radians(np.arange(0, 90, 2))[:, None]
    # The first and the last pixel of each row are enough.
    first, last = mask.argmax(axis=1), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    y = np.concatenate([lines, lines])
    x = np.concatenate([first[lines], last[lines]])
    along = np.ptp(x * np.cos(angles) + y * np.sin(angles), axis=1) + 1
    across = np.ptp(y * np.cos(angles) - x * np.sin(angles), axis=1) + 1
    return float((along * across).min())
