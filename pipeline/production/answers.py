"""Answer a picture with a loaded model, in words and pictures for a page."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline.data.images import UnusableImageError
from pipeline.data.preparation import arrange_for_display, prepare_image, read_picture
from pipeline.evaluation.doubts import list_doubts
from pipeline.evaluation.inference import compute_probabilities
from pipeline.production.service import LoadedModel
from pipeline.text import escape_markdown

INVITATION = "Draw something, or drop a picture."
SHOWN_SIDE = 140  # pixels of the longer side of a picture on the page


class Answer(NamedTuple):
    """What the page shows.

    Attributes
    ----------
    probabilities : by class name; None if there is no answer.
    pictures : HTML of the picture as it came and as the model got it; empty if there is none.
    message : a line of Markdown.
    """

    probabilities: dict[str, float] | None
    pictures: str
    message: str


def answer_drawing(model: LoadedModel, drawing: Path | io.BytesIO | None) -> Answer:
    """Return the answer to a drawing; an empty one is answered with an invitation. The drawing is not shown again."""
    if drawing is None:
        return Answer(None, "", INVITATION)
    try:
        picture = read_picture(drawing, model.stored.form)
        if picture.min() == picture.max():
            return Answer(None, "", INVITATION)
        return _ask(model, picture, shown=[])
    except UnusableImageError as error:
        return _refuse(error, shown=[])


def answer_file(model: LoadedModel, file: Path) -> Answer:
    """Return the answer to a file; its picture is shown, also if the model cannot be asked about it."""
    shown: list[str] = []
    try:
        picture = read_picture(file, model.stored.form)
        shown.append(_format_figure(_reduce(picture), "your picture"))
        return _ask(model, picture, shown)
    except UnusableImageError as error:
        return _refuse(error, shown)


def _ask(model: LoadedModel, picture: np.ndarray, shown: list[str]) -> Answer:
    stored = model.stored
    prepared = prepare_image(picture, stored.form)
    batch = torch.from_numpy(prepared.pixels)[None]
    probabilities = compute_probabilities(stored.module, batch, device=torch.device("cpu"))[0]
    best = int(probabilities.argmax())
    name = escape_markdown(stored.classes[best])
    message = f"### It looks like {name} ({probabilities[best]:.1%})"
    message += f"\n\nVersion {model.version} says so."
    for doubt in list_doubts(probabilities, prepared.remarks):
        message += f"\n\n{escape_markdown(doubt.capitalize())}."
    probability_by_class = dict(zip(stored.classes, probabilities.tolist(), strict=True))
    pixels = arrange_for_display(prepared.pixels)
    return Answer(probability_by_class, _join([*shown, _format_figure(pixels, "what the model saw")]), message)


def _refuse(error: UnusableImageError, shown: list[str]) -> Answer:
    return Answer(None, _join(shown), f"This cannot be read: {escape_markdown(str(error))}.")


def _reduce(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((2 * SHOWN_SIDE, 2 * SHOWN_SIDE))  # sharp on a screen with two pixels for one
    return np.asarray(image)


def _format_figure(picture: np.ndarray, caption: str) -> str:
    """Return HTML with a picture in it, which is in no file; uint8 [height, width] or [height, width, 3]."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    height, width = picture.shape[:2]
    scale = SHOWN_SIDE / max(height, width)
    rendering = "pixelated" if scale > 1 else "auto"
    style = f"width: {width * scale:.0f}px; height: {height * scale:.0f}px; image-rendering: {rendering}"
    image = f'<img alt="{caption}" style="{style}" src="data:image/png;base64,{content}">'
    return f'<figure style="margin: 0"><figcaption>{caption}</figcaption>{image}</figure>'


def _join(figures: list[str]) -> str:
    if not figures:
        return ""
    return f'<div style="display: flex; flex-wrap: wrap; gap: 16px">{"".join(figures)}</div>'
