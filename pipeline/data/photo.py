"""Photos: cut to the proportions of the training images, and resized; colours stay."""

import numpy as np
from PIL import Image, ImageOps

from pipeline.data.forms import PhotoForm


def prepare_photo(picture: np.ndarray, form: PhotoForm) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a picture, uint8 [height, width] or [height, width, 3], in the form, and what was changed.

    The image is uint8 [channels, height, width]: the largest middle part of the form's proportions. The changes are
    ("resized",) or nothing.
    """
    channels, height, width = form.shape
    image = Image.fromarray(picture).convert("RGB" if channels == 3 else "L")
    changes: tuple[str, ...] = ()
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        changes = ("resized",)
    return np.moveaxis(np.array(image).reshape(height, width, channels), 2, 0), changes
