"""Tables of pixels in CSV files, as `find_images` reads them."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.cleaning.importers import find_images
from pipeline.data.forms import PhotoForm
from support.sources import read_all, read_error

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (12, 28, 28), np.uint8)
X[:, 0, 0] = 0  # as the corner of ink
X[:, -1, -1] = 0
X[:, 5, 5] = 255
Y = np.arange(12) % 3
NUMBERS = [str(label) for label in Y]
PIXELS = [f"pixel{index}" for index in range(784)]
COLOUR_FORM = PhotoForm((3, 8, 8))


def write_table(
    file: Path,
    pixels: np.ndarray,
    labels: Sequence[object] | None,
    header: Sequence[str] = (),
    separator: str = ",",
    label_last: bool = False,
) -> Path:
    """Write a table with one row an image."""
    lines = [separator.join(header)] if header else []
    for index, row in enumerate(pixels.reshape(len(pixels), -1).tolist()):
        cells = [str(value) for value in row]
        if labels is not None:
            cells.insert(len(cells) if label_last else 0, str(labels[index]))
        lines.append(separator.join(cells))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    return file


# --- columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "label_last"),
    [
        pytest.param(["label", *PIXELS], False, id="Kaggle"),
        pytest.param([*PIXELS, "class"], True, id="OpenML"),
        pytest.param([], False, id="no header"),
        pytest.param([], True, id="no header, label last"),
        pytest.param(["label", *(f"{row}x{column}" for row in range(28) for column in range(28))], False, id="1x1"),
        pytest.param(["label", *map(str, range(784))], False, id="numbers"),
        pytest.param([str(index) for index in range(785)], False, id="counted"),
        pytest.param(["digit_shown", *PIXELS], False, id="other name"),
    ],
)
def test_label_and_pixels_are_found(header: list[str], label_last: bool, tmp_path: Path) -> None:
    source = find_images(write_table(tmp_path / "images.csv", X, Y.tolist(), header, label_last=label_last))
    assert source.kind == "csv"
    assert [image.label for image in source.images] == NUMBERS
    assert np.array_equal(read_all(source), X)
    assert {np.asarray(image.content).dtype for image in source.images} == {np.dtype(np.uint8)}


def test_row_numbers_are_left_out(tmp_path: Path) -> None:
    numbered = np.column_stack([Y, X.reshape(12, 784)])
    write_table(tmp_path / "a.csv", numbered, list(range(12)), ["", "label", *PIXELS])
    source = find_images(tmp_path)
    assert [image.label for image in source.images] == NUMBERS
    assert np.array_equal(read_all(source), X)


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ";"), ("a.tsv", "\t")])
def test_other_separators_are_read(name: str, separator: str, tmp_path: Path) -> None:
    write_table(tmp_path / name, X, Y.tolist(), separator=separator)
    assert np.array_equal(read_all(find_images(tmp_path)), X)


def test_labels_may_be_names(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", X, ["ant", "bee", "cat"] * 4)
    assert [image.label for image in find_images(tmp_path).images] == ["ant", "bee", "cat"] * 4


def test_labels_with_fractions_are_integers(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", X, [f"{label}.0" for label in Y])
    assert [image.label for image in find_images(tmp_path).images] == NUMBERS


def test_packed_table_is_read(tmp_path: Path) -> None:
    plain = write_table(tmp_path / "a.csv", X, Y.tolist())
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(read_all(find_images(tmp_path / "packed")), X)


def test_colours_are_those_of_one_pixel_after_another(tmp_path: Path) -> None:
    colours = RANDOM.integers(0, 256, (12, 8, 8, 3), np.uint8)
    names = [f"pixel{index:04d}" for index in range(192)]
    source = find_images(write_table(tmp_path / "a.csv", colours, Y.tolist(), [*names, "label"], label_last=True))
    assert np.array_equal([image.read(COLOUR_FORM) for image in source.images], colours)
    assert source.remarks == [
        "a.csv: three values a pixel, taken as red, green, blue of the first pixel, then of the second"
    ]


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(np.round(X / 255, 6), X, id="to 1"),
        pytest.param(X.astype(float), X, id="floats"),
        pytest.param(np.where(X > 127, 4095, 0), np.where(X > 127, 255, 0), id="12 bits"),
    ],
)
def test_values_are_scaled(values: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", values, Y.tolist())
    assert np.array_equal(read_all(find_images(tmp_path)), expected)


def test_normalised_values_are_named(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", X / 127.5 - 1, Y.tolist())
    assert "a.csv has normalised values from -1 to 1; give 0 to 255" in read_error(tmp_path)


# --- several tables -------------------------------------------------------------------------------------------------


def test_names_say_the_split(tmp_path: Path) -> None:
    write_table(tmp_path / "mnist_train.csv", X[:8], Y[:8].tolist(), ["label", *PIXELS])
    write_table(tmp_path / "mnist_test.csv", X[8:], Y[8:].tolist(), ["label", *PIXELS])
    images = find_images(tmp_path).images
    assert [(image.name, image.split) for image in images[3:6]] == [
        ("mnist_test.csv[3]", "test"),
        ("mnist_train.csv[0]", "train"),
        ("mnist_train.csv[1]", "train"),
    ]


@pytest.mark.parametrize("header", [PIXELS, []])
def test_table_without_labels_is_passed_over(header: list[str], tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", X, Y.tolist(), ["label", *PIXELS])
    write_table(tmp_path / "test.csv", X, None, header)
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    source = find_images(tmp_path)
    assert len(source.images) == 12
    assert source.ignored_files == ["test.csv"]
    assert source.remarks == ["test.csv is passed over: it has no labels"]


def test_only_tables_without_labels_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "test.csv", X, None, PIXELS)
    assert "test.csv is passed over: it has no labels" in read_error(tmp_path)


def test_emnist_is_turned_upright(tmp_path: Path) -> None:
    write_table(tmp_path / "emnist-letters-train.csv", X.transpose(0, 2, 1), Y.tolist())
    source = find_images(tmp_path)
    assert np.array_equal(read_all(source), X)
    assert "turned upright" in source.remarks[0]


def test_several_sets_of_emnist_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "emnist-letters-train.csv", X, Y.tolist())
    write_table(tmp_path / "emnist-digits-train.csv", X, Y.tolist())
    assert "emnist-digits-train.csv, emnist-letters-train.csv; put the tables of one" in read_error(tmp_path)


def test_tables_of_different_shapes_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "hmnist_28_28_L.csv", X, Y.tolist())
    write_table(tmp_path / "hmnist_8_8_L.csv", X[:, :8, :8], Y.tolist())
    assert "hmnist_28_28_L.csv, hmnist_8_8_L.csv" in read_error(tmp_path)


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("1,2,3", "Expected 785 columns, got 3", id="short row"),
        pytest.param("1," + ",".join(["x"] * 784), "invalid value 'x'", id="text"),
        pytest.param("," + ",".join(["0"] * 784), "row 13 has no label", id="no label"),
    ],
)
def test_broken_row_is_named(line: str, message: str, tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.csv", X, Y.tolist(), ["label", *PIXELS])
    file.write_text(file.read_text() + line + "\n")
    error = read_error(tmp_path)
    assert f"cannot read {tmp_path} as CSV" in error
    assert message in error
    assert "\n" not in error


def test_pixels_that_make_no_square_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", X.reshape(12, 784)[:, 1:], Y.tolist(), ["label", *PIXELS[1:]])
    assert "a table with 783 columns of pixels, which make no square image" in read_error(tmp_path)


def test_half_a_packed_table_is_refused(tmp_path: Path) -> None:
    plain = write_table(tmp_path / "a.csv", np.repeat(X, 600, 0), np.repeat(Y, 600).tolist())
    packed = gzip.compress(plain.read_bytes(), 1)
    plain.unlink()
    (tmp_path / "a.csv.gz").write_bytes(packed[: len(packed) * 9 // 10])
    assert "cannot read" in read_error(tmp_path)


def test_value_that_is_missing_spoils_one_image(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.csv", X, Y.tolist())
    lines = file.read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ","
    file.write_text("\n".join(lines))
    contents = [np.asarray(image.content) for image in find_images(tmp_path).images]
    assert [bool(np.isnan(content).any()) for content in contents] == [index == 3 for index in range(12)]
