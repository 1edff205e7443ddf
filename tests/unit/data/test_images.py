import io
import resource
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import (
    BLANK,
    FORMATS,
    NOT_FINITE,
    OUT_OF_RANGE,
    UNREADABLE,
    UnusableImageError,
    convert_image,
    guess_white_level,
    read_image,
    scale_to_bytes,
)
from pipeline.data.preparation import prepare_image
from support.drawings import PAGE_SIZE, PAPER, draw_page, encode_picture, mean_difference, prepare_file, prepare_page
from support.files import png_bomb

EXIF_ORIENTATION = 274

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "I", "F"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB"),
    "WEBP": ("L", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I"),
    "AVIF": ("L", "RGB", "RGBA"),
}
FORMATS_AND_MODES = [(file_format, mode) for file_format in FORMATS for mode in MODES[file_format]]

# How an upright picture is stored for each orientation (EXIF 2.32, section 4.6.4); the comment says where its first
# row and first column are.
ORIENTATIONS = {
    1: None,  # top, left
    2: Image.Transpose.FLIP_LEFT_RIGHT,  # top, right
    3: Image.Transpose.ROTATE_180,  # bottom, right
    4: Image.Transpose.FLIP_TOP_BOTTOM,  # bottom, left
    5: Image.Transpose.TRANSPOSE,  # left, top
    6: Image.Transpose.ROTATE_90,  # right, top
    7: Image.Transpose.TRANSVERSE,  # right, bottom
    8: Image.Transpose.ROTATE_270,  # left, bottom
}


def convert_page(mode: str) -> Image.Image:
    """Return the drawing in one of Pillow's modes."""
    page = draw_page()
    if mode == "I;16":
        return Image.fromarray(np.asarray(page, np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(np.asarray(page, np.int32) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(page, np.float32))
    if mode == "P":  # a palette whose numbers do not tell the brightness
        return page.convert("RGB").quantize(4, dither=Image.Dither.NONE)
    return page.convert(mode, dither=Image.Dither.NONE)


@pytest.mark.parametrize(("file_format", "mode"), FORMATS_AND_MODES)
def test_every_format_and_mode_looks_the_same(file_format: str, mode: str) -> None:
    pixels = prepare_file(encode_picture(convert_page(mode), file_format))
    assert mean_difference(pixels, prepare_page()) < 8


@pytest.mark.parametrize(("largest", "white"), [(4_095, 4_095), (3_000, 4_095), (16_000, 16_383), (20_000, 65_535)])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_by_what_is_there(file_format: str, largest: int, white: int) -> None:
    values = np.linspace(0, largest, 20 * 30).reshape(20, 30).astype(np.uint16)
    read = read_image(io.BytesIO(encode_picture(Image.fromarray(values), file_format)))
    assert np.array_equal(read, np.rint(values * (255 / white)))


def test_a_file_that_names_its_white_is_believed() -> None:
    header = b"P5 2 1 65535\n"
    read = read_image(io.BytesIO(header + struct.pack(">2H", 0, 4_000)))
    assert read.tolist() == [[0, round(4_000 * 255 / 65_535)]]
    twelve_bits = read_image(io.BytesIO(b"P5 2 1 4095\n" + struct.pack(">2H", 4_095, 2_048)))
    assert twelve_bits.tolist() == [[255, 128]]


def test_heic_is_named_with_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(UnusableImageError, match="it is a HEIC picture, as phones take them; convert it to JPEG"):
        read_image(tmp_path / "IMG_1.jpg")


def test_another_picture_does_not_look_the_same() -> None:
    assert mean_difference(np.fliplr(prepare_page()), prepare_page()) > 80


@pytest.mark.parametrize("white", [1.0, 255.0, 65_535.0])
def test_floats_may_have_any_usual_white(white: float) -> None:
    values = np.asarray(draw_page(), np.float32) / 255 * white
    picture = Image.fromarray(values.astype(np.float32))
    pixels = prepare_file(encode_picture(picture, "TIFF"))
    assert mean_difference(pixels, prepare_page()) < 2


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "MPO"])  # MPO: a phone's JPEG with a second picture
def test_first_of_several_frames_is_read(file_format: str) -> None:
    blank = Image.new("L", PAGE_SIZE, PAPER)
    content = encode_picture(draw_page(), file_format, save_all=True, append_images=[blank])
    assert mean_difference(prepare_file(content), prepare_page()) < 8


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "stored"), ORIENTATIONS.items())
def test_exif_orientation_is_applied(file_format: str, orientation: int, stored: Image.Transpose | None) -> None:
    page = draw_page() if stored is None else draw_page().transpose(stored)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    pixels = prepare_file(encode_picture(page, file_format, exif=exif))
    assert mean_difference(pixels, prepare_page()) < 8


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_large_picture_is_reduced_in_proportion(file_format: str) -> None:
    content = encode_picture(draw_page().resize((2400, 1800)), file_format)
    grey = read_image(io.BytesIO(content))
    assert grey.dtype == np.uint8
    assert grey.shape == (144, 192)
    assert mean_difference(prepare_image(grey, MNIST_FORM).pixels[0], prepare_page()) < 30


