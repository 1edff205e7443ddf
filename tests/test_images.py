import gzip
import io
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import bomb
from photographs import photograph
from PIL import Image, ImageDraw
from scipy import ndimage

from pipeline import data, images

INK, PAPER = 20, 235


@pytest.fixture(scope="module")
def digits(real_data: Path) -> np.ndarray:
    """Return 200 digits of MNIST's test set, uint8 [200, 28, 28]."""
    return data.load_test("mnist", real_data).images[:200, 0].numpy()


def drawing(ink: int = INK, paper: int = PAPER) -> Image.Image:
    """Return a 7 with a flag, off the middle of a page of 240x180: no two of its eight orientations look the same."""
    page = Image.new("L", (240, 180), paper)
    ImageDraw.Draw(page).line([(110, 60), (105, 40), (180, 40), (140, 150)], fill=ink, width=14, joint="curve")
    return page


def seen(file: bytes) -> np.ndarray:
    return images.prepare(images.read(io.BytesIO(file))).pixels


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def expected() -> np.ndarray:
    return seen(saved(drawing(), "PNG"))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return by how many grey levels two images differ, on average over the pixels with ink."""
    ink = (one > 0) | (other > 0)
    return float(np.abs(one.astype(float) - other)[ink].mean())


def centre(pixels: np.ndarray) -> tuple[float, float]:
    row, column = ndimage.center_of_mass(pixels.astype(float))
    return float(row), float(column)


def box(pixels: np.ndarray, above: int = 0) -> tuple[int, int]:
    """Return height and width of what is brighter than ``above``."""
    rows, columns = np.nonzero(pixels > above)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


# --- formats and modes ------------------------------------------------------------------------------------------


def in_mode(mode: str) -> Image.Image:
    page = drawing()
    if mode == "I;16":
        return Image.fromarray(np.asarray(page, np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(page, np.float32))
    if mode == "I":
        return Image.fromarray(np.asarray(page, np.int32) * 257)
    if mode == "P":  # a palette whose numbers say nothing about brightness
        return page.convert("RGB").quantize(4, dither=Image.Dither.NONE)
    return page.convert(mode, dither=Image.Dither.NONE)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("PNG", "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("TIFF", mode) for mode in ("CMYK", "I", "F")]
    + [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    + [("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")]
    + [("GIF", mode) for mode in ("1", "L", "P", "RGB")]
    + [("WEBP", mode) for mode in ("L", "RGB", "RGBA")],
)
def test_a_picture_looks_the_same_in_every_format_and_mode(kind: str, mode: str) -> None:
    assert distance(seen(saved(in_mode(mode), kind)), expected()) < 8
    assert distance(np.fliplr(expected()), expected()) > 80  # what the measure says of another picture


@pytest.mark.parametrize("largest", [1.0, 255.0, 65_535.0])
def test_floats_count_from_zero_to_one_to_255_or_to_65535(largest: float) -> None:
    values = np.asarray(drawing(), np.float32) / 255 * largest
    assert distance(seen(saved(Image.fromarray(values.astype(np.float32)), "TIFF")), expected()) < 2


def test_of_several_frames_the_first_is_seen() -> None:
    blank = Image.new("L", (240, 180), PAPER)
    for kind in ("GIF", "TIFF", "WEBP", "MPO"):  # MPO: a phone's JPEG with a second picture in it
        file = saved(drawing(), kind, save_all=True, append_images=[blank])
        assert distance(seen(file), expected()) < 8, kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    (
        "orientation",
        "stored",
    ),  # how the camera stored it, by EXIF 2.32, section 4.6.4: the first row and column are ...
    [
        (1, None),  # top, left
        (2, Image.Transpose.FLIP_LEFT_RIGHT),  # top, right
        (3, Image.Transpose.ROTATE_180),  # bottom, right
        (4, Image.Transpose.FLIP_TOP_BOTTOM),  # bottom, left
        (5, Image.Transpose.TRANSPOSE),  # left, top
        (6, Image.Transpose.ROTATE_90),  # right, top
        (7, Image.Transpose.TRANSVERSE),  # right, bottom
        (8, Image.Transpose.ROTATE_270),  # left, bottom
    ],
)
def test_a_picture_is_seen_upright_as_exif_says(kind: str, orientation: int, stored: Image.Transpose | None) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    page = drawing() if stored is None else drawing().transpose(stored)
    assert distance(seen(saved(page, kind, exif=exif)), expected()) < 8


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_a_transparent_page_is_seen_whatever_lies_under_the_transparency(ink: int) -> None:
    opacity = drawing(ink=255, paper=0)
    on_paper = seen(saved(drawing(0, 255), "PNG"))
    for under in (0, 128, 255):
        page = Image.composite(Image.new("L", opacity.size, ink), Image.new("L", opacity.size, under), opacity)
        page.putalpha(opacity)
        for kind, mode in (("PNG", "LA"), ("PNG", "RGBA"), ("TIFF", "RGBA")):
            assert distance(seen(saved(page.convert(mode), kind)), on_paper) < 2, (under, kind, mode)


def test_a_palettes_transparent_colour_is_paper() -> None:
    page = drawing(0, 255).convert("P")
    for kind in ("PNG", "GIF"):
        assert distance(seen(saved(page, kind, transparency=255)), seen(saved(drawing(0, 255), "PNG"))) < 2, kind


def test_a_large_picture_is_read_at_most_192_pixels_a_side_and_keeps_its_proportions() -> None:
    for kind in ("PNG", "JPEG"):
        grey = images.read(io.BytesIO(saved(drawing().resize((2400, 1800)), kind)))
        assert grey.dtype == np.uint8
        assert grey.shape == (144, 192), kind
        assert distance(images.prepare(grey).pixels, expected()) < 30, kind


# --- 28x28 pixels and other sizes -------------------------------------------------------------------------------


def test_bright_on_dark_28x28_stays_pixel_for_pixel(digits: np.ndarray, real_data: Path) -> None:
    clothes = data.load_test("fashion-mnist", real_data).images[:200, 0].numpy()  # some fill the frame
    for image in (*digits, *clothes):
        prepared = images.prepare(images.read(io.BytesIO(saved(Image.fromarray(image), "PNG"))))
        assert np.array_equal(prepared.pixels, image)
        assert prepared.changes == ()


def test_dark_on_light_28x28_is_255_minus_it(digits: np.ndarray) -> None:
    for image in digits:
        prepared = images.prepare(255 - image)
        assert np.array_equal(prepared.pixels, image)
        assert prepared.changes == ("inverted",)


@pytest.mark.parametrize("bright", [False, True])
@pytest.mark.parametrize(
    ("wide", "high", "page"), [(30, 90, (200, 200)), (120, 60, (300, 150)), (500, 480, (800, 2000)), (12, 9, (20, 20))]
)
def test_ink_of_any_size_is_fitted_into_20x20_with_its_proportions_and_centred_by_mass(
    wide: int, high: int, page: tuple[int, int], bright: bool
) -> None:
    ink, paper = (INK, PAPER)[:: -1 if bright else 1]
    picture = Image.new("L", page, paper)
    left, top = (page[0] - wide) // 4, (page[1] - high) * 3 // 4
    # a plain block with a notch: its centre of mass is not that of its box
    ImageDraw.Draw(picture).rectangle([left, top, left + wide - 1, top + high - 1], fill=ink)
    ImageDraw.Draw(picture).rectangle([left, top, left + wide // 2, top + high // 3], fill=paper)
    prepared = images.prepare(images.read(io.BytesIO(saved(picture, "PNG"))))
    assert prepared.changes == (("resized",) if bright else ("inverted", "resized"))
    assert prepared.pixels.shape == (28, 28) and prepared.pixels.dtype == np.uint8
    expected_box = high * 20 / max(wide, high), wide * 20 / max(wide, high)
    assert max(box(prepared.pixels)) <= 20
    assert box(prepared.pixels, above=100) == pytest.approx(expected_box, abs=1)
    assert centre(prepared.pixels) == pytest.approx((14, 14), abs=0.51)
    assert prepared.pixels.max() == 255


def test_a_drawing_is_fitted_and_centred_too() -> None:
    assert max(box(expected())) == 20
    assert centre(expected()) == pytest.approx((14, 14), abs=0.51)


def test_enlarged_images_of_mnist_come_back_much_as_they_were(digits: np.ndarray) -> None:
    """So centre and size are those of MNIST's authors, not only of our reading of them."""
    large = [Image.fromarray(image).resize((140, 140), Image.Resampling.BICUBIC) for image in digits]
    found = np.stack([seen(saved(each, "PNG")) for each in large])
    alike = np.diag(correlations(found, digits))
    assert np.median(alike) > 0.98  # 0.992
    assert alike.min() > 0.8  # 0.87


