"""Ten digits, drawn with the mouse on the pad of the page."""

import math

from playwright.sync_api import Page

Stroke = list[tuple[float, float]]  # points in shares of the paper's width and height


def arc(x: float, y: float, width: float, height: float, start: float, end: float) -> Stroke:
    """Return a part of an ellipse: its centre, its half axes, and angles in degrees, clockwise from the top."""
    angles = [math.radians(start + (end - start) * step / 20) for step in range(21)]
    return [(x + width * math.sin(angle), y - height * math.cos(angle)) for angle in angles]


DIGITS: dict[str, list[Stroke]] = {
    "0": [arc(0.5, 0.5, 0.18, 0.28, 0, 360)],
    "1": [[(0.52, 0.2), (0.48, 0.8)]],
    "2": [[*arc(0.5, 0.36, 0.17, 0.15, -70, 120), (0.32, 0.78), (0.7, 0.78)]],
    "3": [arc(0.48, 0.35, 0.16, 0.14, -60, 180), arc(0.48, 0.64, 0.19, 0.15, 0, 240)],
    "4": [[(0.38, 0.2), (0.32, 0.52), (0.7, 0.52)], [(0.62, 0.25), (0.6, 0.82)]],
    "5": [[(0.68, 0.2), (0.4, 0.2), (0.38, 0.46), *arc(0.48, 0.61, 0.18, 0.18, -20, 230)]],
    "6": [[(0.6, 0.18), (0.42, 0.4), *arc(0.5, 0.64, 0.16, 0.16, -80, 280)]],
    "7": [[(0.3, 0.22), (0.7, 0.22), (0.48, 0.8)]],
    "8": [arc(0.5, 0.35, 0.13, 0.15, 180, -180), arc(0.5, 0.66, 0.16, 0.16, 0, 360)],
    "9": [[*arc(0.5, 0.36, 0.15, 0.15, 80, -280), (0.6, 0.82)]],
}


def draw(page: Page, strokes: list[Stroke]) -> None:
    """Draw with the mouse on the paper, a square in the middle of the pad."""
    box = page.locator("#pad canvas").first.bounding_box()
    assert box is not None
    side = 0.8 * min(box["width"], box["height"])
    x_start = box["x"] + (box["width"] - side) / 2
    y_start = box["y"] + (box["height"] - side) / 2
    for stroke in strokes:
        (x, y), *others = [(x_start + side * x, y_start + side * y) for x, y in stroke]
        page.mouse.move(x, y)
        page.mouse.down()
        for x, y in others:
            page.mouse.move(x, y, steps=2)
        page.mouse.up()
