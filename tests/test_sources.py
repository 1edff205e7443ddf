import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import UserError, images, sources
from pipeline.sources import Raw

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (12, 28, 28), np.uint8)
X[:, 0, 0] = 255
Y = np.arange(12, dtype=np.uint8) % 3
NAMES = ("cat", "dog", "emu")


def draw(folder: Path, *files: str) -> list[str]:
    """Write a picture of its own for each file; return the files."""
    for number, name in enumerate(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[number % len(X)]).save(folder / name)
    return [*files]


def table(found: list[Raw]) -> list[tuple[str, str, str]]:
    return [(raw.name, raw.label, raw.part) for raw in found]


def refusal(source: Path) -> str:
    with pytest.raises(UserError) as refused:
        sources.find(source)
    return str(refused.value)


# --- folders ----------------------------------------------------------------------------------------------------


def test_a_folder_for_each_class_gives_its_pictures_their_label(tmp_path: Path) -> None:
    draw(tmp_path, "dog/2.jpg", "cat/1.png", "dog/more/3.PNG", "cat/10.webp")
    kind, found, ignored = sources.find(tmp_path)
    assert (kind, ignored) == ("folders", [])
    assert table(found) == [
        ("cat/1.png", "cat", ""),
        ("cat/10.webp", "cat", ""),
        ("dog/2.jpg", "dog", ""),
        ("dog/more/3.PNG", "dog", ""),
    ]
    for raw in found:
        assert raw.picture == tmp_path / raw.name
    assert np.array_equal(found[0].grey(), X[1])


def test_classes_and_pictures_are_those_of_torchvisions_imagefolder(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    source = tmp_path / "source"
    draw(source, "b/1.png", "a/2.jpg", "B/3.bmp", "ä/4.tif", "10/5.png", "9/deep/er/6.webp", "9/7.jpeg")
    draw(tmp_path, "elsewhere/8.png")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    theirs = ImageFolder(source)
    _, found, _ = sources.find(source)
    assert sources.order(raw.label for raw in found) == theirs.classes
    assert {(str(raw.picture), raw.label) for raw in found} == {
        (file, theirs.classes[label]) for file, label in theirs.samples
    }


def test_a_folder_may_be_called_as_a_file_is(tmp_path: Path) -> None:
    files = draw(tmp_path / "letters.npz", "a/1.png", "b/2.png")
    assert [raw.name for raw in sources.find(tmp_path / "letters.npz")[1]] == files


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "webp"])
def test_every_format_is_found_by_its_name_in_small_and_capital_letters(suffix: str, tmp_path: Path) -> None:
    files = draw(tmp_path, f"a/1.{suffix}", f"b/2.{suffix.upper()}")
    assert [raw.name for raw in sources.find(tmp_path)[1]] == files


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train", "validation", "t10k")],
)
def test_parts_stand_above_the_classes_and_validation_joins_training(
    train: str, validation: str, test: str, tmp_path: Path
) -> None:
    draw(tmp_path, f"{train}/cat/1.png", f"{validation}/cat/1.png", f"{test}/dog/1.png", f"{test}/cat/x/2.png")
    _, found, ignored = sources.find(tmp_path)
    assert sorted(table(found)) == sorted(
        [
            (f"{train}/cat/1.png", "cat", "train"),
            (f"{validation}/cat/1.png", "cat", "train"),
            (f"{test}/dog/1.png", "dog", "test"),
            (f"{test}/cat/x/2.png", "cat", "test"),
        ]
    )
    assert ignored == []


def test_a_training_part_alone_is_a_part(tmp_path: Path) -> None:
    draw(tmp_path, "train/cat/1.png", "train/dog/2.png")
    assert table(sources.find(tmp_path)[1]) == [
        ("train/cat/1.png", "cat", "train"),
        ("train/dog/2.png", "dog", "train"),
    ]