def test_opened_picture_is_converted_as_its_file(tmp_path: Path) -> None:
    page = draw_page().convert("RGB")
    page.save(tmp_path / "page.png")
    assert np.array_equal(convert_image(page), read_image(tmp_path / "page.png"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_read(mode: str) -> None:
    content = encode_picture(Image.new("RGB", (30, 20), (200, 100, 50)).convert(mode), "PNG")
    picture = read_image(io.BytesIO(content), channels=3)
    assert picture.shape == (20, 30, 3)
    assert picture[10, 10].tolist() == pytest.approx([200, 100, 50], abs=4)


def test_grey_picture_has_three_equal_channels() -> None:
    picture = read_image(io.BytesIO(encode_picture(draw_page(), "PNG")), channels=3, side=60)
    assert picture.shape == (45, 60, 3)
    assert np.ptp(picture, axis=2).max() == 0


# --- transparency ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("hidden", [0, 128, 255])
@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "LA"), ("PNG", "RGBA"), ("TIFF", "RGBA")])
def test_hidden_colour_does_not_matter(ink: int, hidden: int, file_format: str, mode: str) -> None:
    opacity = draw_page(ink=255, paper=0)
    page = Image.composite(Image.new("L", PAGE_SIZE, ink), Image.new("L", PAGE_SIZE, hidden), opacity)
    page.putalpha(opacity)
    pixels = prepare_file(encode_picture(page.convert(mode), file_format))
    on_white = prepare_file(encode_picture(draw_page(ink=0, paper=255), "PNG"))
    assert mean_difference(pixels, on_white) < 2


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_transparent_colour_of_a_palette_is_paper(file_format: str) -> None:
    page = draw_page(ink=0, paper=255)
    transparent = encode_picture(page.convert("P"), file_format, transparency=255)
    on_white = prepare_file(encode_picture(page, "PNG"))
    assert mean_difference(prepare_file(transparent), on_white) < 2


def test_completely_transparent_page_is_blank() -> None:
    page = draw_page().convert("RGBA")
    page.putalpha(0)
    with pytest.raises(UnusableImageError, match="transparent") as refused:
        prepare_file(encode_picture(page, "PNG"))
    assert refused.value.problem == BLANK


# --- unreadable files -----------------------------------------------------------------------------------------------


