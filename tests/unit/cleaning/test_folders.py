"""Layouts of folders: which folders are splits, which are classes, and what is said if nobody can tell."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cleaning.importers import find_images
from support.sources import read_error

PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)


def draw(folder: Path, *names: str) -> Path:
    """Write a picture for each name; return the folder."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(file)
    return folder


def list_classes(folder: Path) -> list[tuple[str, str]]:
    """Return split and class of each image, sorted."""
    return sorted((image.split, image.label) for image in find_images(folder).images)


SPLITS = [("test", "a"), ("test", "b"), ("train", "a"), ("train", "b")]


# --- folders that count for nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    ["output/", "models/", "models/model.pt", "output/logs/run.txt", "__MACOSX/train/a/1.png", ".cache/1.png", "a.txt"],
)
def test_folder_without_images_hides_no_splits(other: str, tmp_path: Path) -> None:
    draw(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    if other.endswith("/"):
        (tmp_path / other).mkdir()
    else:
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_bytes(b"?")
    assert list_classes(tmp_path) == SPLITS


def test_folder_of_macos_is_no_class(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "b/1.png", "__MACOSX/a/1.png", "a/__MACOSX/1.png")
    source = find_images(tmp_path)
    assert [image.name for image in source.images] == ["a/1.png", "b/1.png"]
    assert source.ignored_files == []


# --- one folder too deep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["photos", "photos/photos", "test"])
def test_folder_that_is_alone_is_entered(prefix: str, tmp_path: Path) -> None:
    draw(tmp_path, f"{prefix}/a/1.png", f"{prefix}/b/deep/2.png", "cover.png")
    source = find_images(tmp_path)
    assert [(image.name, image.label, image.split) for image in source.images] == [
        (f"{prefix}/a/1.png", "a", ""),
        (f"{prefix}/b/deep/2.png", "b", ""),
    ]
    assert source.ignored_files == ["cover.png"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("archive/train", "archive/test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("data/seg_train/seg_train", "data/seg_test"),
        ("train_images", "Test-Images"),
        ("my training set", "my_test"),
        ("train/train", "test/test"),
        ("train/train", "train/test"),
        ("train_data/train", "train_data/test"),
    ],
)
def test_splits_are_found_below_and_by_longer_names(train: str, test: str, tmp_path: Path) -> None:
    draw(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{test}/a/1.png", f"{test}/b/1.png")
    assert list_classes(tmp_path) == SPLITS


def test_images_that_nobody_labelled_are_passed_over(tmp_path: Path) -> None:
    draw(tmp_path, *(f"seg_{part}/seg_{part}/{name}/1.png" for part in ("train", "test") for name in "ab"))
    draw(tmp_path, "seg_pred/seg_pred/3.png")
    assert list_classes(tmp_path) == SPLITS
    assert find_images(tmp_path).ignored_files == ["seg_pred/seg_pred/3.png"]


def test_class_of_the_splits_name_stays(tmp_path: Path) -> None:
    draw(tmp_path, "train/train/1.png", "train/bus/1.png", "test/train/1.png", "test/bus/1.png")
    assert list_classes(tmp_path) == [("test", "bus"), ("test", "train"), ("train", "bus"), ("train", "train")]


@pytest.mark.parametrize("other", ["steam engine", "train driver"])
def test_class_may_contain_a_word_for_a_split(other: str, tmp_path: Path) -> None:
    draw(tmp_path, "bullet train/1.png", f"{other}/1.png")
    assert list_classes(tmp_path) == sorted([("", "bullet train"), ("", other)])


# --- splits or classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (
            ("train/a/1.png", "train/b/1.png", "test/a/1.png", "output/plot.png"),
            "output (1 images), test (folders a), train (folders a, b)",
        ),
        (("train/steam/1.png", "bus/1.png", "bus/2.png"), "bus (2 images), train (folders steam)"),
        (("Val/a/1.png", "cat/1.png"), "Val (folders a), cat (1 images)"),
        (("my_train/a/1.png", "cat/1.png"), "cat (1 images), my_train (folders a)"),
    ],
)
def test_splits_beside_classes_are_an_error(names: tuple[str, ...], shown: str, tmp_path: Path) -> None:
    message = read_error(draw(tmp_path, *names))
    assert message.startswith(f"{tmp_path} has {shown}: are these splits or classes? If splits, leave only train")


def test_error_shows_a_few_folders(tmp_path: Path) -> None:
    draw(tmp_path, "train/a/1.png", *(f"class {number}/1.png" for number in range(9)))
    assert "class 5 (1 images), 4 more: are these splits" in read_error(tmp_path)


def test_error_names_the_folder_that_was_entered(tmp_path: Path) -> None:
    draw(tmp_path, "x/train/a/1.png", "x/cat/1.png")
    assert read_error(tmp_path).startswith(f"{tmp_path}/x has cat (1 images), train (folders a): are these")


def test_splits_without_classes_are_an_error(tmp_path: Path) -> None:
    message = read_error(draw(tmp_path, "train/1.png", "train/2.png", "test/3.png"))
    assert message == (
        f"{tmp_path} has test (1 images), train (2 images), and no folders of classes in them; "
        "put the images of each class into a folder of its own: train/<class>, test/<class>"
    )


def test_splits_without_training_images_are_an_error(tmp_path: Path) -> None:
    message = read_error(draw(tmp_path, "test/a/1.png", "test/b/1.png", "testing/a/1.png"))
    assert message.startswith(f"{tmp_path} has test (folders a, b), testing (folders a), and no train; put the images")


# --- one class ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("photos/1.png", "photos/cat/1.png", "photos/dog/1.png"),
            "found one class, 'photos': did you mean photos/photos?",
        ),
        (
            ("photos/x/1.png", "photos/x/y/cat/1.png", "photos/x/y/dog/1.png"),
            "found one class, 'x': did you mean photos/photos/x/y?",
        ),
        (
            ("cat/1.png", "cat/2.png"),
            "found one class, 'cat', with 2 images; put the images of each class into a folder of its own",
        ),
        (
            ("train/1.png",),
            "found one class, 'train', with 1 images; put the images of each class into a folder of its own",
        ),
        (
            ("train/a/1.png", "test/a/1.png"),
            "found one class, 'a', with 2 images; put the images of each class into a folder of its own",
        ),
    ],
)
def test_one_class_is_named(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert read_error(draw(tmp_path / "photos", *names)) == message


def test_name_in_a_message_is_one_line(tmp_path: Path) -> None:
    assert r"found one class, 'a\\nb', with" in read_error(draw(tmp_path, "a\nb/1.png"))
