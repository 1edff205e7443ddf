"""A drawing to prepare, its files, and how alike two prepared images are."""

import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import convert_image
from pipeline.data.preparation import PreparedImage, prepare_image, read_picture

INK = 20
PAPER = 235
PAGE_SIZE = (240, 180)  # width, height


def draw_page(ink: int = INK, paper: int = PAPER) -> Image.Image:
    """Return a 7 with a flag, not in the middle of its page: no two of its eight orientations are equal."""
    page = Image.new("L", PAGE_SIZE, paper)
    points = [(110, 60), (105, 40), (180, 40), (140, 150)]
    ImageDraw.Draw(page).line(points, fill=ink, width=14, joint="curve")
    return page


def encode_picture(picture: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the content of a file with ``picture``; ``options`` are those of Pillow's ``save``."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def prepare_file(content: bytes) -> np.ndarray:
    """Return the prepared pixels of the picture in a file's ``content``."""
    return np.asarray(prepare_image(read_picture(io.BytesIO(content), MNIST_FORM), MNIST_FORM).pixels[0])


def prepare_array(grey: np.ndarray) -> PreparedImage:
    """Return the picture with these grey levels, uint8 [height, width], prepared as a file with it would be."""
    return prepare_image(convert_image(Image.fromarray(grey)), MNIST_FORM)


def prepare_page() -> np.ndarray:
    """Return the prepared pixels of `draw_page`."""
    return prepare_file(encode_picture(draw_page(), "PNG"))


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return by how many grey levels two images differ, on average over the pixels with ink."""
    has_ink = (first > 0) | (second > 0)
    return float(np.abs(first.astype(float) - second)[has_ink].mean())


def find_centre(pixels: np.ndarray) -> tuple[float, float]:
    """Return row and column of the centre of mass."""
    row, column = ndimage.center_of_mass(pixels.astype(float))
    return float(row), float(column)


def correlate_images(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how alike images are, [first, second]: the correlation of their pixels, blurred by one pixel."""
    return np.asarray(_normalize_images(first) @ _normalize_images(second).T)


def _normalize_images(images: np.ndarray) -> np.ndarray:
    blurred = ndimage.gaussian_filter(images.astype(float), (0, 1, 1)).reshape(len(images), -1)
    centred = blurred - blurred.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True))
