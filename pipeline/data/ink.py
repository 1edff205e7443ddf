"""Ink on paper: from a picture to bright ink on a black background, in the form of the training images.

Like `pipeline.data.images`, it does not import PyTorch, so that a worker process starts at once.
"""

import numpy as np
from PIL import Image

from pipeline.data.forms import MNIST_FORM, InkForm
from pipeline.data.images import BLANK, UnusableImageError

MIN_CONTRAST = 24  # of 255 grey levels; with less between paper and ink the page is blank
MIN_INK_SIZE = 0.04  # of the longer side of the picture; smaller ink is dust
MIN_PATCH_SIZE = 0.02  # of the largest patch of ink; smaller patches are dust
PAPER_GRAIN = 0.15  # of the darkest ink; lighter differences are the grain of the paper
MAD_TO_STD = 1.4826  # median absolute deviation to standard deviation, for a normal distribution


def measure_ink_form(images: np.ndarray) -> InkForm:
    """Return the form of training images, uint8 [N, 1, height, width]: MNIST's, in proportion to their size."""
    _, channels, height, width = images.shape
    box = round(min(height, width) * MNIST_FORM.box / MNIST_FORM.shape[1])
    return InkForm((channels, height, width), box)


def prepare_ink(grey: np.ndarray, form: InkForm) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a picture, uint8 [height, width], in the form, and what was changed.

    The image is uint8, of the form's height and width. The changes are some of "inverted" and "resized". A picture that
    has the form's size stays as it is; it is inverted if it is dark on light. Any other picture is prepared as
    MNIST's authors did (LeCun et al. 1998, section III.A; http://yann.lecun.com/exdb/mnist): the ink is fitted into
    the box, keeps its proportions, and has its centre of mass in the middle. Before that, the paper becomes
    black, also if it is lit from one side, and dust is removed.

    Raises
    ------
    UnusableImageError
        The picture is blank, or nearly blank.
    """
    is_inverted = _is_dark_on_light(grey)
    bright = 255 - grey if is_inverted else grey
    changes = ["inverted"] if is_inverted else []
    contrast = int(bright.max()) - int(bright.min())
    if contrast < MIN_CONTRAST:
        raise UnusableImageError(BLANK, f"its grey levels reach from {grey.min()} to {grey.max()} only")
    if grey.shape == form.shape[1:]:
        return bright, tuple(changes)
    changes.append("resized")
    pixels = _center_ink(_resize_ink(_extract_ink(bright), form.box), form.shape[1:])
    return pixels, tuple(changes)


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


def _is_dark_on_light(grey: np.ndarray) -> bool:
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


def _extract_ink(bright: np.ndarray) -> np.ndarray:
    """Return the amount of ink, float32 [height, width], 0 on paper to 255, cropped to the ink; dust is removed."""
    from scipy import ndimage  # slow to import, and not every picture needs it

    height, width = bright.shape
    values = bright.astype(np.float32)
    paper, noise = _estimate_paper(values)
    ink = np.clip(values - paper, 0, None)
    smooth = ndimage.gaussian_filter(ink, min(height, width) / 128)
    peak = float(smooth.max())
    if peak < max(MIN_CONTRAST, 6 * noise):
        raise UnusableImageError(BLANK, "nothing on it is darker or brighter than its paper")
    is_ink = _find_large_patches(smooth > 0.3 * peak)
    rows = np.flatnonzero(is_ink.any(axis=1))
    columns = np.flatnonzero(is_ink.any(axis=0))
    ink_size = max(np.ptp(rows), np.ptp(columns)) + 1
    if ink_size < MIN_INK_SIZE * max(height, width):
        raise UnusableImageError(BLANK, "there is only dust on it")
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(255 * np.clip((cropped / peak - PAPER_GRAIN) / (1 - PAPER_GRAIN), 0, 1))


def _estimate_paper(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the grey level of the paper at each pixel, and the standard deviation of its noise.

    The paper is a plane through the frame, because a lamp may light it from one side. The plane is fitted twice, the
    second time without the pixels that are far from the first plane.
    """
    height, width = values.shape
    rows, columns = np.mgrid[:height, :width]
    terms = np.stack([np.ones_like(rows), rows / height, columns / width], axis=-1).astype(np.float32)
    is_paper = _frame_mask(height, width)
    for _ in range(2):
        coefficients = np.linalg.lstsq(terms[is_paper], values[is_paper], rcond=None)[0]
        paper = terms @ coefficients
        deviation = np.abs(values - paper)
        limit = max(8.0, 3 * float(np.median(deviation[is_paper])))
        is_paper = is_paper & (deviation <= limit)
    noise = MAD_TO_STD * float(np.median(deviation[is_paper]))
    return paper, noise


def _find_large_patches(is_ink: np.ndarray) -> np.ndarray:
    """Return the ink without patches that are small compared with the largest one; bool [height, width]."""
    from scipy import ndimage

    patches, _ = ndimage.label(is_ink, np.ones((3, 3)))
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0  # patch 0 is the paper
    is_large = sizes >= MIN_PATCH_SIZE * sizes.max()
    is_large[0] = False
    return np.asarray(is_large[patches])


def _resize_ink(ink: np.ndarray, box: int) -> np.ndarray:
    """Return the ink resized so that its longer side has ``box`` pixels, float32, and its maximum is 255."""
    longer_side = max(ink.shape)
    height, width = (max(1, round(box * side / longer_side)) for side in ink.shape)
    picture = Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    small = np.clip(np.array(picture), 0, 255)
    return np.asarray(small * (255 / small.max()))


def _center_ink(ink: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the ink in an image of ``size``, uint8 [height, width], with its centre of mass in the middle."""
    top = _centered_start(ink.sum(axis=1), size[0])
    left = _centered_start(ink.sum(axis=0), size[1])
    height, width = ink.shape
    pixels = np.zeros(size, np.uint8)
    pixels[top : top + height, left : left + width] = np.rint(ink).astype(np.uint8)
    return pixels


def _centered_start(mass: np.ndarray, side: int) -> int:
    """Return at which pixel ink has to start along one axis; ``mass`` is the amount of ink in each row or column."""
    size = len(mass)
    center = float((mass * np.arange(size)).sum() / mass.sum())
    start = round(side / 2 - center)
    return min(max(start, 0), side - size)
