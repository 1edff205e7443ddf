"""Turn a picture into what a model takes: an image in the form of those that the model was trained on.

Training data and pictures for a prediction are prepared by the same functions. Like `pipeline.data.images`, it does
not import PyTorch, so that a worker process starts at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.data.forms import INK, Form, InkForm, PhotoForm
from pipeline.data.images import WORKING_SIDE, read_image
from pipeline.data.ink import prepare_ink
from pipeline.data.ink_form import measure_ink_form
from pipeline.data.photo import prepare_photo


@dataclass(frozen=True)
class PreparedImage:
    """A picture as a model takes it.

    Attributes
    ----------
    pixels : uint8 [channels, height, width].
    changes : what was changed, of "inverted" and "resized".
    remarks : what a person should know about the picture; sentences.
    """

    pixels: np.ndarray
    changes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def arrange_for_display(pixels: np.ndarray) -> np.ndarray:
    """Return an image, uint8 [channels, height, width], as Pillow takes it: [height, width] or [height, width, 3]."""
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)


def measure_form(images: np.ndarray, kind: str) -> Form:
    """Return the form of training images, uint8 [N, channels, height, width], that are of a kind ("ink", "photo")."""
    if kind == INK:
        return measure_ink_form(images)
    _, channels, height, width = images.shape
    return PhotoForm((channels, height, width))


def read_picture(file: Path | BinaryIO, form: Form) -> np.ndarray:
    """Return a picture as `prepare_image` needs it for the form: uint8 [height, width] or [height, width, 3].

    Raises
    ------
    UnusableImageError
        As `pipeline.data.images.read_image`.
    """
    return read_image(file, channels=form.shape[0], side=working_side(form))


def working_side(form: Form) -> int:
    """Return the pixels that the longer side of a picture needs at most; a larger one is reduced to it."""
    if isinstance(form, InkForm):
        return WORKING_SIDE
    return max(WORKING_SIDE, 4 * max(form.shape[1:]))


def prepare_image(picture: np.ndarray, form: Form) -> PreparedImage:
    """Return a picture, uint8 [height, width] or [height, width, 3], in the form; see `prepare_ink`, `prepare_photo`.

    Raises
    ------
    UnusableImageError
        The picture is blank, or nearly blank.
    """
    if isinstance(form, InkForm):
        prepared = prepare_ink(picture, form)
        return PreparedImage(prepared.pixels[None], prepared.changes, prepared.remarks)
    pixels, changes = prepare_photo(picture, form)
    return PreparedImage(pixels, changes)
