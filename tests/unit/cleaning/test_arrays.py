"""Arrays of images and labels in NumPy and IDX files, as `find_images` reads them."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.cleaning.importers import find_images
from pipeline.cleaning.raw_images import RawImage
from pipeline.data.forms import MNIST_FORM
from pipeline.data.idx import name_idx_files, write_idx
from pipeline.data.images import UnusableImageError
from pipeline.errors import UserError

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (12, 28, 28), np.uint8)
X[:, 0, 0] = 255
Y = np.arange(12, dtype=np.uint8) % 3
COLOURS = RANDOM.integers(0, 256, (12, 20, 30, 3), np.uint8)
COLOURS[:, 0, 0] = 255
GREY = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in COLOURS])
BINARY = np.where(X > 127, 255, 0)
NAMES = ("cat", "dog", "emu")
NUMBERS = [str(label) for label in Y]
CLASS_NAMES = [NAMES[label] for label in Y]


def list_labels(source: Path) -> list[str]:
    return [image.label for image in find_images(source).images]


def read_all(images: list[RawImage]) -> np.ndarray:
    return np.stack([image.read(MNIST_FORM) for image in images])


def read_error(source: Path) -> str:
    """Return why the source is refused; the text names it."""
    with pytest.raises(UserError) as refused:
        find_images(source)
    text = str(refused.value)
    assert str(source) in text
    return text


# --- IDX ------------------------------------------------------------------------------------------------------------


def write_idx_pairs(folder: Path, *splits: str) -> None:
    """Write gzipped images and labels for each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits or ("train", "test"):
        images_name, labels_name = name_idx_files(split)
        write_idx(folder / f"{images_name}.gz", X)
        write_idx(folder / f"{labels_name}.gz", Y)


