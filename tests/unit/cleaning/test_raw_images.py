"""Content that is no picture."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.cleaning.raw_images import RawImage
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import UnusableImageError


def test_other_content_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    for content in (tmp_path / "1.png", tmp_path / "2.png", np.zeros(10, np.uint8)):
        image = RawImage("1", "a", "", content)
        with pytest.raises(UnusableImageError):
            image.read(MNIST_FORM)
