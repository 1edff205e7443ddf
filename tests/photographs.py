"""Photographs of handwriting, as a phone takes them: what the models have never seen, made of what they have."""

import io

import numpy as np
from PIL import Image

TURNS = {1: None, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180, 8: Image.Transpose.ROTATE_270}


def photograph(digit: np.ndarray, random: np.random.Generator) -> bytes:
    """Return a JPEG file with the photograph of an image, uint8 [28, 28], ink bright on dark, of MNIST's test set.

    250 to 700 pixels a side; dark ink of any colour, a little slanted, anywhere on whitish paper; the light falls from
    one side; the sensor is noisy, the JPEG lossy. The camera may have been turned: EXIF tells how (tag 274).
    """
    height, width = random.integers(250, 701, 2)
    side = int(min(height, width) * random.uniform(0.5, 0.9))
    slant = random.uniform(-0.2, 0.2)
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    large = large.transform(
        (side, side), Image.Transform.AFFINE, (1, slant, -slant * side / 2, 0, 1, 0), Image.Resampling.BICUBIC
    )
    top, left = random.integers(0, (height - side + 1, width - side + 1))
    ink = np.zeros((height, width, 1))
    ink[top : top + side, left : left + side, 0] = np.clip((np.asarray(large) / 255 - 0.2) / 0.5, 0, 1)

    paper_colour, ink_colour = random.uniform(190, 250, 3), random.uniform(0, 110, 3)
    shadow = np.linspace(0, random.uniform(0, 0.35), width)[:, None]  # from left to right, or from top to bottom
    if random.random() < 0.5:
        shadow = np.linspace(0, random.uniform(0, 0.35), height)[:, None, None]
    seen = (paper_colour * (1 - ink) + ink_colour * ink) * (1 - shadow) + random.normal(0, 6, (height, width, 1))
    picture = Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))

    orientation = random.choice([*TURNS])
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[274] = int(orientation)
    file = io.BytesIO()
    (picture if turn is None else picture.transpose(turn)).save(
        file, "JPEG", quality=int(random.integers(60, 95)), exif=exif
    )
    return file.getvalue()
