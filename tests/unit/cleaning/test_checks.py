"""What clean_images does with each problem. The labels of the digits are not checked, unless a test says so."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from PIL import Image

from pipeline.cleaning import checks, label_issues
from pipeline.cleaning.checks import CleanedImages, clean_images, describe_small_classes
from pipeline.cleaning.label_issues import LabelIssue
from pipeline.cleaning.raw_images import RawImage
from pipeline.data.datasets import load_splits
from pipeline.data.forms import MNIST_FORM
from pipeline.data.splits import Dataset
from pipeline.errors import UserError

TWO_CLASSES = [0, 1] * 12  # labels of 24 images


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_splits("digits", Path()).train


@pytest.fixture(autouse=True)
def no_label_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not check the labels: that trains three models."""
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])


def make_images(digits: Dataset, labels: Sequence[object], split: str = "", start: int = 0) -> list[RawImage]:
    """Return different images with these labels."""
    images = []
    for index, label in enumerate(labels, start):
        pixels = digits.images[index, 0].numpy()
        images.append(RawImage(f"x[{index}]", str(label), split, pixels, 255))
    return images


def clean(images: Sequence[RawImage], **options: bool) -> CleanedImages:
    scratch = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the pixels are in it
    return clean_images(images, MNIST_FORM, scratch, **{"drop_label_issues": False, "progress": False, **options})


def stack_pixels(images: Sequence[RawImage]) -> np.ndarray:
    return np.stack([image.read(MNIST_FORM) for image in images])[:, None]


def list_names(cleaned: CleanedImages, problem: str) -> list[str]:
    return [finding.image.name for finding in cleaned.findings[problem]]


def copy_image(image: RawImage, name: str, **changes: Any) -> RawImage:
    values = {"label": image.label, "split": image.split, "content": image.content, "white": image.white}
    return RawImage(name, **{**values, **changes})


# --- images that stay -----------------------------------------------------------------------------------------------


def test_good_images_stay_in_order(digits: Dataset) -> None:
    images = make_images(digits, TWO_CLASSES)
    cleaned = clean(images)
    assert cleaned.classes == ("0", "1")
    assert np.array_equal(cleaned.pixels, stack_pixels(images))
    assert cleaned.labels.tolist() == TWO_CLASSES
    assert list(cleaned.findings) == list(checks.PROBLEMS)
    assert not any(cleaned.findings.values())


def test_many_images_stay_in_order(digits: Dataset) -> None:
    images = make_images(digits, digits.labels[:200].tolist())
    cleaned = clean(images)  # in several processes
    assert np.array_equal(cleaned.pixels, stack_pixels(images))


def test_classes_are_sorted_by_number(digits: Dataset) -> None:
    cleaned = clean(make_images(digits, [10, 9] * 12))
    assert cleaned.classes == ("9", "10")
    assert cleaned.labels.tolist() == [1, 0] * 12


def test_test_split_of_the_source_is_kept(digits: Dataset) -> None:
    images = make_images(digits, [0, 1] * 10, "train")
    images += make_images(digits, [0, 1], "test", start=20)
    cleaned = clean(images)
    assert np.flatnonzero(cleaned.is_test).tolist() == [20, 21]


@pytest.mark.parametrize("split", ["", "train"])
def test_share_of_each_class_becomes_test(split: str, digits: Dataset) -> None:
    images = make_images(digits, [0, 0, 0, 1] * 50, split)
    cleaned = clean(images)
    assert np.bincount(cleaned.labels[cleaned.is_test]).tolist() == [23, 7]  # 15% of 150 and 50
    assert np.array_equal(cleaned.is_test, clean(images).is_test)


# --- images that cannot be used -------------------------------------------------------------------------------------


