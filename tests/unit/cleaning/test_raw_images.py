"""Size and colour of an image before it is read."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cleaning.raw_images import RawImage
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import UnusableImageError


def encode(mode: str, file_format: str, orientation: int = 1) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.new(mode, (30, 20), 200).save(file, file_format, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "file_format", "is_colour"),
    [
        ("L", "PNG", False),
        ("RGB", "PNG", True),
        ("RGBA", "PNG", True),
        ("LA", "PNG", False),
        ("P", "PNG", True),
        ("1", "PNG", False),
        ("RGB", "JPEG", True),
        ("CMYK", "JPEG", True),
    ],
)
def test_picture_is_measured_by_its_header(mode: str, file_format: str, is_colour: bool, tmp_path: Path) -> None:
    content = encode(mode, file_format)
    (tmp_path / "1.png").write_bytes(content[: len(content) * 3 // 4] if file_format == "PNG" else content)
    for image in (RawImage("1", "a", "", tmp_path / "1.png"), RawImage("1", "a", "", np.frombuffer(content, np.uint8))):
        assert image.measure_size() == (20, 30)
        assert image.is_colour() == is_colour


def test_size_is_that_of_the_upright_picture() -> None:
    image = RawImage("1", "a", "", np.frombuffer(encode("L", "JPEG", orientation=6), np.uint8))
    assert image.measure_size() == (30, 20)


def test_array_is_measured_by_its_shape() -> None:
    assert RawImage("1", "a", "", np.zeros((20, 30)), 1.0).measure_size() == (20, 30)
    assert not RawImage("1", "a", "", np.zeros((20, 30)), 1.0).is_colour()
    assert RawImage("1", "a", "", np.zeros((20, 30, 3)), 1.0).is_colour()


def test_other_content_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    for content in (tmp_path / "1.png", tmp_path / "2.png", np.zeros(10, np.uint8)):
        image = RawImage("1", "a", "", content)
        with pytest.raises(UnusableImageError):
            image.measure_size()
        with pytest.raises(UnusableImageError):
            image.read(MNIST_FORM)
