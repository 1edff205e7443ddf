"""The width of pen strokes: measure it, and bring thin strokes to the width of the training images."""

import numpy as np
from PIL import Image

MIN_DETAIL = 100  # pixels of the longer side of ink in which strokes are widened; smaller ink is enlarged first
FULL_INK = 255.0
EDGE = 127.5  # grey level of the edge of a stroke


def measure_stroke_widths(ink: np.ndarray) -> np.ndarray:
    """Return the mean width of the strokes on each image, in pixels: float64 [N].

    A stroke has twice as much edge as length, and its area is length times width. The area is the sum of the grey
    levels, and the length of all edges is the total variation (Rudin, Osher and Fatemi 1992,
    https://doi.org/10.1016/0167-2789(92)90242-F), so no threshold is needed. An image without ink has the width 0.

    Parameters
    ----------
    ink
        Any real type [N, height, width], 0 on paper.
    """
    values = np.pad(ink.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    down = values[:, 1:] - values[:, :-1]
    right = values[:, :, 1:] - values[:, :, :-1]
    # The gradient in the middle of four pixels, so that slanted edges are as long as upright ones.
    edges = np.hypot(down[:, :, 1:] + down[:, :, :-1], right[:, 1:] + right[:, :-1]) / 2
    length = edges.sum(axis=(1, 2), dtype=np.float64)
    area = values.sum(axis=(1, 2), dtype=np.float64)
    return np.asarray(np.divide(2 * area, length, out=np.zeros_like(area), where=length > 0))


def fit_into_box(ink: np.ndarray, box: int) -> np.ndarray:
    """Return ink, float32 [height, width], resized so that its longer side has ``box`` pixels; 0 to 255."""
    longer_side = max(ink.shape)
    height, width = (max(1, round(box * side / longer_side)) for side in ink.shape)
    picture = Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.array(picture), 0, FULL_INK))


def widen_strokes(ink: np.ndarray, relative_width: float) -> np.ndarray:
    """Return ink whose strokes have at least a width.

    Parameters
    ----------
    ink
        float32 [height, width], 0 on paper to 255, cropped to the ink.
    relative_width
        The least width of the strokes, as a share of the longer side of the result, below 1.

    Returns
    -------
    float32 [height, width], cropped to the ink, and larger than ``ink`` if strokes were widened: they grow to both
    sides.
    """
    from scipy import ndimage  # slow to import, and not every picture needs it

    large = fit_into_box(ink, MIN_DETAIL) if max(ink.shape) < MIN_DETAIL else ink
    missing = relative_width * max(large.shape) - float(measure_stroke_widths(large[None])[0])
    if missing <= 0:
        return ink
    # Both ends of the ink grow by the radius, too: solve (width + 2 r) / (side + 2 r) = relative width.
    radius = missing / (2 * (1 - relative_width))
    margin = int(np.ceil(radius)) + 1
    padded = np.pad(large, margin)
    distance = ndimage.distance_transform_edt(padded < EDGE)
    widened = FULL_INK * np.clip(radius + 1 - distance, 0, 1)  # the pixel at the edge of the disc is a soft one
    return np.asarray(_crop(np.maximum(padded, widened)), np.float32)


def _crop(ink: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero((ink > EDGE / 4).any(axis=1))
    columns = np.flatnonzero((ink > EDGE / 4).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