def unpack_all(folder: Path) -> None:
    for file in folder.glob("*.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read(packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx_pairs(folder)
    if not packed:
        unpack_all(folder)
    source = find_images(tmp_path)
    assert source.kind == "idx"
    assert source.ignored_files == []
    assert sorted(image.split for image in source.images) == ["test"] * 12 + ["train"] * 12
    assert [image.label for image in source.images] == NUMBERS * 2
    assert np.array_equal(read_all(source.images), [*X, *X])


def test_idx_images_are_named_by_index(tmp_path: Path) -> None:
    write_idx_pairs(tmp_path, "train")
    names = [image.name for image in find_images(tmp_path).images]
    assert names == [f"train-images-idx3-ubyte[{index}]" for index in range(12)]


def test_packed_idx_file_is_preferred(tmp_path: Path) -> None:
    write_idx_pairs(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"half unpacked")
    images = find_images(tmp_path).images
    assert np.array_equal(read_all(images), [*X, *X])


@pytest.mark.parametrize("folder", [".", "MNIST", "MNIST/raw"])
def test_classes_json_names_idx_labels(folder: str, tmp_path: Path) -> None:
    write_idx_pairs(tmp_path / "MNIST" / "raw")
    (tmp_path / folder / "classes.json").write_text(json.dumps(NAMES))
    assert list_labels(tmp_path) == CLASS_NAMES * 2
    assert list_labels(tmp_path / "MNIST" / "raw") == CLASS_NAMES * 2


@pytest.mark.parametrize("content", ['["cat", "dog"]', '{"cat": 0, "dog": 1, "emu": 2}', '"cat"', "cat", "[]", "3"])
def test_wrong_classes_json_is_refused(content: str, tmp_path: Path) -> None:
    write_idx_pairs(tmp_path)
    (tmp_path / "classes.json").write_text(content)
    assert "cannot read" in read_error(tmp_path)


@pytest.mark.parametrize("names", [["cat", "dog", "cat"], ["cat", "dog", "dog "], ["cat", "dog", " "]])
def test_class_names_must_differ(names: list[str], tmp_path: Path) -> None:
    write_idx_pairs(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(names))
    assert "classes.json: " in read_error(tmp_path)
    assert "give every class a name of its own" in read_error(tmp_path)


@pytest.mark.parametrize("other", ["", " ", "cat "])
def test_array_labels_must_differ(other: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", allow_pickle=True, X=X, y=np.where(Y == 0, "cat", other))
    assert "give every class a name of its own" in read_error(tmp_path / "all.npz")


@pytest.mark.parametrize(("code", "dtype", "label"), [(0x09, "i1", -1), (0x0B, ">i2", -1), (0x0D, ">f4", 0.5)])
def test_label_without_a_name_is_refused(code: int, dtype: str, label: float, tmp_path: Path) -> None:
    write_idx_pairs(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    labels = np.where(Y == 0, label, Y).astype(dtype)
    header = struct.pack(">HBBI", 0, code, 1, 12)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    assert "is not a list with a name for each label" in read_error(tmp_path)


def test_hidden_idx_file_is_skipped(tmp_path: Path) -> None:
    write_idx_pairs(tmp_path)
    (tmp_path / "._train-images-idx3-ubyte.gz").write_bytes(b"\0\5\x16\7")  # as macOS leaves them on a USB stick
    assert len(find_images(tmp_path).images) == 24


def test_idx_files_in_two_folders_are_refused(tmp_path: Path) -> None:
    write_idx_pairs(tmp_path / "letters")
    write_idx_pairs(tmp_path / "digits")
    assert f"{tmp_path}/digits, {tmp_path}/letters; name one of them" in read_error(tmp_path)
    assert len(find_images(tmp_path / "letters").images) == 24


def double(folder: Path, change: int = 0) -> None:
    """Write the file of images as one dotted name, and again in a folder of its own name."""
    write_idx_pairs(folder, "train")
    unpack_all(folder)
    images = folder / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.rename(folder / "train-images.idx3-ubyte")
    images.mkdir()
    (images / "train-images-idx3-ubyte").write_bytes(content[:-1] + bytes([content[-1] ^ change]))


def test_doubled_idx_file_counts_once(tmp_path: Path) -> None:
    double(tmp_path)
    images = find_images(tmp_path).images
    assert [image.label for image in images] == NUMBERS
    assert np.array_equal(read_all(images), X)


def test_doubles_with_different_content_are_refused(tmp_path: Path) -> None:
    double(tmp_path, change=1)
    names = "train-images.idx3-ubyte and train-images-idx3-ubyte/train-images-idx3-ubyte have different content"
    assert names in read_error(tmp_path)


def test_idx_files_may_lie_in_folders_of_their_names(tmp_path: Path) -> None:
    write_idx_pairs(tmp_path, "train")
    unpack_all(tmp_path)
    for file in list(tmp_path.iterdir()):
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        (file / file.name).write_bytes(content)
    assert list_labels(tmp_path) == NUMBERS


def test_emnist_is_turned_upright(tmp_path: Path) -> None:
    write_idx(tmp_path / "emnist-letters-train-images-idx3-ubyte.gz", X.transpose(0, 2, 1))
    write_idx(tmp_path / "emnist-letters-train-labels-idx1-ubyte.gz", Y)
    source = find_images(tmp_path)
    assert np.array_equal(read_all(source.images), X)
    assert source.remarks == ["EMNIST's files have rows and columns exchanged: its images were turned upright"]


# --- NumPy ----------------------------------------------------------------------------------------------------------


def save_npz(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "all.npz", allow_pickle=True, **arrays)
    return folder / "all.npz"


def save_npy(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


SAVE_FUNCTIONS = pytest.mark.parametrize("save", [save_npz, save_npy])
Save = Callable[[Path, dict[str, np.ndarray]], Path]


@SAVE_FUNCTIONS
@pytest.mark.parametrize(
    "pairs",
    [
        {"train": ("X_train", "y_train"), "test": ("X_test", "y_test")},  # scikit-learn
        {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},  # Keras
        {"train": ("train_images", "train_labels"), "test": ("test_images", "test_labels")},  # medmnist
        {"train": ("val_images", "val_labels"), "test": ("test-data", "test-targets")},
        {"": ("X", "y")},
        {"": ("images", "labels"), "test": ("test_image", "test_label")},
    ],
)
def test_arrays_are_paired_by_name(pairs: dict[str, tuple[str, str]], save: Save, tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for start, (images_name, labels_name) in enumerate(pairs.values()):  # arrays of different lengths
        arrays[labels_name] = Y[start:]
        arrays[images_name] = X[start:]
    source = find_images(save(tmp_path, arrays))
    assert source.kind == "arrays"
    for start, split in enumerate(pairs):
        images = [image for image in source.images if image.split == split]
        assert [image.label for image in images] == NUMBERS[start:]
        assert np.array_equal(read_all(images), X[start:])


@pytest.mark.parametrize(("save", "name"), [(save_npz, "X_test[3]"), (save_npy, "X_test.npy[3]")])
def test_array_images_are_named_by_index(save: Save, name: str, tmp_path: Path) -> None:
    images = find_images(save(tmp_path, {"X_test": X, "y_test": Y})).images
    assert images[3].name == name


def test_validation_arrays_are_for_training(tmp_path: Path) -> None:
    arrays = {
        "train_images": X,
        "train_labels": Y,
        "val_images": X[:4],
        "val_labels": Y[:4],
        "test_images": X[:2],
        "test_labels": Y[:2],
    }
    splits = [image.split for image in find_images(save_npz(tmp_path, arrays)).images]
    assert sorted(splits) == ["test"] * 2 + ["train"] * 16


def test_hidden_array_is_skipped(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    (tmp_path / "._a.npz").write_bytes(b"\0\5\x16\7")
    assert len(find_images(tmp_path).images) == 12


@pytest.mark.parametrize("order", ["images first", "labels first"])
def test_unnamed_arrays_are_told_apart_by_shape(order: str, tmp_path: Path) -> None:
    pair = [X, Y] if order == "images first" else [Y[:, None], X.reshape(12, 784)]
    np.savez(tmp_path / "a.npz", *pair)
    images = find_images(tmp_path / "a.npz").images
    assert [image.label for image in images] == NUMBERS
    assert np.array_equal(read_all(images), X)


def test_two_pairs_of_unnamed_arrays_are_train_and_test(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X[:8], Y[:8], X[8:], Y[8:])
    images = find_images(tmp_path / "a.npz").images
    assert [image.split for image in images] == ["test"] * 4 + ["train"] * 8
    assert np.array_equal(read_all(images), [*X[8:], *X[:8]])


@pytest.mark.parametrize("names", [("cat.npy", "dog.npy"), ("full_numpy_bitmap_cat.npy", "full_numpy_bitmap_dog.npy")])
@pytest.mark.parametrize("shape", [(784,), (28, 28)])
def test_one_array_a_class_is_read(names: tuple[str, str], shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / names[0], X[:5].reshape(5, *shape))
    np.save(tmp_path / names[1], X[5:].reshape(7, *shape))
    source = find_images(tmp_path)
    assert [image.label for image in source.images] == ["cat"] * 5 + ["dog"] * 7
    assert source.images[6].name == f"{names[1]}[1]"
    assert np.array_equal(read_all(source.images), X)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_bits_of_large_values_are_found(bits: int, dtype: type, tmp_path: Path) -> None:
    white = 2 ** max(bits, 12) - 1  # ten bits are stored as twelve
    pixels: np.ndarray = np.where(X > 127, 2**bits - 1, 0).astype(dtype)
    images = find_images(save_npz(tmp_path, {"x": pixels, "y": Y})).images
    assert {image.white for image in images} == {white}
    assert read_all(images).max() == round(255 * (2**bits - 1) / white)


@pytest.mark.parametrize(
    ("pixels", "values"),
    [
        pytest.param(X / 127.5 - 1, "from -1 to 1", id="-1 to 1"),
        pytest.param((X / 255 - 0.1307) / 0.3081, "from -0.424213 to 2.82149", id="by mean and deviation"),
        pytest.param((X.astype(np.int16) - 128).astype(np.int8), "from -128 to 127", id="signed"),
    ],
)
def test_normalised_values_are_named(pixels: np.ndarray, values: str, tmp_path: Path) -> None:
    message = f"x has normalised values {values}; give 0 to 255"
    assert message in read_error(save_npz(tmp_path, {"x": pixels, "y": Y}))


@SAVE_FUNCTIONS
@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        pytest.param(X.reshape(12, 784), X, id="one row each"),
        pytest.param(X[:, None], X, id="N 1 H W"),
        pytest.param(X[..., None], X, id="N H W 1"),
        pytest.param(X[:, :, :20], X[:, :, :20], id="not square"),
        pytest.param(COLOURS, GREY, id="N H W 3"),
        pytest.param(np.moveaxis(COLOURS, 3, 1), GREY, id="N 3 H W"),
        pytest.param(np.asfortranarray(X), X, id="by columns"),
        pytest.param(X / 255, X, id="float64 to 1"),
        pytest.param((X / 255).astype(np.float32), X, id="float32 to 1"),
        pytest.param(X.astype(np.float32), X, id="float32 to 255"),
        pytest.param(COLOURS.astype(np.float64) / 255, GREY, id="colours to 1"),
        pytest.param(X.astype(np.int64), X, id="int64"),
        pytest.param(X.astype(np.uint16) * 257, X, id="uint16"),
        pytest.param(X.astype(">i4"), X, id="other byte order"),
        pytest.param(X > 127, BINARY, id="bool"),
        pytest.param((X > 127).astype(np.uint8), BINARY, id="zeros and ones"),
    ],
)
def test_pixels_of_every_type_are_read(pixels: np.ndarray, expected: np.ndarray, save: Save, tmp_path: Path) -> None:
    grey = read_all(find_images(save(tmp_path, {"x": pixels, "y": Y})).images)
    assert grey.dtype == np.uint8
    assert np.array_equal(grey, expected)


def test_float16_is_read_with_rounding(tmp_path: Path) -> None:
    pixels = (X / 255).astype(np.float16)
    grey = read_all(find_images(save_npz(tmp_path, {"x": pixels, "y": Y})).images)
    assert np.abs(grey.astype(int) - X).max() <= 1


def test_dark_image_stays_dark(tmp_path: Path) -> None:
    pixels = X / 255
    pixels[3] *= 0.1
    images = find_images(save_npz(tmp_path, {"x": pixels, "y": Y})).images
    assert images[3].read(MNIST_FORM).max() == 26  # 0.1 of 255


def test_bad_image_does_not_change_white(tmp_path: Path) -> None:
    pixels = X / 255
    pixels[4, 5, 5] = 255
    pixels[5, 5, 5] = np.nan
    pixels[6, 5, 5] = -1
    pixels[7] = np.nan
    images = find_images(save_npz(tmp_path, {"x": pixels, "y": Y})).images
    problems = {}
    for index, image in enumerate(images):
        try:
            assert np.array_equal(image.read(MNIST_FORM), X[index])
        except UnusableImageError as error:
            problems[index] = error.problem
    assert problems == {4: "out_of_range", 5: "not_finite", 6: "out_of_range", 7: "not_finite"}


@pytest.mark.parametrize("indices", [(...,), (..., 3, 4)])
def test_nan_in_every_image_is_reported(indices: tuple[Any, ...], tmp_path: Path) -> None:
    pixels = X / 255
    pixels[indices] = np.nan
    images = find_images(save_npz(tmp_path, {"x": pixels, "y": Y})).images
    assert len(images) == 12
    for image in images:
        with pytest.raises(UnusableImageError, match="not numbers"):
            image.read(MNIST_FORM)


def test_mostly_black_bytes_keep_their_levels(tmp_path: Path) -> None:
    pixels = X.copy()
    pixels[2:] = 0
    images = find_images(save_npz(tmp_path, {"x": pixels, "y": Y})).images
    assert np.array_equal(read_all(images), pixels)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(np.array(NAMES)[Y], CLASS_NAMES, id="names"),
        pytest.param(np.array(NAMES, bytes)[Y], CLASS_NAMES, id="bytes"),
        pytest.param(np.array(["$x$", "ü", "`|"])[Y], ["$x$", "ü", "`|"] * 4, id="odd names"),
        pytest.param(Y[:, None], NUMBERS, id="one column"),
        pytest.param(Y.astype(np.float64), NUMBERS, id="floats"),
        pytest.param(Y.astype(np.int64) - 1, ["-1", "0", "1"] * 4, id="negative"),
        pytest.param(Y > 0, ["False", "True", "True"] * 4, id="bool"),
    ],
)
def test_labels_become_class_names(labels: np.ndarray, expected: list[str], tmp_path: Path) -> None:
    assert list_labels(save_npz(tmp_path, {"x": X, "y": labels})) == expected


# --- arrays that are refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param({"x": X, "y": Y[:-1]}, "x: 12 images and 11 labels", id="lengths differ"),
        pytest.param({"x": X[:0], "y": Y[:0]}, "x: 0 images and 0 labels", id="empty"),
        pytest.param({"x_train": X}, "'x_train' has no partner", id="no labels"),
        pytest.param({"x_train": X, "y_train": Y, "y_test": Y}, "'y_test' has no partner", id="no images"),
        pytest.param({"x_train": X, "y_test": Y}, "has no partner", id="of different splits"),
        pytest.param({"x": X, "y": Y, "weights": Y}, "'weights' is neither images", id="other array"),
        pytest.param({"x": X, "images": X, "y": Y}, "'images' and 'x' both hold images", id="two of a kind"),
        pytest.param({"x": X, "y": np.eye(3)[Y]}, "labels of 3 columns", id="one-hot labels"),
        pytest.param({"x": X, "y": Y + 0.5}, "labels that are not integers", id="fractions"),
        pytest.param({"x": X, "y": np.where(Y, np.nan, 0)}, "labels that are not integers", id="NaN"),
        pytest.param({"x": X, "y": np.where(Y, np.inf, 0)}, "labels that are not integers", id="infinite"),
        pytest.param({"x": X.reshape(12, 784)[:, 1:], "y": Y}, "x: uint8 [12, 783]", id="not a square"),
        pytest.param({"x": np.zeros((12, 8, 8, 4)), "y": Y}, "x: float64 [12, 8, 8, 4]", id="four colours"),
        pytest.param({"x": X + 0j, "y": Y}, "x: complex128 [12, 28, 28]", id="complex"),
        pytest.param({"x": X.astype(str), "y": Y}, "x: <U", id="text for pixels"),
        pytest.param({"x": X, "y": np.array(3)}, "a single number instead of labels", id="one number for labels"),
        pytest.param({"x": np.array(3), "y": Y}, "x: 0 images and 12 labels", id="one number for images"),
        pytest.param({"arr_0": X, "arr_1": X}, "2 arrays of images and 0 of labels; save them by name", id="unnamed"),
        pytest.param({}, "there are no images", id="no array"),
    ],
)
def test_arrays_must_fit_together(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    assert message in read_error(save_npz(tmp_path, arrays))


class TouchingPickle:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(("save", "file"), [(save_npz, "all.npz"), (save_npy, "y.npy")])
def test_pickle_is_refused_and_not_run(save: Save, file: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    folder = tmp_path / "arrays"
    folder.mkdir()
    objects = np.array([TouchingPickle(touched)] * 12, object)
    source = save(folder, {"x": X, "y": objects})
    assert "cannot read" in read_error(source)
    assert not touched.exists()
    content = np.load(folder / file, allow_pickle=True)
    if file == "all.npz":
        content["y"]
    assert touched.exists()  # it would have run


# --- damaged files --------------------------------------------------------------------------------------------------


def cut_end(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:-size])


def truncate_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", x=X, y=Y)
    cut_end(folder / "a.npz", 100)


def alter_npz(folder: Path) -> None:
    np.savez(folder / "a.npz", x=X, y=Y)
    content = bytearray((folder / "a.npz").read_bytes())
    content[1_000] ^= 255
    (folder / "a.npz").write_bytes(content)


def misname_npy(folder: Path) -> None:
    np.save(folder / "x.npy", X)
    (folder / "x.npy").rename(folder / "x.npz")


def truncate_packed_idx(folder: Path) -> None:
    write_idx_pairs(folder)
    cut_end(folder / "t10k-images-idx3-ubyte.gz", 500)


def truncate_idx(folder: Path) -> None:
    write_idx_pairs(folder)
    unpack_all(folder)
    cut_end(folder / "t10k-images-idx3-ubyte", 500)


def remove_idx_labels(folder: Path) -> None:
    write_idx_pairs(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_npz, "cannot read"),
        (alter_npz, "cannot read"),
        (misname_npy, "'x.npz' has no partner"),
        (truncate_packed_idx, "cannot read"),
        (truncate_idx, "not a complete IDX file"),
        (remove_idx_labels, "'t10k-images-idx3-ubyte' has no partner"),
    ],
)
def test_damaged_files_are_refused(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    damage(tmp_path)
    assert message in read_error(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.npz", b""), ("a.npz", b"hello"), ("x.npy", b"\x93NUMPY"), ("train-images-idx3-ubyte", b"hello")],
)
def test_other_content_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert "cannot read" in read_error(tmp_path)
