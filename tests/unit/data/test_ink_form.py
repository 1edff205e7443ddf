"""The form of ink: measured on images, and recognised."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.data.forms import InkForm
from pipeline.data.ink_form import has_form, measure_ink_form

MNIST_LIKE = InkForm((1, 28, 28), 20, "mass", 2.0)


def draw_bars(height: int, width: int, size: int, *, middle: tuple[float, float]) -> np.ndarray:
    """Return an upright bar, white on black, uint8 [size, size], its middle at (row, column)."""
    pixels = np.zeros((size, size), np.uint8)
    top, left = round(middle[0] - height / 2), round(middle[1] - width / 2)
    pixels[top : top + height, left : left + width] = 255
    return pixels


def draw_flag(top: int, left: int) -> np.ndarray:
    """Return a pole of 20x2 pixels with a flag of 6x10 at its upper end: its mass is above the middle of its box."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[top : top + 20, left : left + 2] = 255
    pixels[top : top + 6, left : left + 10] = 255
    return pixels


def test_box_and_stroke_width_are_measured() -> None:
    bars = np.stack([draw_bars(20, width, 28, middle=(14, 14)) for width in (2, 2, 2, 2, 2, 2, 2, 2, 4, 4)])
    form = measure_ink_form(bars[:, None])
    assert (form.shape, form.box) == ((1, 28, 28), 20)
    # A bar of 20x2 has an area of 40 and edges of 44 pixels: 2 * 40 / 44, less the diagonal at a corner.
    assert form.stroke == pytest.approx(1.8, abs=0.1)


def test_larger_images_have_a_larger_box() -> None:
    bars = np.stack([draw_bars(60, 6, 64, middle=(32, 32))] * 5)
    assert measure_ink_form(bars[:, None]).box == 60


def test_one_image_in_a_hundred_does_not_change_the_box() -> None:
    bars = [draw_bars(20, 2, 28, middle=(14, 14))] * 399 + [draw_bars(28, 2, 28, middle=(14, 14))]
    assert measure_ink_form(np.stack(bars)[:, None]).box == 20


@pytest.mark.parametrize("centring", ["mass", "box"])
def test_centring_is_measured(centring: str) -> None:
    images = []
    for shape in range(12):
        flag = ndimage.rotate(draw_flag(4, 9), 90 * shape, reshape=False, order=0)
        if centring == "mass":
            offset = np.rint(np.array([13.5, 13.5]) - ndimage.center_of_mass(flag)).astype(int)
        else:
            rows, columns = np.nonzero(flag)
            offset = np.array([14 - (rows.min() + rows.max() + 1) // 2, 14 - (columns.min() + columns.max() + 1) // 2])
        images.append(np.roll(flag, offset, (0, 1)))
    assert measure_ink_form(np.stack(images)[:, None]).centring == centring


def test_images_of_different_widths_have_no_strokes() -> None:
    widths = (2, 3, 6, 9, 12, 16)
    blocks = np.stack([draw_bars(20, width, 28, middle=(14, 14)) for width in widths * 5])
    assert measure_ink_form(blocks[:, None]).stroke == 0


def test_black_images_give_the_whole_frame() -> None:
    assert measure_ink_form(np.zeros((3, 1, 20, 24), np.uint8)) == InkForm((1, 20, 24), 20)


def test_image_in_place_has_the_form() -> None:
    assert has_form(draw_bars(20, 3, 28, middle=(14, 14)), MNIST_LIKE)


def test_noise_of_jpeg_does_not_matter() -> None:
    noise = np.random.default_rng(0).integers(0, 12, (28, 28), np.uint8)
    assert has_form(np.maximum(draw_bars(20, 3, 28, middle=(14, 14)), noise), MNIST_LIKE)


@pytest.mark.parametrize(
    "bright",
    [
        draw_bars(12, 3, 28, middle=(14, 14)),  # too small
        draw_bars(26, 3, 28, middle=(14, 14)),  # too large
        draw_bars(20, 3, 28, middle=(14, 6)),  # at one side
        draw_bars(20, 3, 28, middle=(14, 14)) // 2,  # white is not reached
        np.maximum(draw_bars(20, 3, 28, middle=(14, 14)), 60),  # the paper is not black
    ],
)
def test_other_image_has_not_the_form(bright: np.ndarray) -> None:
    assert not has_form(bright, MNIST_LIKE)
