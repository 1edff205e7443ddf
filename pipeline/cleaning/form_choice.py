"""Choose the form into which a source's pictures are prepared, by what some of them look like, and say why.

It does not import PyTorch, so that a worker process starts at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.cleaning.raw_images import RawImage
from pipeline.data.forms import INK, MNIST_FORM, PHOTO, Form, InkForm, PhotoForm
from pipeline.data.images import MAX_MEMORY, UnusableImageError
from pipeline.data.paper import has_plain_paper, is_dark_on_light
from pipeline.data.parallel import parallel_map
from pipeline.data.preparation import measure_form
from pipeline.data.sampling import choose_evenly

SAMPLE_SIZE = 200  # pictures, evenly spaced, that decide
MEASURED_SIZE = 2_000  # images of one size, evenly spaced, whose form is measured
INSPECTED_FORM = PhotoForm((3, 64, 64))  # as which the sample is read: in colour, reduced
MIN_COMMON_SIDE, MAX_COMMON_SIDE = 8, 64  # pixels; images of one size between these keep it
PHOTO_SIDE = 64  # pixels of a photo if the pictures are larger, or of different sizes
MIN_COLOUR = 24  # grey levels between the channels of a pixel that is no grey one
MIN_COLOUR_SHARE = 0.01  # of the pixels of a picture that is no grey one
MIN_COLOUR_PICTURES = 0.05  # of the sample: from then on the colours are kept

Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class FormOptions:
    """What a person has chosen; None where the pictures decide.

    Attributes
    ----------
    kind : "ink" or "photo".
    size : height and width of an image, in pixels.
    channels : 1 or 3.
    """

    kind: str | None = None
    size: Size | None = None
    channels: int | None = None


@dataclass(frozen=True)
class FormChoice:
    """A form, and in one line what was chosen, why, and how to choose otherwise."""

    form: Form
    reason: str


@dataclass(frozen=True)
class _Sample:
    """What the readable pictures of the sample look like.

    Attributes
    ----------
    count : how many they are.
    with_paper : how many have plain paper.
    with_colour : how many have colours.
    size : the height and width that most of them have; None if no size is that common, or no side may be that long.
    with_size : how many have this size.
    """

    count: int
    with_paper: int
    with_colour: int
    size: Size | None
    with_size: int


@dataclass(frozen=True)
class _Look:
    size: Size
    has_paper: bool
    has_colour: bool


def choose_form(images: Sequence[RawImage], options: FormOptions) -> FormChoice:
    """Return the form of the data set: as the options say, else as a fixed sample of the pictures suggests.

    Pictures are ink if most of the sample have plain paper, else photos; photos keep their colours if there are any.
    The size is that of most pictures if it is at most 64x64. Else ink has MNIST's size, and a photo has 64x64 pixels.
    The form of ink of one size is measured on the images of that size, so that they stay as they are.
    """
    sample = _inspect(images)
    suggested = INK if 2 * sample.with_paper >= sample.count else PHOTO
    kind = options.kind or suggested
    if kind == PHOTO:
        form: Form = _choose_photo_form(sample, options)
    else:
        form = _choose_ink_form(images, sample, options)
    return FormChoice(form, _explain(form, sample, options))


def _inspect(images: Sequence[RawImage]) -> _Sample:
    chosen = [images[index] for index in choose_evenly(len(images), SAMPLE_SIZE)]
    item_size = max((image.content.nbytes for image in chosen if isinstance(image.content, np.ndarray)), default=0)
    results = parallel_map(_look, chosen, memory=MAX_MEMORY, item_size=item_size)
    looks = [look for look in results if look is not None]
    size, with_size = _find_common_size([look.size for look in looks])
    with_paper = sum(look.has_paper for look in looks)
    with_colour = sum(look.has_colour for look in looks)
    return _Sample(len(looks), with_paper, with_colour, size, with_size)


def _find_common_size(sizes: Sequence[Size]) -> tuple[Size | None, int]:
    """Return the size that most pictures have, and how many; None if there is none, or it is a large one."""
    for size, count in Counter(sizes).most_common(1):
        if 2 * count > len(sizes) and MIN_COMMON_SIDE <= min(size) <= max(size) <= MAX_COMMON_SIDE:
            return size, count
    return None, 0


def _look(image: RawImage) -> _Look | None:
    """Return what a picture looks like; None if it cannot be read."""
    try:
        colours = image.read(INSPECTED_FORM)
    except UnusableImageError:
        return None
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    spread = colours.max(axis=2) - colours.min(axis=2)
    has_colour = bool((spread >= MIN_COLOUR).mean() >= MIN_COLOUR_SHARE)
    height, width = grey.shape
    return _Look((height, width), has_plain_paper(grey), has_colour)


def _has_colours(sample: _Sample) -> bool:
    return sample.with_colour > 0 and sample.with_colour >= MIN_COLOUR_PICTURES * sample.count


def _choose_photo_form(sample: _Sample, options: FormOptions) -> PhotoForm:
    height, width = options.size or sample.size or (PHOTO_SIDE, PHOTO_SIDE)
    channels = options.channels or (3 if _has_colours(sample) else 1)
    return PhotoForm((channels, height, width))


def _choose_ink_form(images: Sequence[RawImage], sample: _Sample, options: FormOptions) -> Form:
    size = options.size or sample.size or MNIST_FORM.shape[1:]
    if size == sample.size:
        return measure_form(_read_bright(images, size), INK)
    box = round(min(size) * MNIST_FORM.box / MNIST_FORM.shape[1])
    return InkForm((1, *size), max(1, box))


def _read_bright(images: Sequence[RawImage], size: Size) -> np.ndarray:
    """Return images of one size with bright ink, uint8 [N, 1, height, width]; those of another size are left out."""
    pixels = []
    for index in choose_evenly(len(images), MEASURED_SIZE):
        try:
            grey = images[index].read(MNIST_FORM)
        except UnusableImageError:
            continue
        if grey.shape != size or grey.max() == grey.min():
            continue
        pixels.append(255 - grey if is_dark_on_light(grey) else grey)
    return np.stack(pixels)[:, None] if pixels else np.zeros((1, 1, *size), np.uint8)


# --- for people -----------------------------------------------------------------------------------------------------


def _explain(form: Form, sample: _Sample, options: FormOptions) -> str:
    channels, height, width = form.shape
    named = f"{form.kind}, {height}x{width}, {channels} channel{'s' if channels > 1 else ''}"
    reasons = ["--as says so"] if options.kind else [_explain_kind(form, sample)]
    if form.kind == INK and _has_colours(sample):
        reasons.append(f"{sample.with_colour:,} have colours, which become grey")
    if options.size is None and sample.size:
        reasons.append(f"{sample.with_size:,} have this size")
    other = PHOTO if form.kind == INK else INK
    other_channels = "3" if other == PHOTO else "1"
    return (
        f"prepared as {named}: {', '.join(reasons)}; "
        f"choose otherwise with --as {other} --size N --channels {other_channels}"
    )


def _explain_kind(form: Form, sample: _Sample) -> str:
    if not sample.count:
        return "no picture of the sample can be read"
    if form.kind == INK:
        return f"{sample.with_paper:,} of {sample.count:,} sampled pictures have plain paper"
    return f"{sample.count - sample.with_paper:,} of {sample.count:,} sampled pictures have no plain paper"
