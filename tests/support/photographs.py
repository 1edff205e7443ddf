"""Photographs of handwriting, as a phone takes them: made of MNIST's images, but new to a model."""

import io

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 274  # the tag that says how the camera was held

# How a camera stores an upright picture, by the orientation that it then writes (EXIF 2.32, section 4.6.4).
ROTATIONS = {1: None, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_270}


def photograph_digit(digit: np.ndarray, random: np.random.Generator) -> bytes:
    """Return a JPEG file with a photograph of ``digit``, uint8 [28, 28], bright ink on a dark background.

    It has 250 to 700 pixels a side. The ink is dark, of any colour, a little slanted, and anywhere on whitish paper.
    The light falls from one side, the sensor is noisy, and the camera may have been rotated, which EXIF tells.
    """
    height, width = random.integers(250, 701, 2)
    ink = _write_digit(digit, height, width, random)
    paper_colour = random.uniform(190, 250, 3)
    ink_colour = random.uniform(0, 110, 3)
    light = 1 - _draw_shadow(height, width, random)
    noise = random.normal(0, 6, (height, width, 1))
    page = (paper_colour * (1 - ink) + ink_colour * ink) * light + noise
    picture = Image.fromarray(np.clip(page, 0, 255).astype(np.uint8))

    orientation = int(random.choice([*ROTATIONS]))
    rotation = ROTATIONS[orientation]
    if rotation is not None:
        picture = picture.transpose(rotation)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(random.integers(60, 95)), exif=exif)
    return file.getvalue()


def _write_digit(digit: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Return the share of ink in each pixel of the page, [height, width, 1]."""
    side = int(min(height, width) * random.uniform(0.5, 0.9))
    slant = random.uniform(-0.2, 0.2)
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    matrix = (1, slant, -slant * side / 2, 0, 1, 0)
    large = large.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    top, left = random.integers(0, (height - side + 1, width - side + 1))
    ink = np.zeros((height, width, 1))
    ink[top : top + side, left : left + side, 0] = np.clip((np.asarray(large) / 255 - 0.2) / 0.5, 0, 1)
    return ink


def _draw_shadow(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Return the share of light that is missing, growing from left to right, or from top to bottom."""
    horizontal = np.linspace(0, random.uniform(0, 0.35), width)[:, None]
    if random.random() >= 0.5:
        return horizontal
    return np.linspace(0, random.uniform(0, 0.35), height)[:, None, None]
