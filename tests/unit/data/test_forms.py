from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.data.forms import MNIST_FORM, Form, InkForm, PhotoForm, describe_form, parse_form
from pipeline.data.preparation import measure_form, prepare_image

INK_FORM = InkForm((1, 32, 48), 24)
INK_DESCRIPTION = {"kind": "ink", "box": 20}


@pytest.mark.parametrize("form", [MNIST_FORM, INK_FORM, PhotoForm((3, 64, 64)), PhotoForm((1, 28, 28))])
def test_form_is_read_from_its_description(form: Form) -> None:
    assert parse_form(form.shape, describe_form(form)) == form


def test_models_of_earlier_releases_have_the_form_of_mnist() -> None:
    assert parse_form((1, 28, 28), "ink") == MNIST_FORM


@pytest.mark.parametrize(
    ("shape", "description"),
    [
        ((1, 28, 28), "theirs"),
        ((1, 28, 28), {}),
        ((1, 28, 28), {"kind": "theirs"}),
        ((1, 28, 28), INK_DESCRIPTION | {"box": 29}),
        ((1, 28, 28), INK_DESCRIPTION | {"box": 0}),
        ((1, 28, 28), INK_DESCRIPTION | {"box": "20"}),
        ((1, 28, 28), INK_DESCRIPTION | {"box": b"20"}),
        ((1, 28, 28), INK_DESCRIPTION | {"centring": "eye"}),
        ((1, 28, 28), INK_DESCRIPTION | {"stroke_width": float("nan")}),
        ((1, 28, 28), INK_DESCRIPTION | {"more": 1}),
        ((3, 28, 28), INK_DESCRIPTION),
        ((2, 28, 28), {"kind": "photo"}),
        ((3, 0, 28), {"kind": "photo"}),
        ((3, 28, 1025), {"kind": "photo"}),
    ],
)
def test_other_descriptions_are_refused(shape: tuple[int, int, int], description: Mapping[str, Any] | str) -> None:
    with pytest.raises(ValueError):
        parse_form(shape, description)


def test_photos_keep_their_shape_as_form() -> None:
    assert measure_form(np.zeros((5, 3, 32, 40), np.uint8), "photo") == PhotoForm((3, 32, 40))


def test_photo_is_cut_to_the_middle_and_keeps_its_colours() -> None:
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 40:80] = (200, 100, 50)  # the square in the middle
    prepared = prepare_image(picture, PhotoForm((3, 20, 20)))
    assert prepared.pixels.shape == (3, 20, 20)
    assert prepared.pixels[:, 10, 10].tolist() == [200, 100, 50]
    assert prepared.pixels[0].min() >= 180
    assert prepared.changes == ("resized",)


def test_ink_takes_the_size_of_the_form() -> None:
    page = np.full((100, 100), 230, np.uint8)
    page[20:80, 45:55] = 10
    prepared = prepare_image(page, INK_FORM)
    rows = np.flatnonzero(prepared.pixels[0].max(axis=1) > 100)
    assert prepared.pixels.shape == (1, 32, 48)
    assert np.ptp(rows) + 1 == pytest.approx(24, abs=1)
