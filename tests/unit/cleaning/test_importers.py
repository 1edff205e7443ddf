"""Folders of images, and the sources that are refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from pipeline.cleaning.importers import find_images
from pipeline.cleaning.raw_images import RawImage, sort_classes
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import SUFFIXES, UnusableImageError
from pipeline.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)


def draw(folder: Path, *names: str) -> list[str]:
    """Write a different picture for each name; return the names."""
    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[index]).save(file)
    return list(names)


def list_names(images: list[RawImage]) -> list[str]:
    return [image.name for image in images]


def summarize(images: list[RawImage]) -> list[tuple[str, str, str]]:
    return [(image.name, image.label, image.split) for image in images]


# --- classes --------------------------------------------------------------------------------------------------------


def test_folder_names_are_labels(tmp_path: Path) -> None:
    draw(tmp_path, "dog/2.jpg", "cat/1.png", "dog/more/3.PNG", "cat/10.webp")
    source = find_images(tmp_path)
    assert source.kind == "folders"
    assert source.ignored_files == []
    assert summarize(source.images) == [
        ("cat/1.png", "cat", ""),
        ("cat/10.webp", "cat", ""),
        ("dog/2.jpg", "dog", ""),
        ("dog/more/3.PNG", "dog", ""),
    ]


def test_image_is_read_from_its_file(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "b/2.png")
    first = find_images(tmp_path).images[0]
    assert first.content == tmp_path / "a" / "1.png"
    assert np.array_equal(first.read(MNIST_FORM), PIXELS[0])


def test_damaged_file_is_found_but_unusable(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "1.png").write_bytes(b"hello")
    with pytest.raises(UnusableImageError):
        find_images(tmp_path).images[0].read(MNIST_FORM)


def test_file_that_vanishes_is_unusable(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "b/2.png")
    image = find_images(tmp_path).images[0]
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(UnusableImageError, match="No such file"):
        image.read(MNIST_FORM)


def test_link_put_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    draw(tmp_path, "source/a/1.png", "source/b/2.png", "elsewhere/a/1.png")
    image = find_images(tmp_path / "source").images[0]
    shutil.rmtree(tmp_path / "source" / "a")
    (tmp_path / "source" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    with pytest.raises(UnusableImageError, match="Not a directory"):
        image.read(MNIST_FORM)


def test_classes_are_those_of_imagefolder(tmp_path: Path) -> None:
    draw(tmp_path, "b/1.png", "a/2.jpg", "B/3.bmp", "ä/4.tif", "10/5.png", "9/deep/er/6.webp", "9/7.jpeg")
    expected = ImageFolder(tmp_path)
    images = find_images(tmp_path).images
    assert sort_classes(image.label for image in images) == expected.classes
    labels = {(str(image.content), image.label) for image in images}
    assert labels == {(file, expected.classes[label]) for file, label in expected.samples}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffix_may_be_in_capitals(suffix: str, tmp_path: Path) -> None:
    names = draw(tmp_path, f"a/1{suffix}", f"b/2{suffix.upper()}")
    assert list_names(find_images(tmp_path).images) == names


def test_folder_may_have_a_suffix(tmp_path: Path) -> None:
    names = draw(tmp_path / "letters.npz", "a/1.png", "b.npz/2.png")
    assert list_names(find_images(tmp_path / "letters.npz").images) == names


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "0", "9"], ["0", "9", "10"]),
        (["b", "a", "B", "ä"], ["B", "a", "b", "ä"]),
        (["10", "9", "a"], ["10", "9", "a"]),  # not all are numbers
        (["1", "001", "2", "01", "0001"], ["0001", "001", "01", "1", "2"]),
        (["²", "1"], ["1", "²"]),
        ([], []),
    ],
)
def test_classes_are_sorted(labels: list[str], expected: list[str]) -> None:
    assert sort_classes(labels) == expected


# --- splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train", "validation", "t10k")],
)
def test_folders_above_classes_are_splits(train: str, validation: str, test: str, tmp_path: Path) -> None:
    draw(tmp_path, f"{train}/cat/1.png", f"{validation}/cat/1.png", f"{test}/dog/1.png", f"{test}/cat/x/2.png")
    source = find_images(tmp_path)
    assert source.ignored_files == []
    assert sorted(summarize(source.images)) == sorted(
        [
            (f"{train}/cat/1.png", "cat", "train"),
            (f"{validation}/cat/1.png", "cat", "train"),
            (f"{test}/dog/1.png", "dog", "test"),
            (f"{test}/cat/x/2.png", "cat", "test"),
        ]
    )


def test_training_split_alone_is_a_split(tmp_path: Path) -> None:
    draw(tmp_path, "train/cat/1.png", "train/dog/2.png")
    assert summarize(find_images(tmp_path).images) == [
        ("train/cat/1.png", "cat", "train"),
        ("train/dog/2.png", "dog", "train"),
    ]


@pytest.mark.parametrize("classes", [("train", "bus"), ("train", "bus", "test"), ("train", "valid", "invalid")])
def test_class_may_be_called_train(classes: tuple[str, ...], tmp_path: Path) -> None:
    draw(tmp_path, *(f"{name}/1.png" for name in classes))
    expected = sorted((f"{name}/1.png", name, "") for name in classes)
    assert sorted(summarize(find_images(tmp_path).images)) == expected


# --- files that are not images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden", ["a/.3.png", ".cache/4.png", "b/.thumbs/5.png", "a/._1.png", "b/.DS_Store", ".DS_Store"]
)
def test_hidden_files_are_skipped(hidden: str, tmp_path: Path) -> None:
    names = draw(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_bytes((tmp_path / "a" / "1.png").read_bytes())
    source = find_images(tmp_path)
    assert list_names(source.images) == names
    assert source.ignored_files == []


def test_hidden_folder_does_not_hide_splits(tmp_path: Path) -> None:
    draw(tmp_path, "train/a/1.png", "train/b/3.png", ".ipynb_checkpoints/2.png")
    assert summarize(find_images(tmp_path).images) == [("train/a/1.png", "a", "train"), ("train/b/3.png", "b", "train")]


def test_other_files_are_listed(tmp_path: Path) -> None:
    names = draw(tmp_path, "a/1.png", "b/2.png")
    others = ["README.md", "a/deep.heic", "a/png", "b/labels.csv"]
    for name in others:
        (tmp_path / name).write_text("?")
    (tmp_path / "a" / "folder.png").mkdir()
    source = find_images(tmp_path)
    assert list_names(source.images) == names
    assert source.ignored_files == others


def test_images_outside_classes_are_listed(tmp_path: Path) -> None:
    names = draw(tmp_path, "test/a/1.png", "train/a/1.png", "train/b/4.png")
    outside = draw(tmp_path, "3.png", "test/2.png", "train/1.png")
    (tmp_path / "train" / "notes.txt").write_text("?")
    source = find_images(tmp_path)
    assert list_names(source.images) == names
    assert source.ignored_files == [*outside, "train/notes.txt"]


@pytest.mark.parametrize("name", ["3/{}.png", "{}/3.png"])
def test_name_must_be_utf8(name: str, tmp_path: Path) -> None:
    draw(tmp_path, "3/1.png", "4/2.png")
    file = tmp_path / name.format(os.fsdecode(b"caf\xe9"))  # as old archives have them
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"any content")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match=r"caf.udce9.* is not UTF-8; rename it"):
        find_images(tmp_path)


# --- sources that are refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("", ""),
        ("class/", ""),
        ("notes.txt", r" \(1 file not read: .txt 1\)"),
        ("IMG.HEIC", r" \(1 file not read: .HEIC 1; convert to JPEG\)"),
    ],
)
def test_source_without_images_is_refused(name: str, details: str, tmp_path: Path) -> None:
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    elif name:
        (tmp_path / name).write_text("hello")
    with pytest.raises(UserError, match=f"there are no images in {tmp_path}{details}; it has to contain"):
        find_images(tmp_path)


def test_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing does not exist; name the folder with your images"):
        find_images(tmp_path / "missing")


@pytest.mark.parametrize("other", ["cat ", " cat"])
def test_folders_that_differ_by_blanks_are_refused(other: str, tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", f"{other}/2.png")
    with pytest.raises(UserError, match=r"two classes are called '.*' and '.*'; give every class a name of its own"):
        find_images(tmp_path)


def test_folder_of_blanks_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "  /2.png")
    with pytest.raises(UserError, match=r"has no name \('  '\); give every class a name"):
        find_images(tmp_path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(b"II")
    with pytest.raises(UserError, match=r"cannot read .*/a\.tiff"):
        find_images(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist.pkl", "a pickle can run code. Where you trust it, load it in Python, then: numpy.savez("),
        ("mnist.pkl.gz", "a pickle can run code"),
        ("batch.pickle", "a pickle can run code"),
        ("training.pt", "it can run code. Load it with torch.load(file, weights_only=True), then: numpy.savez("),
        ("training.pth", "it can run code"),
        ("mnist.h5", "it is HDF5"),
        ("train.zip", "is an archive: give it to prepare_data.py itself"),
        ("train.tar.xz", "is an archive that is not read: unpack it"),
        ("data_batch_1", "a pickle can run code"),
    ],
)
def test_file_that_is_not_read_says_how_to_convert(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("?")
    (tmp_path / name).write_bytes(b"any content")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(UserError) as refused:
            find_images(source)
        assert f"{tmp_path / name} is" in str(refused.value)
        assert message in str(refused.value)


def test_several_kinds_of_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=PIXELS, y=np.arange(12))
    (tmp_path / "train.csv").write_text("\n".join([",".join(["1"] + ["0"] * 784)] * 3))
    with pytest.raises(UserError, match=r"has several kinds of files: NumPy \(all.npz\), CSV \(train.csv\)"):
        find_images(tmp_path)


def test_pictures_beside_arrays_are_counted(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=PIXELS, y=np.arange(12))
    draw(tmp_path, "a/1.png", "a/2.png")
    assert find_images(tmp_path).remarks == ["2 picture files beside the NumPy files are not read"]


def test_files_one_folder_too_deep_are_found(tmp_path: Path) -> None:
    (tmp_path / "archive" / "mnist").mkdir(parents=True)
    np.savez(tmp_path / "archive" / "mnist" / "mnist.npz", x=PIXELS, y=np.arange(12))
    assert len(find_images(tmp_path).images) == 12
