"""Photos: cut to the proportions of the training images, and resized; colours stay."""

import numpy as np
from PIL import Image, ImageOps

from pipeline.data.forms import PhotoForm
from pipeline.data.images import BLANK, UnusableImageError

MAX_UNIFORM_SPREAD = 3  # levels of 255 from the darkest to the brightest pixel of a blank picture, in every channel


def prepare_photo(picture: np.ndarray, form: PhotoForm) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a picture, uint8 [height, width] or [height, width, 3], in the form, and what was changed.

    The image is uint8 [channels, height, width]: the largest middle part of the form's proportions. The changes are
    ("resized",) or nothing.

    Raises
    ------
    UnusableImageError
        All pixels have the same colour, but for what a format such as JPEG changes.
    """
    spread = int(np.ptp(picture, axis=(0, 1)).max())
    if spread <= MAX_UNIFORM_SPREAD:
        raise UnusableImageError(BLANK, f"all its pixels have the same colour, within {spread} of 255 levels")
    channels, height, width = form.shape
    image = Image.fromarray(picture).convert("RGB" if channels == 3 else "L")
    changes: tuple[str, ...] = ()
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        changes = ("resized",)
    return np.moveaxis(np.array(image).reshape(height, width, channels), 2, 0), changes
