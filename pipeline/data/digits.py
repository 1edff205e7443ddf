"""The handwritten digits that scikit-learn includes: 1,797 images, no download."""

import numpy as np
import torch

from pipeline.data.forms import MNIST_FORM
from pipeline.data.splits import Dataset

SOURCE = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
SCAN_SIDE = 8  # pixels of a scan; the ink reaches from its first row to its last
BOX = MNIST_FORM.box
IMAGE_SIDE = MNIST_FORM.shape[1]
STEPS = 10  # positions are counted in 10ths of a scan pixel, so that they are integers
PAPER_GREY = 5  # of the grey levels 0 to 16 of a scan: up to this level it is paper
INK_GREY = 13  # from this level on it is full ink


def load_digits_dataset() -> Dataset:
    """Return scikit-learn's handwritten digits, scans of 8x8 pixels with 17 grey levels, in the form of MNIST.

    Source: the test part of https://archive.ics.uci.edu/dataset/80.
    """
    from sklearn.datasets import load_digits  # slow to import, and only this data set needs it

    scans = load_digits()
    images = _center_ink(_sharpen(_enlarge(scans.images.astype(np.int64))))
    return Dataset(
        name="digits",
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(scans.target.astype(np.int64)),
        classes=tuple(str(digit) for digit in range(10)),
        source=SOURCE,
    )


# All of this computes in integers, so that the pixels, and with them the digest, are the same on every machine.


def _enlarge(scans: np.ndarray) -> np.ndarray:
    """Return scans, int64 [N, 8, 8], as int64 [N, 20, 20], interpolated bilinearly; 100 is one grey level of a scan."""
    weights = _interpolation_weights()
    return np.asarray(weights @ scans @ weights.T)


def _interpolation_weights() -> np.ndarray:
    """Return the weight of each scan pixel in each pixel of the box, int64 [20, 8]; each row has the sum 10."""
    box_pixels = np.arange(BOX)
    # The centre of pixel i is at (i + 0.5) * 8 / 20 - 0.5 scan pixels, which is (4 * i - 3) / 10.
    centres = np.clip(4 * box_pixels - 3, 0, STEPS * (SCAN_SIDE - 1))
    lower, distance = np.divmod(centres, STEPS)
    upper = np.minimum(lower + 1, SCAN_SIDE - 1)
    weights = np.zeros((BOX, SCAN_SIDE), np.int64)
    weights[box_pixels, lower] = STEPS - distance
    weights[box_pixels, upper] += distance
    return weights


def _sharpen(enlarged: np.ndarray) -> np.ndarray:
    """Return enlarged scans with more contrast: 0 on paper to 255 in full ink, which each of them has.

    A scan pixel is 2.5 pixels of the box, so the strokes of an enlarged scan are wide and soft. These are about as wide
    as those of MNIST.
    """
    paper, ink = (grey * STEPS * STEPS for grey in (PAPER_GREY, INK_GREY))
    amount = np.clip(enlarged, paper, ink) - paper
    return np.asarray((255 * amount + (ink - paper) // 2) // (ink - paper))  # half of the divisor is added to round


def _center_ink(ink: np.ndarray) -> np.ndarray:
    """Return ink, int64 [N, 20, 20], as uint8 [N, 28, 28], its centre of mass in the middle as far as there is room."""
    images = np.zeros((len(ink), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    starts = zip(_find_starts(ink.sum(axis=2)), _find_starts(ink.sum(axis=1)), strict=True)
    for image, box, (top, left) in zip(images, ink, starts, strict=True):
        image[top : top + BOX, left : left + BOX] = box
    return images


def _find_starts(mass: np.ndarray) -> np.ndarray:
    """Return at which pixel each box has to start along one axis, int64 [N].

    ``mass``, int64 [N, 20], is the amount of ink in each row or column of the boxes.
    """
    total = mass.sum(axis=1)
    twice_the_moment = mass @ (2 * np.arange(BOX) + 1)  # the centre of pixel i is at i + 1/2
    # The middle of the image less the centre of mass, rounded: floor(28 / 2 - moment / total + 1 / 2).
    starts = ((IMAGE_SIDE + 1) * total - twice_the_moment) // (2 * total)
    return np.asarray(np.clip(starts, 0, IMAGE_SIDE - BOX))
