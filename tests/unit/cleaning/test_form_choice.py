"""Which form is chosen for which pictures, and what is said about it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.cleaning.form_choice import FormOptions, choose_form
from pipeline.cleaning.raw_images import RawImage
from pipeline.data.datasets import load_splits
from pipeline.data.forms import MNIST_FORM, PhotoForm
from pipeline.data.preparation import measure_form, prepare_image

RANDOM = np.random.default_rng(0)


def list_images(pictures: Sequence[np.ndarray]) -> list[RawImage]:
    return [RawImage(f"x[{index}]", str(index % 2), "", picture, 255) for index, picture in enumerate(pictures)]


def draw_scenes(count: int, height: int, width: int) -> list[np.ndarray]:
    """Return pictures of coloured patches up to the edge, uint8 [height, width, 3]."""
    scenes = []
    for _ in range(count):
        patches = RANDOM.integers(0, 256, (12, 12, 3), np.uint8)
        scenes.append(np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.NEAREST)))
    return scenes


def draw_pages(count: int, colour: tuple[int, int, int], height: int = 200, width: int = 150) -> list[np.ndarray]:
    """Return pictures of a stroke on white paper, uint8 [height, width, 3]."""
    pages = []
    for index in range(count):
        page = Image.new("RGB", (width, height), (240, 240, 240))
        ImageDraw.Draw(page).line((40 + index % 9, 60, 100, 150), colour, 9)
        pages.append(np.asarray(page))
    return pages


def make_grey(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(Image.fromarray(picture).convert("L")) for picture in pictures]


def test_pictures_on_paper_are_ink() -> None:
    choice = choose_form(list_images(draw_pages(9, (20, 20, 20)) + make_grey(draw_scenes(3, 150, 150))), FormOptions())
    assert (choice.form.kind, choice.form.shape) == ("ink", (1, 28, 28))
    assert choice.reason == (
        "prepared as ink, 28x28, 1 channel: 9 of 12 sampled pictures have plain paper; "
        "choose otherwise with --as photo --size N --channels 3"
    )


def test_other_pictures_are_colour_photos() -> None:
    choice = choose_form(list_images(draw_scenes(9, 90, 120) + draw_pages(3, (20, 20, 20))), FormOptions())
    assert choice.form == PhotoForm((3, 64, 64))
    assert choice.reason == (
        "prepared as photo, 64x64, 3 channels: 9 of 12 sampled pictures have no plain paper; "
        "choose otherwise with --as ink --size N --channels 1"
    )


def test_photos_without_colour_have_one_channel() -> None:
    assert choose_form(list_images(make_grey(draw_scenes(9, 90, 120))), FormOptions()).form == PhotoForm((1, 64, 64))


def test_few_colours_are_enough() -> None:
    pictures = make_grey(draw_scenes(18, 90, 120)) + draw_scenes(2, 90, 120)
    assert choose_form(list_images(pictures), FormOptions()).form == PhotoForm((3, 64, 64))


@pytest.mark.parametrize(("height", "width", "shape"), [(32, 48, (3, 32, 48)), (65, 65, (3, 64, 64))])
def test_small_photos_of_one_size_keep_it(height: int, width: int, shape: tuple[int, int, int]) -> None:
    choice = choose_form(list_images(draw_scenes(9, height, width)), FormOptions())
    assert choice.form == PhotoForm(shape)
    assert ("9 have this size" in choice.reason) == (height < 64)


def test_colours_that_get_lost_are_named() -> None:
    choice = choose_form(list_images(draw_pages(9, (250, 30, 30))), FormOptions())
    assert choice.form.kind == "ink"
    assert "9 of 9 sampled pictures have plain paper, 9 have colours, which become grey; choose" in choice.reason


def test_options_go_before_the_pictures() -> None:
    images = list_images(draw_scenes(9, 90, 120))
    photo = choose_form(images, FormOptions("photo", (48, 96), 1))
    assert photo.form == PhotoForm((1, 48, 96))
    assert photo.reason.startswith("prepared as photo, 48x96, 1 channel: --as says so; ")
    ink = choose_form(images, FormOptions("ink", (56, 84)))
    assert (ink.form.kind, ink.form.shape, getattr(ink.form, "box", 0)) == ("ink", (1, 56, 84), 40)


def test_unreadable_pictures_decide_nothing(tmp_path: Path) -> None:
    images = [RawImage(f"{index}.png", "a", "", tmp_path / "gone.png") for index in range(3)]
    assert choose_form(images, FormOptions()).form == MNIST_FORM
    scenes = list_images(draw_scenes(2, 90, 120))
    assert choose_form(images + scenes, FormOptions()).form == PhotoForm((3, 64, 64))


@pytest.mark.parametrize("is_dark", [False, True])
def test_ink_of_one_size_stays_as_it_is(is_dark: bool) -> None:
    images = load_splits("digits", Path()).train.images[:300]
    pixels = images[:, 0].numpy()
    choice = choose_form(list_images(list(255 - pixels if is_dark else pixels)), FormOptions())
    assert choice.form == measure_form(images.numpy(), "ink")
    for image in pixels[:50]:
        assert np.array_equal(prepare_image(image, choice.form).pixels[0], image)
