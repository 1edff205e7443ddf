"""The paper on a picture: plain or not, and the sheet on a table."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.data.paper import find_sheet, has_plain_paper

PAPER, INK, TABLE = 225, 30, 60


def draw_seven(size: tuple[int, int]) -> Image.Image:
    """Return a 7 in the middle of a sheet of (width, height)."""
    width, height = size
    sheet = Image.new("L", size, PAPER)
    points = [(0.35, 0.25), (0.65, 0.25), (0.45, 0.75)]
    ImageDraw.Draw(sheet).line([(x * width, y * height) for x, y in points], fill=INK, width=5, joint="curve")
    return sheet


def add_noise(picture: Image.Image, deviation: float = 4) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, (picture.height, picture.width))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def draw_scene() -> np.ndarray:
    """Return a smooth random picture: nothing on it is plain."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((192, 144), Image.Resampling.BICUBIC))


def test_ink_on_lit_paper_is_plain() -> None:
    page = np.asarray(draw_seven((192, 144))) * np.linspace(1, 0.6, 192)
    assert has_plain_paper(page.astype(np.uint8))
    assert has_plain_paper(255 - page.astype(np.uint8))


def test_scene_is_not_plain() -> None:
    assert not has_plain_paper(draw_scene())


@pytest.mark.parametrize("angle", [0, 8, 20])
def test_sheet_on_a_table_is_found(angle: int) -> None:
    table = Image.new("L", (192, 144), TABLE)
    sheet = draw_seven((100, 80))
    mask = Image.new("L", sheet.size, 255).rotate(angle, expand=True)
    turned = sheet.rotate(angle, expand=True, resample=Image.Resampling.BILINEAR)
    table.paste(turned, (35, 12), mask)
    found = find_sheet(add_noise(table))
    assert found is not None
    height, width = found.shape
    assert height == pytest.approx(turned.height, abs=10)
    assert width == pytest.approx(turned.width, abs=10)
    frame = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
    assert np.abs(frame.astype(int) - PAPER).max() < 30
    assert found.min() < 60


def draw_white_on_black(text: str) -> np.ndarray:
    page = Image.new("L", (160, 160))
    draw = ImageDraw.Draw(page)
    if text == "0":
        draw.ellipse([30, 10, 130, 150], fill=255)
        draw.ellipse([60, 50, 100, 110], fill=0)
    elif text == "1":
        draw.rectangle([60, 10, 110, 150], fill=255)
    else:
        draw.ellipse([30, 60, 130, 150], fill=255)
        draw.rectangle([30, 10, 70, 110], fill=255)
        draw.ellipse([70, 95, 95, 120], fill=0)
    return np.asarray(page)


@pytest.mark.parametrize("digit", ["0", "1", "6"])
def test_white_digit_is_no_sheet(digit: str) -> None:
    assert find_sheet(draw_white_on_black(digit)) is None


def test_page_without_a_table_has_no_sheet_to_find() -> None:
    assert find_sheet(add_noise(draw_seven((192, 144)))) is None
    assert find_sheet(np.full((100, 100), PAPER, np.uint8)) is None
    assert find_sheet(draw_scene()) is None