def unusable_images(folder: Path, digits: Dataset) -> dict[str, RawImage]:
    """Return an image for each problem that makes it unusable."""
    (image,) = make_images(digits, [0])
    good = digits.images[0, 0].double().numpy() / 255
    nan = good.copy()
    nan[3, 3] = np.nan
    bright = good.copy()
    bright[3, 3] = 1.5
    dark = good.copy()
    dark[3, 3] = -0.5
    page = np.full((300, 200), 235, np.uint8)
    (folder / "text.png").write_text("no picture")
    return {
        "text": copy_image(image, "text", content=folder / "text.png"),
        "gone": copy_image(image, "gone", content=folder / "gone.png"),
        "nan": copy_image(image, "nan", content=nan, white=1),
        "bright": copy_image(image, "bright", content=bright, white=1),
        "dark": copy_image(image, "dark", content=dark, white=1),
        "black": copy_image(image, "black", content=np.zeros((28, 28))),
        "page": copy_image(image, "page", content=page),
    }


def test_unusable_images_are_set_aside(digits: Dataset, tmp_path: Path) -> None:
    unusable = unusable_images(tmp_path, digits)
    images = make_images(digits, TWO_CLASSES)
    cleaned = clean([*images, *unusable.values()])
    assert len(cleaned.labels) == 24
    assert list_names(cleaned, "unreadable") == ["text", "gone"]
    assert list_names(cleaned, "not_finite") == ["nan"]
    assert list_names(cleaned, "out_of_range") == ["bright", "dark"]
    assert list_names(cleaned, "blank") == ["black", "page"]
    for problem in ("unreadable", "not_finite", "out_of_range", "blank"):
        for finding in cleaned.findings[problem]:
            assert finding.is_set_aside
            assert finding.detail


# --- duplicates -----------------------------------------------------------------------------------------------------


def test_duplicates_are_set_aside(digits: Dataset) -> None:
    images = make_images(digits, TWO_CLASSES)
    copies = [copy_image(images[0], "copy"), copy_image(images[1], "other", label="0")]
    cleaned = clean([*images, *copies])
    assert list_names(cleaned, "duplicate") == ["copy"]
    assert list_names(cleaned, "two_classes") == ["x[1]", "other"]
    assert len(cleaned.labels) == 23


def test_training_copy_of_test_image_goes(digits: Dataset) -> None:
    images = make_images(digits, [0, 1] * 10, "train")
    images += make_images(digits, [0, 1], "test", start=20)
    images.append(copy_image(images[20], "copy", split="train"))
    cleaned = clean(images)
    assert list_names(cleaned, "train_test_duplicate") == ["copy"]
    assert cleaned.is_test.sum() == 2


def test_near_duplicates_are_listed_and_stay(digits: Dataset) -> None:
    images = make_images(digits, TWO_CLASSES)
    changed = digits.images[3, 0].numpy().copy()
    changed[14, 14] ^= 1
    cleaned = clean([*images, copy_image(images[3], "near", content=changed)])
    (finding,) = cleaned.findings["near_duplicate"]
    assert finding.image.name == "near"
    assert finding.detail == "like x[3]"
    assert not finding.is_set_aside
    assert len(cleaned.labels) == 25


# --- preparation ----------------------------------------------------------------------------------------------------


def test_dark_images_are_inverted(digits: Dataset) -> None:
    images = make_images(digits, TWO_CLASSES)
    inverted = []
    for image in images:
        pixels = 255 - image.read(MNIST_FORM)
        inverted.append(copy_image(image, image.name, content=pixels))
    cleaned = clean(inverted)
    assert len(cleaned.findings["inverted"]) == 24
    assert np.array_equal(cleaned.pixels, stack_pixels(images))


def test_large_images_are_resized(digits: Dataset) -> None:
    images = make_images(digits, TWO_CLASSES)
    picture = Image.fromarray(images[0].read(MNIST_FORM)).resize((140, 140))
    images[0] = copy_image(images[0], "large", content=np.array(picture))
    cleaned = clean(images)
    assert list_names(cleaned, "resized") == ["large"]
    assert cleaned.pixels.shape == (24, 1, 28, 28)
    assert not cleaned.findings["resized"][0].is_set_aside


# --- classes --------------------------------------------------------------------------------------------------------


