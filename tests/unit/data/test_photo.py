import numpy as np
import pytest

from pipeline.data.forms import PhotoForm
from pipeline.data.images import UnusableImageError
from pipeline.data.photo import prepare_photo

FORM = PhotoForm((3, 40, 40))


@pytest.mark.parametrize("spread", [0, 3])
def test_photo_of_one_colour_is_blank(spread: int) -> None:
    picture = np.full((50, 60, 3), (20, 120, 220), np.uint8)
    picture[10, 10, 1] += spread
    with pytest.raises(UnusableImageError, match="all its pixels have the same colour") as refused:
        prepare_photo(picture, FORM)
    assert refused.value.problem == "blank"


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_faint_photo_is_not_blank(channel: int) -> None:
    picture = np.full((50, 60, 3), 250, np.uint8)
    picture[20:30, 20:30, channel] -= 4
    pixels, _ = prepare_photo(picture, FORM)
    assert pixels.shape == FORM.shape