def correlations(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how alike images are, [ones, others]: the correlation of their pixels, blurred by one pixel."""
    flat = []
    for pixels in (ones, others):
        blurred = ndimage.gaussian_filter(pixels.astype(float), (0, 1, 1)).reshape(len(pixels), -1)
        blurred -= blurred.mean(1, keepdims=True)
        flat.append(blurred / np.linalg.norm(blurred, axis=1, keepdims=True))
    return np.asarray(flat[0] @ flat[1].T)


def test_photographs_of_digits_come_out_as_the_digits(digits: np.ndarray) -> None:
    random = np.random.default_rng(0)
    found = np.stack([seen(photograph(digit, random)) for digit in digits[:100]])
    alike = correlations(found, digits[:100])
    assert np.diag(alike).min() > 0.7  # 0.78, though slanted by up to 11 degrees
    assert np.median(np.diag(alike)) > 0.92
    assert (alike.argmax(1) == np.arange(100)).mean() > 0.8  # each more like its own than like the 99 others
    for image in found:
        assert centre(image) == pytest.approx((14, 14), abs=0.51)


# --- what is refused --------------------------------------------------------------------------------------------


def dust(size: tuple[int, int] = (300, 200)) -> np.ndarray:
    page = np.full(size[::-1], PAPER, np.uint8)
    page[90:94, 120:124] = INK
    return page


def smudge() -> np.ndarray:
    page = np.asarray(drawing(ink=200, paper=215))
    return np.rint(page - np.linspace(0, 30, 240)).astype(np.uint8)


def noise(size: tuple[int, int], deviation: float) -> np.ndarray:
    values = np.random.default_rng(0).normal(PAPER - 20, deviation, size[::-1])
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(np.full((200, 300), 255, np.uint8), id="white"),
        pytest.param(np.zeros((200, 300), np.uint8), id="black"),
        pytest.param(np.full((28, 28), 255, np.uint8), id="white 28x28"),
        pytest.param(np.zeros((28, 28), np.uint8), id="black 28x28"),
        pytest.param(np.arange(784, dtype=np.uint8).reshape(28, 28) % 20, id="faint 28x28"),
        pytest.param(noise((300, 200), 8), id="noise"),
        pytest.param(noise((192, 192), 8) - np.linspace(0, 80, 192).astype(np.uint8), id="noise and a shadow"),
        pytest.param(noise((192, 192), 40), id="strong noise"),
        pytest.param(smudge(), id="a smudge in a shadow"),
        pytest.param(dust(), id="dust"),
        pytest.param(255 - dust(), id="bright dust"),
    ],
)
def test_a_blank_page_is_refused(page: np.ndarray) -> None:
    with pytest.raises(images.UnusableError) as refused:
        seen(saved(Image.fromarray(page), "PNG"))
    assert refused.value.problem == "blank"


def test_a_page_that_is_transparent_all_over_is_blank() -> None:
    page = drawing().convert("RGBA")
    page.putalpha(0)
    with pytest.raises(images.UnusableError, match="transparent") as refused:
        seen(saved(page, "PNG"))
    assert refused.value.problem == "blank"


def test_the_grain_of_the_paper_and_a_shadow_on_it_are_left_out() -> None:
    page = np.asarray(drawing()) * np.linspace(1, 0.6, 240) + np.random.default_rng(0).normal(0, 10, (180, 240))
    found = seen(saved(Image.fromarray(np.rint(page.clip(0, 255)).astype(np.uint8)), "PNG"))
    assert distance(found, expected()) < 40  # ink in the shadow is a little paler
    beside = ndimage.binary_dilation(expected() > 0, iterations=2)
    assert found[~beside].max() <= 1


def test_dust_beside_ink_is_left_out() -> None:
    page = np.asarray(drawing()).copy()
    page[170:173, 5:8] = INK
    assert distance(seen(saved(Image.fromarray(page), "PNG")), expected()) < 4


def unreadable() -> Iterator[tuple[str, bytes]]:
    rough = Image.fromarray(noise((300, 200), 40))
    yield "text.png", b"this is no picture\n" * 100
    yield "empty.png", b""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        yield f"truncated.{kind.lower()}", (whole := saved(rough, kind))[: len(whole) // 2]
    yield "drawing.ppm", saved(drawing(), "PPM")  # a picture, but in none of the six formats


@pytest.mark.parametrize(("name", "content"), [pytest.param(*each, id=each[0]) for each in unreadable()])
def test_no_picture_or_half_a_picture_is_unreadable(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(images.UnusableError) as refused:
        images.read(tmp_path / name)
    assert refused.value.problem == "unreadable"
    assert str(refused.value)


def test_a_directory_or_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for name, reason in (("folder.png", "directory"), ("missing.png", "No such file")):
        with pytest.raises(images.UnusableError, match=reason) as refused:
            images.read(tmp_path / name)
        assert refused.value.problem == "unreadable"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    for side, said in ((10_000, "10,000 x 10,000 pixels"), (20_000, "400000000 pixels")):  # ours, and Pillow's own
        file = bomb(side)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(images.UnusableError, match=said) as refused:
            images.read(io.BytesIO(file))
        assert refused.value.problem == "unreadable"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * (1 if sys.platform == "darwin" else 1024) < 50e6  # unpacked it has 100 and 400 MB
    small = images.read(io.BytesIO(bomb(1_000)))  # the file is a good one, but for its size
    assert small.shape == (192, 192) and not small.any()


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.nan, "not_finite"), (np.inf, "not_finite"), (-1.0, "out_of_range"), (-0.01, "out_of_range")],
)
def test_a_pixel_that_is_no_brightness_is_refused(value: float, problem: str) -> None:
    levels = np.asarray(drawing(), np.float32) / 255
    levels[3, 4] = value
    for refuse in (lambda: images.to_bytes(levels), lambda: seen(saved(Image.fromarray(levels), "TIFF"))):
        with pytest.raises(images.UnusableError) as refused:
            refuse()
        assert refused.value.problem == problem


# --- grey levels of other types ---------------------------------------------------------------------------------


def test_values_of_any_type_are_scaled_so_that_white_is_255() -> None:
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    for values in (
        grey,
        grey.astype(np.int64),
        grey.astype(np.uint16) * 257,
        grey / 255,
        (grey / 255).astype(np.float16),
        grey.astype(np.float32),
        grey.astype(">u2") * 257,
    ):
        found = images.to_bytes(values)
        assert found.dtype == np.uint8
        assert found.tolist() == grey.tolist(), values.dtype
    assert images.to_bytes(np.array([[False, True]])).tolist() == [[0, 255]]


def test_a_given_white_counts_not_the_brightest_pixel() -> None:
    assert images.to_bytes(np.array([[0.0, 1.0]]), 255.0).tolist() == [[0, 1]]
    assert images.to_bytes(np.array([[0, 1]], np.uint8), 1).tolist() == [[0, 255]]
    with pytest.raises(images.UnusableError) as refused:
        images.to_bytes(np.array([[0.0, 2.0]]), 1.0)
    assert refused.value.problem == "out_of_range"


def test_rounding_below_black_or_above_white_is_forgiven() -> None:
    assert images.to_bytes(np.array([[-1e-6, 1 + 1e-6]]), 1.0).tolist() == [[0, 255]]


# --- IDX --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
def test_an_array_comes_back_from_its_idx_file(kind: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    bounds = np.iinfo(kind)
    array = np.random.default_rng(0).integers(bounds.min, bounds.max, shape, kind, endpoint=True)
    images.write_idx(tmp_path / "a.gz", array)
    found = images.from_idx(gzip.decompress((tmp_path / "a.gz").read_bytes()))
    assert found.dtype == kind
    assert np.array_equal(found, array)


def test_an_array_is_written_as_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(1_000, dtype=np.uint8).reshape(10, 100)
    images.write_idx(tmp_path / "a.gz", array)
    monkeypatch.setattr("time.time", lambda: 0.0)
    images.write_idx(tmp_path / "b.gz", np.asfortranarray(array))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_what_is_written_is_what_mnists_authors_wrote(real_data: Path, tmp_path: Path) -> None:
    for kind in ("images-idx3", "labels-idx1"):
        real = gzip.decompress((real_data / "MNIST" / "raw" / f"t10k-{kind}-ubyte.gz").read_bytes())
        images.write_idx(tmp_path / "again.gz", images.from_idx(real))
        assert gzip.decompress((tmp_path / "again.gz").read_bytes()) == real


@pytest.mark.parametrize("code", [0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E])
def test_every_type_of_idx_is_read_in_this_machines_byte_order(code: int) -> None:
    kind = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}[code]
    found = images.from_idx(struct.pack(">HBBI", 0, code, 1, 3) + np.array([1, 2, 100], kind).tobytes())
    assert found.tolist() == [1, 2, 100]
    assert found.dtype == np.dtype(kind[1:])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: whole[:3], id="no header"),
        pytest.param(lambda whole: whole[:10], id="half a header"),
        pytest.param(lambda whole: whole[:-1], id="a byte short"),
        pytest.param(lambda whole: whole + b"\0", id="a byte too long"),
        pytest.param(lambda whole: b"\x1f\x8b" + whole[2:], id="another format"),
        pytest.param(lambda whole: whole[:2] + b"\x07" + whole[3:], id="an unknown type"),
        pytest.param(lambda whole: whole[:3] + b"\0" + whole[4:], id="no dimension"),
        pytest.param(lambda whole: whole[:4] + b"\xff" + whole[5:], id="too many"),
    ],
)
def test_a_damaged_idx_file_is_refused(damage: Callable[[bytes], bytes]) -> None:
    whole = struct.pack(">HBBII", 0, 8, 2, 3, 4) + bytes(12)
    assert images.from_idx(whole).shape == (3, 4)
    with pytest.raises(ValueError, match=r"no (whole )?IDX file"):
        images.from_idx(damage(whole))


# --- many at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 100, 10_000])
def test_results_come_in_the_order_of_the_items(size: int) -> None:
    assert list(images.for_each(abs, (-each for each in range(size)))) == list(range(size))


def test_many_items_are_not_all_taken_at_once() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for each in range(1_000_000):
            taken += 1
            yield each

    results = images.for_each(abs, items())
    assert [next(results) for _ in range(10)] == list(range(10))
    assert taken < 10_000
