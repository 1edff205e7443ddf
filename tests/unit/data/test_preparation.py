from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from pipeline.data.datasets import load_test_split
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import BLANK, UnusableImageError
from pipeline.data.preparation import prepare_image
from support.drawings import (
    INK,
    PAPER,
    draw_page,
    find_centre,
    mean_difference,
    prepare_array,
    prepare_page,
)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Return 100 digits, uint8 [100, 28, 28], bright on dark."""
    return load_test_split("digits", Path("unused")).images[:100, 0].numpy()


def measure_ink(pixels: np.ndarray, threshold: int) -> tuple[int, int]:
    """Return height and width of the pixels that are brighter than ``threshold``."""
    rows, columns = np.nonzero(pixels > threshold)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_bright_on_dark_28x28_stays_unchanged(digits: np.ndarray) -> None:
    for digit in digits:
        prepared = prepare_image(digit, MNIST_FORM)
        assert np.array_equal(prepared.pixels[0], digit)
        assert prepared.changes == ()


def test_dark_on_light_28x28_is_only_inverted(digits: np.ndarray) -> None:
    for digit in digits:
        prepared = prepare_image(255 - digit, MNIST_FORM)
        assert np.array_equal(prepared.pixels[0], digit)
        assert prepared.changes == ("inverted",)


def test_bright_subject_may_fill_the_frame() -> None:
    shirt = np.full((28, 28), 200, np.uint8)
    shirt[:3, :3] = shirt[:3, -3:] = shirt[-3:, :3] = shirt[-3:, -3:] = 0
    assert prepare_image(shirt, MNIST_FORM).changes == ()


NOTCHED_BLOCKS = [((30, 90), (200, 200)), ((120, 60), (300, 150)), ((500, 480), (800, 2000)), ((12, 9), (20, 20))]


def draw_block(block: tuple[int, int], page: tuple[int, int], ink: int, paper: int) -> np.ndarray:
    """Return a block of ink with a notch on a page, both (width, height); its centre of mass is not in its middle."""
    width, height = block
    picture = Image.new("L", page, paper)
    left = (page[0] - width) // 4
    top = (page[1] - height) * 3 // 4
    draw = ImageDraw.Draw(picture)
    draw.rectangle([left, top, left + width - 1, top + height - 1], fill=ink)
    draw.rectangle([left, top, left + width // 2, top + height // 3], fill=paper)
    return np.asarray(picture)


@pytest.mark.parametrize(("block", "page"), NOTCHED_BLOCKS)
@pytest.mark.parametrize(
    ("ink", "paper", "changes"), [(INK, PAPER, ("inverted", "resized")), (PAPER, INK, ("resized",))]
)
def test_ink_is_fitted_and_centred(
    block: tuple[int, int], page: tuple[int, int], ink: int, paper: int, changes: tuple[str, ...]
) -> None:
    prepared = prepare_array(draw_block(block, page, ink, paper))
    width, height = block
    expected_size = (height * 20 / max(block), width * 20 / max(block))
    assert prepared.changes == changes
    assert prepared.pixels.shape == (1, 28, 28)
    assert prepared.pixels.dtype == np.uint8
    assert prepared.pixels.max() == 255
    assert max(measure_ink(prepared.pixels[0], threshold=0)) <= 20
    assert measure_ink(prepared.pixels[0], threshold=100) == pytest.approx(expected_size, abs=1)
    assert find_centre(prepared.pixels[0]) == pytest.approx((14, 14), abs=0.51)


def test_drawing_is_fitted_and_centred_too() -> None:
    pixels = prepare_page()
    assert max(measure_ink(pixels, threshold=0)) == 20
    assert find_centre(pixels) == pytest.approx((14, 14), abs=0.51)


def test_grain_and_shadow_are_removed() -> None:
    shadow = np.linspace(1, 0.6, 240)
    grain = np.random.default_rng(0).normal(0, 10, (180, 240))
    page = np.clip(np.asarray(draw_page()) * shadow + grain, 0, 255)
    pixels = prepare_array(np.rint(page).astype(np.uint8)).pixels[0]
    near_ink = ndimage.binary_dilation(prepare_page() > 0, iterations=2)
    assert mean_difference(pixels, prepare_page()) < 40  # ink in the shadow is a little paler
    assert pixels[~near_ink].max() <= 1


def test_dust_near_ink_is_removed() -> None:
    page = np.asarray(draw_page()).copy()
    page[170:173, 5:8] = INK
    pixels = prepare_array(page).pixels[0]
    assert mean_difference(pixels, prepare_page()) < 4


# --- blank pages ----------------------------------------------------------------------------------------------------


def make_dust() -> np.ndarray:
    page = np.full((200, 300), PAPER, np.uint8)
    page[90:94, 120:124] = INK
    return page


def make_smudge() -> np.ndarray:
    page = np.asarray(draw_page(ink=200, paper=215))
    shadow = np.linspace(0, 30, 240)
    return np.rint(page - shadow).astype(np.uint8)


def make_noise(height: int, width: int, deviation: float) -> np.ndarray:
    values = np.random.default_rng(0).normal(PAPER - 20, deviation, (height, width))
    return np.clip(values, 0, 255).astype(np.uint8)


BLANK_PAGES = {
    "white": np.full((200, 300), 255, np.uint8),
    "black": np.zeros((200, 300), np.uint8),
    "white 28x28": np.full((28, 28), 255, np.uint8),
    "black 28x28": np.zeros((28, 28), np.uint8),
    "faint 28x28": np.arange(784, dtype=np.uint8).reshape(28, 28) % 20,
    "noise": make_noise(200, 300, deviation=8),
    "noise and shadow": make_noise(192, 192, deviation=8) - np.linspace(0, 80, 192).astype(np.uint8),
    "strong noise": make_noise(192, 192, deviation=40),
    "smudge in a shadow": make_smudge(),
    "dust": make_dust(),
    "bright dust": 255 - make_dust(),
}


@pytest.mark.parametrize("name", BLANK_PAGES)
def test_blank_page_is_refused(name: str) -> None:
    with pytest.raises(UnusableImageError) as refused:
        prepare_array(BLANK_PAGES[name])
    assert refused.value.problem == BLANK
