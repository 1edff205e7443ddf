"""The form of ink: measured on training images, and recognised on a picture that needs no preparation.

Like `pipeline.data.images`, it does not import PyTorch, so that a worker process starts at once.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.data.forms import MNIST_FORM, InkForm
from pipeline.data.sampling import choose_evenly
from pipeline.data.strokes import measure_stroke_widths

MAX_MEASURED = 10_000  # training images whose form is measured
MIN_INK_LEVEL = 32  # of 255 grey levels; darker pixels of a training image are no ink
MAX_STROKE_SPREAD = 3.0  # times the thinnest strokes are the widest; a set with more is not made of strokes
THIN_STROKES = 0.1  # of the training images have thinner strokes
MIN_WHITE = 192  # of 255 grey levels, of the brightest pixel of an image that has the form
MIN_FILLED = 0.9  # of the box, filled by the ink of an image that has the form
MAX_DISTANCE = 1.5  # pixels of 28 from the middle of an image that has the form


def measure_ink_form(images: np.ndarray) -> InkForm:
    """Return the form of training images, uint8 [N, 1, height, width], measured on at most 10,000 of them.

    The box is that of nearly all images. The ink is centred as it is in most images: by its mass, as in MNIST, or by
    the box around it. The width of the strokes is one that nine of ten images reach. Images whose strokes differ much
    in width, such as pictures of clothes, have none.
    """
    count, channels, height, width = images.shape
    sample = images[choose_evenly(count, MAX_MEASURED), 0]
    ink = sample[np.flatnonzero(sample.max(axis=(1, 2)) > MIN_INK_LEVEL)]
    if not len(ink):
        return InkForm((channels, height, width), min(height, width))
    placement = _place(ink, MIN_INK_LEVEL)
    box = min(round(float(np.quantile(placement.side, 0.99))), height, width)
    by_mass = np.quantile(placement.mass_distance, 0.95) <= np.quantile(placement.box_distance, 0.95)
    widths = measure_stroke_widths(ink)
    has_strokes = bool(np.quantile(widths, 0.95) < min(MAX_STROKE_SPREAD * np.quantile(widths, 0.05), box / 2))
    return InkForm(
        (channels, height, width),
        box,
        centring="mass" if by_mass else "box",
        stroke=round(float(np.quantile(widths, THIN_STROKES)), 1) if has_strokes else 0.0,
    )


@dataclass(frozen=True)
class _Placement:
    """Where the ink is on each image: float64 [N], in pixels.

    Attributes
    ----------
    side : of the longer side of the box around the ink.
    mass_distance, box_distance : from the middle of the image to the centre of mass, and to that of the box.
    """

    side: np.ndarray
    mass_distance: np.ndarray
    box_distance: np.ndarray


def _place(ink: np.ndarray, level: int) -> _Placement:
    """Return where the ink is on images, uint8 [N, height, width]; grey levels up to ``level`` are none."""
    sides, box_offsets, mass_offsets = [], [], []
    for axis in (1, 2):
        length = ink.shape[axis]
        has_ink = np.any(ink > level, axis=3 - axis)
        start = has_ink.argmax(axis=1)
        end = length - has_ink[:, ::-1].argmax(axis=1)
        sides.append(end - start)
        box_offsets.append((start + end - length) / 2)
        mass = ink.sum(axis=3 - axis, dtype=np.float64)
        mass_offsets.append(mass @ (np.arange(length) + 0.5) / mass.sum(axis=1) - length / 2)
    return _Placement(np.maximum(*sides), np.hypot(*mass_offsets), np.hypot(*box_offsets))


def has_form(bright: np.ndarray, form: InkForm) -> bool:
    """Return whether an image of the form's size needs no preparation: its paper is black, its ink white and in place.

    Every image of MNIST and of Fashion-MNIST has the form of its data set.
    """
    if bright.max() < MIN_WHITE:
        return False
    tolerance = MAX_DISTANCE * max(1.0, max(form.shape[1:]) / MNIST_FORM.shape[1])
    for level in (0, MIN_INK_LEVEL):  # the second for the noise of JPEG
        placement = _place(bright[None], level)
        distance = placement.mass_distance if form.centring == "mass" else placement.box_distance
        if MIN_FILLED * form.box <= placement.side[0] <= form.box and distance[0] <= tolerance:
            return True
    return False