def unreadable_files() -> Iterator[tuple[str, bytes]]:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8)
    yield "text.png", b"this is not a picture\n" * 100
    yield "empty.png", b""
    yield "drawing.tga", encode_picture(draw_page(), "TGA")  # a picture, but in none of the formats
    for file_format in FORMATS:
        content = encode_picture(Image.fromarray(noise), file_format)
        yield f"half.{file_format.lower()}", content[: len(content) // 2]


@pytest.mark.parametrize(("name", "content"), list(unreadable_files()))
def test_no_picture_or_half_of_one_is_unreadable(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableImageError) as refused:
        read_image(tmp_path / name)
    assert refused.value.problem == UNREADABLE
    assert str(refused.value)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(("name", "reason"), [("folder.png", "directory"), ("missing.png", "No such file")])
def test_folder_or_missing_file_is_unreadable(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnusableImageError, match=reason) as refused:
        read_image(tmp_path / name)
    assert refused.value.problem == UNREADABLE


def peak_memory() -> int:
    """Return the most memory that this process has used, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# Our limit refuses the first, Pillow's own the second. Unpacked they have 25 and 400 MB.
@pytest.mark.parametrize(
    ("side", "message"), [(5_001, "5,001 x 5,001 pixels"), (20_000, "more than 25,000,000 pixels")]
)
def test_too_many_pixels_are_not_unpacked(side: int, message: str) -> None:
    content = png_bomb(side)
    before = peak_memory()
    with pytest.raises(UnusableImageError, match=message) as refused:
        read_image(io.BytesIO(content))
    assert refused.value.problem == UNREADABLE
    assert peak_memory() - before < 50e6


def test_smaller_bomb_is_an_ordinary_picture() -> None:
    grey = read_image(io.BytesIO(png_bomb(1_000)))
    assert grey.shape == (192, 192)
    assert not grey.any()


# --- grey levels of any type ----------------------------------------------------------------------------------------

GREY = np.array([[0, 51], [102, 255]], np.uint8)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(GREY, id="uint8"),
        pytest.param(GREY.astype(np.int64), id="int64"),
        pytest.param(GREY.astype(np.uint16) * 257, id="uint16"),
        pytest.param(GREY.astype(">u2") * 257, id="big-endian uint16"),
        pytest.param(GREY / 255, id="float64"),
        pytest.param((GREY / 255).astype(np.float16), id="float16"),
        pytest.param(GREY.astype(np.float32), id="float32"),
    ],
)
def test_any_type_is_scaled_to_bytes(values: np.ndarray) -> None:
    scaled = scale_to_bytes(values)
    assert scaled.dtype == np.uint8
    assert scaled.tolist() == GREY.tolist()


def test_booleans_are_black_and_white() -> None:
    assert scale_to_bytes(np.array([[False, True]])).tolist() == [[0, 255]]


def test_given_white_replaces_the_guess() -> None:
    assert scale_to_bytes(np.array([[0.0, 1.0]]), 255.0).tolist() == [[0, 1]]
    assert scale_to_bytes(np.array([[0, 1]], np.uint8), 1).tolist() == [[0, 255]]


def test_value_above_the_given_white_is_refused() -> None:
    with pytest.raises(UnusableImageError) as refused:
        scale_to_bytes(np.array([[0.0, 2.0]]), 1.0)
    assert refused.value.problem == OUT_OF_RANGE


def test_rounding_errors_at_both_ends_are_accepted() -> None:
    assert scale_to_bytes(np.array([[-1e-6, 1 + 1e-6]]), 1.0).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("largest", "white"),
    [(0.0, 1.0), (1.0, 1.0), (1.5, 255.0), (255.0, 255.0), (256.0, 65_535.0), (70_000.0, 70_000.0)],
)
def test_white_is_the_next_usual_level(largest: float, white: float) -> None:
    assert guess_white_level(largest) == white


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, NOT_FINITE), (np.inf, NOT_FINITE), (-1.0, OUT_OF_RANGE), (-0.01, OUT_OF_RANGE)],
)
def test_impossible_brightness_is_refused(value: float, problem: str) -> None:
    values = np.asarray(draw_page(), np.float32) / 255
    values[3, 4] = value
    with pytest.raises(UnusableImageError) as refused:
        scale_to_bytes(values)
    assert refused.value.problem == problem
    with pytest.raises(UnusableImageError) as refused:
        prepare_file(encode_picture(Image.fromarray(values), "TIFF"))
    assert refused.value.problem == problem