@pytest.mark.parametrize(
    "classes", [("train", "bus"), ("train", "bus", "test"), ("train", "valid", "invalid"), ("test",)]
)
def test_a_class_may_be_called_train_or_test(classes: tuple[str, ...], tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/1.png" for name in classes))
    assert sorted(table(sources.find(tmp_path)[1])) == sorted((f"{name}/1.png", name, "") for name in classes)


@pytest.mark.parametrize(
    "hidden", ["a/.3.png", ".cache/4.png", "b/.thumbs/5.png", "a/._1.png", "b/.DS_Store", ".DS_Store"]
)
def test_hidden_files_and_folders_are_skipped_in_silence(hidden: str, tmp_path: Path) -> None:
    files = draw(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_bytes((tmp_path / "a" / "1.png").read_bytes())
    _, found, ignored = sources.find(tmp_path)
    assert [raw.name for raw in found] == files
    assert ignored == []


def test_a_hidden_folder_beside_the_parts_makes_them_no_classes(tmp_path: Path) -> None:
    draw(tmp_path, "train/a/1.png", ".ipynb_checkpoints/2.png")
    assert table(sources.find(tmp_path)[1]) == [("train/a/1.png", "a", "train")]


def test_files_that_are_no_pictures_by_name_are_told(tmp_path: Path) -> None:
    files = draw(tmp_path, "a/1.png", "b/2.png")
    for name in ("README.md", "b/labels.csv", "a/deep.heic", "a/png"):
        (tmp_path / name).write_text("?")
    (tmp_path / "a" / "folder.png").mkdir()
    _, found, ignored = sources.find(tmp_path)
    assert [raw.name for raw in found] == files
    assert ignored == ["README.md", "a/deep.heic", "a/png", "b/labels.csv"]


def test_pictures_that_lie_in_no_class_are_told(tmp_path: Path) -> None:
    files = draw(tmp_path, "test/a/1.png", "train/a/1.png")
    lost = draw(tmp_path, "3.png", "test/2.png", "train/1.png")
    (tmp_path / "train" / "notes.txt").write_text("?")
    _, found, ignored = sources.find(tmp_path)
    assert [raw.name for raw in found] == files
    assert ignored == [*lost, "train/notes.txt"]


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        (["10", "9", "0", "9"], ["0", "9", "10"]),
        (["b", "a", "B", "ä"], ["B", "a", "b", "ä"]),
        (["10", "9", "a"], ["10", "9", "a"]),  # not all are numbers
        (["1", "001", "2", "01", "0001"], ["0001", "001", "01", "1", "2"]),
        (["²", "1"], ["1", "²"]),
        ([], []),
    ],
)
def test_classes_are_ordered_numbers_by_size_and_names_by_letters(labels: list[str], ordered: list[str]) -> None:
    assert sources.order(labels) == ordered


# --- IDX --------------------------------------------------------------------------------------------------------


