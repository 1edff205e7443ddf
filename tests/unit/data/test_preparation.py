from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage
from sklearn.datasets import load_digits

from pipeline.data.datasets import load_test_split
from pipeline.data.forms import MNIST_FORM, InkForm
from pipeline.data.images import BLANK, UnusableImageError
from pipeline.data.ink import SEVERAL_THINGS
from pipeline.data.preparation import prepare_image
from pipeline.data.strokes import measure_stroke_widths
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
    assert prepare_image(shirt, InkForm((1, 28, 28), 28, "box", 0.0)).changes == ()


def test_28x28_picture_without_the_form_is_prepared(digits: np.ndarray) -> None:
    small = np.zeros((28, 28), np.uint8)
    small[1:15, 2:16] = np.asarray(Image.fromarray(digits[0]).resize((14, 14), Image.Resampling.BOX))
    prepared = prepare_image(255 - small, MNIST_FORM)
    assert prepared.changes == ("inverted", "resized")
    assert max(measure_ink(prepared.pixels[0], threshold=0)) == 20
    assert find_centre(prepared.pixels[0]) == pytest.approx((14, 14), abs=0.51)


# --- strokes, sheets, and what else is on a picture -------------------------------------------------------------------


def draw_seven(size: tuple[int, int], height: int, pen: int, ink: int = INK) -> Image.Image:
    """Return a 7 in the middle of a page of (width, height)."""
    page = Image.new("L", size, PAPER)
    left, top = (size[0] - height // 2) // 2, (size[1] - height) // 2
    points = [(left, top), (left + height // 2, top), (left + height // 5, top + height)]
    ImageDraw.Draw(page).line(points, fill=ink, width=pen, joint="curve")
    return page


def add_grain(page: Image.Image, deviation: float = 3) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, deviation, (page.height, page.width))
    return np.clip(np.asarray(page) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("pen", [1, 2, 4])
def test_thin_strokes_become_as_wide_as_those_of_the_training_images(pen: int) -> None:
    pixels = prepare_array(np.asarray(draw_seven((192, 192), 150, pen))).pixels[0]
    assert measure_stroke_widths(pixels[None])[0] == pytest.approx(MNIST_FORM.stroke, abs=0.35)


def test_thin_pen_on_a_large_sheet_is_read() -> None:
    sheet = draw_seven((3000, 4000), 400, 12)
    pixels = prepare_array(add_grain(sheet)).pixels[0]
    assert max(measure_ink(pixels, threshold=0)) == 20
    assert (
        np.corrcoef(pixels.ravel(), prepare_array(np.asarray(draw_seven((192, 192), 150, 6))).pixels.ravel())[0, 1]
        > 0.8
    )


def test_legible_digit_may_touch_the_frame() -> None:
    scans = load_digits().images
    for scan in scans[:300]:
        large = Image.fromarray((255 - scan * 255 / 16).astype(np.uint8)).resize((160, 160), Image.Resampling.BICUBIC)
        pixels = prepare_array(np.asarray(large)).pixels[0]
        assert max(measure_ink(pixels, threshold=0)) == 20


def draw_table() -> Image.Image:
    table = Image.new("L", (240, 180), 60)
    table.paste(draw_seven((130, 120), 80, 6), (60, 30))
    return table


def draw_edge_of_a_table() -> Image.Image:
    page = draw_seven((240, 180), 110, 8)
    ImageDraw.Draw(page).rectangle([225, 0, 240, 180], fill=50)
    return page


def draw_corner_of_a_table() -> Image.Image:
    page = draw_seven((240, 180), 110, 8)
    ImageDraw.Draw(page).polygon([(0, 0), (80, 0), (0, 60)], fill=50)
    return page


@pytest.mark.parametrize("draw", [draw_table, draw_edge_of_a_table, draw_corner_of_a_table])
def test_table_is_no_ink(draw: Callable[[], Image.Image]) -> None:
    expected = prepare_array(add_grain(draw_seven((240, 180), 110, 8))).pixels[0]
    pixels = prepare_array(add_grain(draw())).pixels[0]
    assert max(measure_ink(pixels, threshold=0)) == 20
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.85


def test_stroke_of_a_neighbour_that_the_frame_cuts_is_no_ink() -> None:
    page = draw_seven((240, 180), 110, 8)
    alone = prepare_array(np.asarray(page))
    ImageDraw.Draw(page).line([(232, 60), (245, 120)], fill=INK, width=8)
    prepared = prepare_array(np.asarray(page))
    assert np.array_equal(prepared.pixels, alone.pixels)
    assert prepared.remarks == ()


def test_several_things_are_remarked() -> None:
    page = Image.new("L", (400, 180), PAPER)
    page.paste(draw_seven((200, 180), 110, 8), (0, 0))
    page.paste(draw_seven((200, 180), 110, 8), (200, 0))
    assert prepare_array(np.asarray(page)).remarks == (SEVERAL_THINGS,)


def test_parts_of_one_thing_are_not_remarked() -> None:
    page = draw_seven((200, 180), 110, 8)
    ImageDraw.Draw(page).line([(80, 95), (120, 95)], fill=INK, width=8)
    ImageDraw.Draw(page).line([(75, 22), (125, 22)], fill=INK, width=6)
    assert prepare_array(np.asarray(page)).remarks == ()


REFUSALS = {
    "too faint: its grey levels reach from": np.asarray(draw_seven((200, 200), 120, 9, ink=PAPER - 15)),
    "too faint: nothing on it is clearly darker": add_grain(draw_seven((200, 200), 120, 9, ink=PAPER - 15)),
    "too small: there is only dust on it": np.asarray(draw_seven((200, 200), 5, 2)),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusal_has_its_reason(reason: str) -> None:
    with pytest.raises(UnusableImageError, match=f"^{reason}"):
        prepare_array(REFUSALS[reason])


def test_scene_is_refused_as_no_plain_paper() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 12), np.uint8)
    scene = np.asarray(Image.fromarray(noise).resize((192, 192), Image.Resampling.BICUBIC))
    with pytest.raises(UnusableImageError, match="no plain paper around the ink; prepare such pictures as photos"):
        prepare_array(scene)


# --- placement --------------------------------------------------------------------------------------------------------


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
