"""The width of strokes, measured and widened."""

import numpy as np
import pytest

from pipeline.data.strokes import fit_into_box, measure_stroke_widths, widen_strokes

BOX = 20


def draw_line(width: float) -> np.ndarray:
    """Return a slanted line of ink, float32, cropped to it, 160 pixels high and more; its edge is soft."""
    rows, columns = np.mgrid[:400, :400]
    along = np.clip(((rows - 120) * 160 + (columns - 120) * 80) / (160**2 + 80**2), 0, 1)
    distance = np.hypot(rows - 120 - 160 * along, columns - 120 - 80 * along)
    ink = (255 * np.clip(width / 2 + 0.5 - distance, 0, 1)).astype(np.float32)
    rows, columns = np.nonzero(ink)
    cropped: np.ndarray = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return cropped


@pytest.mark.parametrize("width", [6, 12, 20])
def test_width_is_measured(width: int) -> None:
    # The two round ends are edge, too: the mean width is a little smaller.
    assert measure_stroke_widths(draw_line(width)[None])[0] == pytest.approx(width, rel=0.1)


def test_width_in_the_box_is_the_width_in_proportion() -> None:
    line = draw_line(20)
    small = fit_into_box(line, BOX)
    assert max(small.shape) == BOX
    assert measure_stroke_widths(small[None])[0] == pytest.approx(20 * BOX / max(line.shape), rel=0.15)


def test_page_without_ink_has_no_width() -> None:
    assert measure_stroke_widths(np.zeros((2, 28, 28)))[1] == 0


@pytest.mark.parametrize("width", [2, 6, 10])
def test_thin_strokes_get_the_width(width: int) -> None:
    widened = fit_into_box(widen_strokes(draw_line(width), 0.1), BOX)
    assert measure_stroke_widths(widened[None])[0] == pytest.approx(2.0, abs=0.2)


def test_wide_strokes_stay_as_they_are() -> None:
    ink = draw_line(24)
    assert widen_strokes(ink, 0.1) is ink


def test_small_ink_is_widened_by_a_part_of_a_pixel() -> None:
    ink = np.zeros((18, 9), np.float32)
    for row in range(18):
        ink[row, row // 2] = 255
    widened = fit_into_box(widen_strokes(ink, 0.09), BOX)
    assert measure_stroke_widths(widened[None])[0] == pytest.approx(1.8, abs=0.25)