def write_idx(folder: Path, parts: tuple[str, ...] = ("train", "t10k"), packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for name, array in ((f"{part}-images-idx3-ubyte", X), (f"{part}-labels-idx1-ubyte", Y)):
            images.write_idx(folder / f"{name}.gz", array)
            if not packed:
                (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
                (folder / f"{name}.gz").unlink()


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(packed: bool, tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", packed=packed)
    kind, found, ignored = sources.find(tmp_path)
    assert (kind, ignored) == ("idx", [])
    assert [raw.label for raw in found] == [str(label) for label in Y] * 2
    assert {part: sum(raw.part == part for raw in found) for part in ("train", "test")} == {"train": 12, "test": 12}
    for raw, image in zip(found, [*X, *X], strict=True):
        assert np.array_equal(raw.grey(), image)
    assert {raw.name for raw in found if raw.part == "train"} == {f"train-images-idx3-ubyte[{i}]" for i in range(12)}


def test_of_an_idx_file_that_lies_there_packed_and_unpacked_the_packed_one_counts(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"half unpacked")
    write_idx(tmp_path)
    _, found, _ = sources.find(tmp_path)
    assert len(found) == 24
    assert np.array_equal(found[0].grey(), X[0])


@pytest.mark.parametrize("place", [".", "MNIST", "MNIST/raw"])
def test_classes_json_beside_or_above_idx_files_names_the_classes(place: str, tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    (tmp_path / place / "classes.json").write_text(json.dumps(NAMES))
    for source in (tmp_path, tmp_path / "MNIST" / "raw"):
        assert [raw.label for raw in sources.find(source)[1]] == [NAMES[label] for label in Y] * 2


@pytest.mark.parametrize("content", ['["cat", "dog"]', '{"cat": 0, "dog": 1, "emu": 2}', '"cat"', "cat", "[]", "3"])
def test_a_classes_json_that_does_not_fit_is_refused(content: str, tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "classes.json").write_text(content)
    assert f"cannot read {tmp_path}" in refusal(tmp_path)


@pytest.mark.parametrize(("code", "kind"), [(0x09, "i1"), (0x0B, ">i2"), (0x0D, ">f4")])
def test_labels_below_zero_or_with_a_fraction_have_no_name_in_classes_json(
    code: int, kind: str, tmp_path: Path
) -> None:
    write_idx(tmp_path, ("train",))
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    labels = np.where(Y == 0, 0.5 if kind == ">f4" else -1.0, Y).astype(kind)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, code, 1, 12) + labels.tobytes())
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    assert f"cannot read {tmp_path}" in refusal(tmp_path)


def test_hidden_files_beside_idx_files_and_arrays_are_skipped(tmp_path: Path) -> None:
    write_idx(tmp_path / "idx")
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "a.npz", x=X, y=Y)
    for name in ("idx/._train-images-idx3-ubyte.gz", "arrays/._a.npz"):  # as macOS leaves them on a USB stick
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert len(sources.find(tmp_path / "idx")[1]) == 24
    assert len(sources.find(tmp_path / "arrays")[1]) == 12


def test_idx_files_in_two_folders_are_refused_with_both_names(tmp_path: Path) -> None:
    for name in ("letters", "digits"):
        write_idx(tmp_path / name)
    assert f"{tmp_path}/digits, {tmp_path}/letters; name one of them" in refusal(tmp_path)
    assert len(sources.find(tmp_path / "letters")[1]) == 24


# --- arrays -----------------------------------------------------------------------------------------------------


def store(folder: Path, packed: bool, **arrays: np.ndarray) -> Path:
    """Write one .npz or several .npy files; return what to name as the source."""
    if packed:
        np.savez(folder / "all.npz", allow_pickle=True, **arrays)
        return folder / "all.npz"
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("packed", [True, False])
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
def test_arrays_are_paired_by_their_names(pairs: dict[str, tuple[str, str]], packed: bool, tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for number, (image_name, label_name) in enumerate(pairs.values()):
        arrays |= {label_name: Y[number:], image_name: X[number:]}
    kind, found, _ = sources.find(store(tmp_path, packed, **arrays))
    assert kind == "arrays"
    suffix = "" if packed else ".npy"
    assert sorted(table(found)) == sorted(
        (f"{image_name}{suffix}[{i}]", str(Y[number + i]), part)
        for number, (part, (image_name, _)) in enumerate(pairs.items())
        for i in range(12 - number)
    )
    for raw in found:
        start = [*pairs].index(raw.part)
        place = int(raw.name.rpartition("[")[2].rstrip("]"))
        assert np.array_equal(raw.grey(), X[start + place])


def test_training_and_validation_arrays_are_both_for_training(tmp_path: Path) -> None:
    arrays = {f"{part}_images": X[:size] for part, size in (("train", 12), ("val", 4), ("test", 2))}
    arrays |= {name.replace("images", "labels"): Y[: len(array)] for name, array in arrays.items()}
    source = store(tmp_path, True, **arrays)
    parts = [raw.part for raw in sources.find(source)[1]]
    assert (parts.count("train"), parts.count("test")) == (16, 2)


COLOURS = RANDOM.integers(0, 256, (12, 20, 30, 3), np.uint8)
COLOURS[:, 0, 0] = 255
GREY = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in COLOURS])


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        pytest.param(X.reshape(12, 784), X, id="a row for each"),
        pytest.param(X[:, None], X, id="N 1 H W"),
        pytest.param(X[..., None], X, id="N H W 1"),
        pytest.param(X[:, :, :20], X[:, :, :20], id="not square"),
        pytest.param(COLOURS, GREY, id="N H W 3"),
        pytest.param(np.moveaxis(COLOURS, 3, 1), GREY, id="N 3 H W"),
        pytest.param(np.asfortranarray(X), X, id="by columns"),
        pytest.param(X / 255, X, id="float64 to 1"),
        pytest.param((X / 255).astype(np.float32), X, id="float32 to 1"),
        pytest.param((X / 255).astype(np.float16), X, id="float16 to 1"),
        pytest.param(X.astype(np.float32), X, id="float32 to 255"),
        pytest.param(COLOURS.astype(np.float64) / 255, GREY, id="colours to 1"),
        pytest.param(X.astype(np.int64), X, id="int64"),
        pytest.param(X.astype(np.uint16) * 257, X, id="uint16"),
        pytest.param(X.astype(">i4"), X, id="another byte order"),
        pytest.param(X > 127, np.where(X > 127, 255, 0), id="bool"),
        pytest.param((X > 127).astype(np.uint8), np.where(X > 127, 255, 0), id="zeros and ones"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_pixels_of_every_shape_and_type_give_the_same_grey_levels(
    pixels: np.ndarray, expected: np.ndarray, packed: bool, tmp_path: Path
) -> None:
    _, found, _ = sources.find(store(tmp_path, packed, x=pixels, y=Y))
    grey = np.stack([raw.grey() for raw in found])
    assert grey.dtype == np.uint8
    assert grey.shape == expected.shape
    assert np.abs(grey.astype(int) - expected).max() <= (1 if pixels.dtype == np.float16 else 0)


def test_white_is_the_same_for_all_images_of_an_array(tmp_path: Path) -> None:
    """A dark image stays dark, and one image out of range is the fault of that image, not of the others."""
    pixels = X / 255
    pixels[3] *= 0.1
    pixels[4, 5, 5] = 255
    pixels[5, 5, 5] = np.nan
    pixels[6, 5, 5] = -1
    pixels[7] = np.nan
    _, found, _ = sources.find(store(tmp_path, True, x=pixels, y=Y))
    assert found[3].grey().max() == 26  # 0.1 of 255
    problems = {}
    for place, raw in enumerate(found):
        try:
            grey = raw.grey()
        except images.UnusableError as error:
            problems[place] = error.problem
        else:
            assert place == 3 or np.array_equal(grey, X[place])
    assert problems == {4: "out_of_range", 5: "not_finite", 6: "out_of_range", 7: "not_finite"}


@pytest.mark.parametrize("places", [(...,), (..., 3, 4)])
def test_where_every_image_has_nan_each_one_is_found_and_has_the_problem(
    places: tuple[Any, ...], tmp_path: Path
) -> None:
    pixels = X / 255
    pixels[places] = np.nan
    _, found, _ = sources.find(store(tmp_path, True, x=pixels, y=Y))
    assert len(found) == 12
    for raw in found:
        with pytest.raises(images.UnusableError) as refused:
            raw.grey()
        assert refused.value.problem == "not_finite"


def test_bytes_of_which_most_images_are_black_are_no_zeros_and_ones(tmp_path: Path) -> None:
    pixels = X.copy()
    pixels[2:] = 0
    _, found, _ = sources.find(store(tmp_path, True, x=pixels, y=Y))
    assert np.array_equal(np.stack([raw.grey() for raw in found]), pixels)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(np.array(NAMES)[Y], [NAMES[each] for each in Y], id="names"),
        pytest.param(np.array(NAMES, bytes)[Y], [NAMES[each] for each in Y], id="bytes"),
        pytest.param(np.array(["$x$", "ü", "`|"])[Y], ["$x$", "ü", "`|"] * 4, id="odd names"),
        pytest.param(Y[:, None], [str(each) for each in Y], id="one column"),
        pytest.param(Y.astype(np.float64), [str(each) for each in Y], id="floats"),
        pytest.param(Y.astype(np.int64) - 1, ["-1", "0", "1"] * 4, id="negative"),
        pytest.param(Y > 0, ["False", "True", "True"] * 4, id="bool"),
    ],
)
def test_labels_of_every_type_become_names(labels: np.ndarray, expected: list[str], tmp_path: Path) -> None:
    assert [raw.label for raw in sources.find(store(tmp_path, True, x=X, y=labels))[1]] == expected