def test_small_classes_are_set_aside(digits: Dataset) -> None:
    sizes = (("a", 30, 5), ("b", 10, 1), ("few", 9, 5), ("untested", 30, 0), ("untrained", 0, 30))
    images: list[RawImage] = []
    for label, train, test in sizes:
        images += make_images(digits, [label] * train, "train", start=len(images))
        images += make_images(digits, [label] * test, "test", start=len(images))
    cleaned = clean(images)
    assert cleaned.classes == ("a", "b")
    details = {finding.detail for finding in cleaned.findings["small_class"]}
    assert details == {
        "class 'few' has 9 training and 5 test images",
        "class 'untested' has 30 training and 0 test images",
        "class 'untrained' has 0 training and 30 test images",
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 20, "1 classes are left, and 2 to 1,000 are needed; found: nothing"),
        (
            [0] * 20 + [1] * 9,
            "1 classes are left, and 2 to 1,000 are needed; found: small_class: 9.*; '1' has 9 of at least 10",
        ),
        (
            list(range(30)),
            "0 classes are left, and 2 to 1,000 are needed; found: small_class: 30.*; '0' has 1 of at least 10, ",
        ),
    ],
)
def test_too_few_classes_are_refused(labels: list[int], message: str, digits: Dataset) -> None:
    with pytest.raises(UserError, match=message):
        clean(make_images(digits, labels))


def test_small_classes_are_described() -> None:
    images: list[tuple[str, str | None]] = [("x", "train")] * 4 + [("x", "test")] * 9 + [("untested", None)] * 12
    assert describe_small_classes(images) == "'untested' has no test image, 'x' has 4 of at least 10"
    many = describe_small_classes([(f"{number:03}", "") for number in range(300)])
    assert many.endswith(", '009' has 1 of at least 10, and 290 more")


def test_blank_images_alone_are_refused() -> None:
    blank = np.full((28, 28), 255, np.uint8)
    images = [RawImage(f"x[{index}]", str(index % 2), "", blank, 255) for index in range(30)]
    with pytest.raises(UserError, match=r"0 classes are left, .*; found: blank: 30"):
        clean(images)


def test_too_many_classes_are_refused(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_CLASSES", 2)
    with pytest.raises(UserError, match="3 classes are left, and 2 to 2 are needed"):
        clean(make_images(digits, [0, 1, 2] * 10))


# --- label issues ---------------------------------------------------------------------------------------------------

SuspectImages = Callable[[Sequence[int]], None]


@pytest.fixture
def suspect_images(monkeypatch: pytest.MonkeyPatch) -> SuspectImages:
    """Return a function that says which images the label check lists."""

    def suspect(indices: Sequence[int]) -> None:
        issues = [LabelIssue(index, "looks odd") for index in indices]
        monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: issues)

    return suspect


@pytest.fixture
def split_images(digits: Dataset) -> list[RawImage]:
    """Return 60 training images and 20 test images of two classes."""
    train = make_images(digits, [0, 1] * 30, "train")
    test = make_images(digits, [0, 1] * 10, "test", start=60)
    return train + test


def test_label_issues_are_listed(split_images: list[RawImage], suspect_images: SuspectImages) -> None:
    suspect_images([61, 3])
    cleaned = clean(split_images)
    assert list_names(cleaned, "label_issue") == ["x[61]", "x[3]"]
    assert len(cleaned.labels) == 80


def test_label_issues_are_dropped_from_training(split_images: list[RawImage], suspect_images: SuspectImages) -> None:
    suspect_images([61, 3])
    cleaned = clean(split_images, drop_label_issues=True)
    is_set_aside = {finding.image.name: finding.is_set_aside for finding in cleaned.findings["label_issue"]}
    assert is_set_aside == {"x[61]": False, "x[3]": True}
    kept = [image for image in split_images if image.name != "x[3]"]
    assert np.array_equal(cleaned.pixels, stack_pixels(kept))
    assert len(cleaned.labels) == len(cleaned.is_test) == 79


def test_dropping_leaves_each_class_large_enough(split_images: list[RawImage], suspect_images: SuspectImages) -> None:
    suspect_images(range(80))
    cleaned = clean(split_images, drop_label_issues=True)
    assert np.bincount(cleaned.labels[~cleaned.is_test]).tolist() == [10, 10]
    assert cleaned.is_test.sum() == 20
