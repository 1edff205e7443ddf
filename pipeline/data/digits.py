"""The handwritten digits that scikit-learn includes: 1,797 images, no download."""

import numpy as np
import torch

from pipeline.data.splits import Dataset

SOURCE = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
SCAN_SIDE = 8  # pixels of a scan
MAX_GREY = 16  # the brightest grey level of a scan; the darkest is 0
IMAGE_SIDE = 28
STEPS = 14  # positions are counted in 14ths of a scan pixel, so that they are integers


def load_digits_dataset() -> Dataset:
    """Return scikit-learn's handwritten digits, scans of 8x8 pixels with 17 grey levels, enlarged to 28x28.

    Source: the test part of https://archive.ics.uci.edu/dataset/80.
    """
    from sklearn.datasets import load_digits  # slow to import, and only this data set needs it

    scans = load_digits()
    images = _enlarge_scans(scans.images.astype(np.int64))
    return Dataset(
        name="digits",
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(scans.target.astype(np.int64)),
        classes=tuple(str(digit) for digit in range(10)),
        source=SOURCE,
    )


def _enlarge_scans(scans: np.ndarray) -> np.ndarray:
    """Return scans, int64 [N, 8, 8], as uint8 [N, 28, 28], interpolated bilinearly.

    It computes in integers, so that the pixels, and with them the digest, are the same on every machine.
    """
    weights = _interpolation_weights()
    sums = weights @ scans @ weights.T
    largest = MAX_GREY * STEPS * STEPS
    rounded = (255 * sums + largest // 2) // largest  # half of the divisor is added to round
    return np.asarray(rounded, np.uint8)


def _interpolation_weights() -> np.ndarray:
    """Return the weight of each scan pixel in each image pixel, int64 [28, 8]; each row has the sum 14."""
    image_pixels = np.arange(IMAGE_SIDE)
    # The centre of image pixel i is at (i + 0.5) * 8 / 28 - 0.5 scan pixels, which is (4 * i - 5) / 14.
    centres = np.clip(4 * image_pixels - 5, 0, STEPS * (SCAN_SIDE - 1))
    lower, distance = np.divmod(centres, STEPS)
    upper = np.minimum(lower + 1, SCAN_SIDE - 1)
    weights = np.zeros((IMAGE_SIDE, SCAN_SIDE), np.int64)
    weights[image_pixels, lower] = STEPS - distance
    weights[image_pixels, upper] += distance
    return weights