# --- what does not fit together ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        pytest.param({"x": X, "y": Y[:-1]}, "x: 12 images and 11 labels", id="lengths differ"),
        pytest.param({"x": X[:0], "y": Y[:0]}, "", id="nothing in them"),
        pytest.param({"x_train": X}, "'x_train' has no partner", id="no labels"),
        pytest.param({"x_train": X, "y_train": Y, "y_test": Y}, "'y_test' has no partner", id="no images"),
        pytest.param({"x_train": X, "y_test": Y}, "has no partner", id="of different parts"),
        pytest.param({"x": X, "y": Y, "weights": Y}, "'weights' is neither images", id="another array"),
        pytest.param({"x": X, "images": X, "y": Y}, "'images' and 'x' both hold images", id="two of a kind"),
        pytest.param({"x": X, "y": np.eye(3)[Y]}, "labels of 3 columns", id="one-hot labels"),
        pytest.param({"x": X, "y": Y + 0.5}, "labels that are no whole numbers", id="labels with a fraction"),
        pytest.param({"x": X, "y": np.where(Y, np.nan, 0)}, "labels that are no whole numbers", id="no label"),
        pytest.param({"x": X, "y": np.where(Y, np.inf, 0)}, "labels that are no whole numbers", id="infinite labels"),
        pytest.param({"x": X.reshape(12, 784)[:, 1:], "y": Y}, "x: uint8 [12, 783]", id="not a square"),
        pytest.param({"x": np.zeros((12, 8, 8, 4)), "y": Y}, "x: float64 [12, 8, 8, 4]", id="four colours"),
        pytest.param({"x": X + 0j, "y": Y}, "x: complex128 [12, 28, 28]", id="complex"),
        pytest.param({"x": X.astype(str), "y": Y}, "x: <U", id="text for pixels"),
        pytest.param({"x": X, "y": np.array(3)}, "", id="one number for labels"),
        pytest.param({"x": np.array(3), "y": Y}, "", id="one number for images"),
        pytest.param({}, "", id="no array"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(arrays: dict[str, np.ndarray], named: str, tmp_path: Path) -> None:
    source = store(tmp_path, True, **arrays)
    said = refusal(source)
    assert str(source) in said
    assert named in said


class Evil:
    """What a pickle may do to whoever loads it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("packed", [True, False])
def test_arrays_of_python_objects_are_refused_and_run_nothing(packed: bool, tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    source = store(tmp_path / "arrays", packed, x=X, y=np.array([Evil(tmp_path / "touched")] * 12, object))
    assert str(source) in refusal(source)
    assert not (tmp_path / "touched").exists()
    np.load(tmp_path / "arrays" / ("all.npz" if packed else "y.npy"), allow_pickle=True)["y" if packed else ...]
    assert (tmp_path / "touched").exists()  # it would have


def damaged(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def truncated(folder: Path) -> None:
    np.savez(folder / "a.npz", x=X, y=Y)
    (folder / "a.npz").write_bytes((folder / "a.npz").read_bytes()[:-100])


def altered(folder: Path) -> None:
    np.savez(folder / "a.npz", x=X, y=Y)
    content = bytearray((folder / "a.npz").read_bytes())
    content[1_000] ^= 255
    (folder / "a.npz").write_bytes(content)


def misnamed(folder: Path) -> None:
    np.save(folder / "x.npy", X)
    (folder / "x.npy").rename(folder / "x.npz")


def half_an_idx_file(folder: Path) -> None:
    write_idx(folder)
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-500])


def short_idx_file(folder: Path) -> None:
    write_idx(folder, packed=False)
    file = folder / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-500])


def idx_without_labels(folder: Path) -> None:
    write_idx(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        pytest.param(lambda folder: None, "there are no images in", id="nothing"),
        pytest.param(lambda folder: (folder / "class").mkdir(), "there are no images in", id="an empty class"),
        pytest.param(damaged("notes.txt", b"hello"), "there are no images in", id="text"),
        pytest.param(damaged("a.npz", b""), "", id="empty npz"),
        pytest.param(damaged("a.npz", b"hello"), "", id="text named npz"),
        pytest.param(truncated, "", id="truncated npz"),
        pytest.param(altered, "", id="altered npz"),
        pytest.param(misnamed, "", id="npy named npz"),
        pytest.param(damaged("x.npy", b"\x93NUMPY"), "", id="truncated npy"),
        pytest.param(half_an_idx_file, "", id="truncated packed IDX"),
        pytest.param(short_idx_file, "no whole IDX file", id="truncated IDX"),
        pytest.param(idx_without_labels, "'t10k-images-idx3-ubyte' has no partner", id="IDX without labels"),
        pytest.param(damaged("train-images-idx3-ubyte", b"hello"), "no IDX file", id="text named IDX"),
    ],
)
def test_a_source_without_images_or_with_damaged_files_is_refused_in_one_sentence(
    make: Callable[[Path], object], named: str, tmp_path: Path
) -> None:
    make(tmp_path)
    said = refusal(tmp_path)
    assert str(tmp_path) in said
    assert named in said


def test_a_missing_source_or_another_file_is_refused_by_its_name(tmp_path: Path) -> None:
    assert f"{tmp_path}/missing is not there" in refusal(tmp_path / "missing")
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert f"{tmp_path}/a.zip" in refusal(tmp_path / "a.zip")
