"""Folders of images with known problems, and what prepare_data.py made of them."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import prepare_data
from pipeline.cleaning.checks import PROBLEMS, SET_ASIDE
from pipeline.data.datasets import load_splits
from support.scripts import Result, call_main

SET_ASIDE_PROBLEMS = [name for name, problem in PROBLEMS.items() if problem.action == SET_ASIDE]
IMAGES_IN_TWO_CLASSES = 10
DUPLICATES = 15
TRAIN_TEST_DUPLICATES = 5

# Split, class and pixels of images, and how often they occur.
ImageCounts = Counter[tuple[str, str, bytes]]


@dataclass
class ImageFolder:
    """A folder of images, and what is known about them.

    Attributes
    ----------
    folder : with a folder for each class, or train/<class> and test/<class>.
    good : the pixels of the images without a problem, by file.
    faults : the files that belong under a problem, by problem.
    true_labels : the right class of each image with a wrong label, by file.
    """

    folder: Path
    good: dict[str, np.ndarray] = field(default_factory=dict)
    faults: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in SET_ASIDE_PROBLEMS})
    true_labels: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, pixels: np.ndarray, problem: str = "") -> None:
        """Write an image. It is a good one, or it belongs under ``problem``."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        if problem:
            self.faults[problem].add(name)
        else:
            self.good[name] = pixels

    def add_unreadable(self, name: str, content: bytes) -> None:
        """Write a file that cannot be read."""
        (self.folder / name).write_bytes(content)
        self.faults["unreadable"].add(name)

    def count_good(self, without: Iterable[str] = ()) -> ImageCounts:
        """Return the good images, except the files ``without``; the folder has train/<class> and test/<class>."""
        counts: ImageCounts = Counter()
        for name in self.good.keys() - set(without):
            split, label, _ = name.split("/")
            counts[split, label, self.good[name].tobytes()] += 1
        return counts


def write_class_folders(folder: Path, pixels: np.ndarray, labels: Sequence[int]) -> ImageFolder:
    """Write good images as <class>/<index>.png."""
    images = ImageFolder(folder)
    for index, label in enumerate(labels):
        images.add(f"{label}/{index:05d}.png", pixels[index])
    return images


def write_split_folders(folder: Path, pixels: np.ndarray, labels: Sequence[int], train_size: int) -> ImageFolder:
    """Write good images as train/<class>/<index>.png, and those from ``train_size`` on as test/<class>/<index>.png."""
    images = ImageFolder(folder)
    for index, label in enumerate(labels):
        split = "train" if index < train_size else "test"
        images.add(f"{split}/{label}/{index:05d}.png", pixels[index])
    return images


def write_images_with_faults(
    folder: Path, pixels: np.ndarray, labels: Sequence[int], train_size: int, wrong_labels: int
) -> ImageFolder:
    """Write images as `write_split_folders`, with every problem among them.

    One in five of the ``wrong_labels`` is in the test split. ``pixels`` are different images of ten classes.
    """
    images = ImageFolder(folder)
    random = np.random.default_rng(0)
    train = random.permutation(train_size).tolist()
    test = (train_size + random.permutation(len(labels) - train_size)).tolist()
    wrong_in_test = wrong_labels // 5
    wrong_in_train = wrong_labels - wrong_in_test
    mislabelled = train[:wrong_in_train] + test[:wrong_in_test]
    others = train[wrong_in_train:]
    in_two_classes = others[:IMAGES_IN_TWO_CLASSES]
    repeated = others[IMAGES_IN_TWO_CLASSES:][:DUPLICATES]
    in_both_splits = test[wrong_in_test:][:TRAIN_TEST_DUPLICATES]
    for index, label in enumerate(labels):
        split = "train" if index < train_size else "test"
        shown = label
        if index in mislabelled:
            shown = (label + int(random.integers(1, 10))) % 10
            images.true_labels[f"{split}/{shown}/{index:05d}.png"] = str(label)
        problem = "two_classes" if index in in_two_classes else ""
        images.add(f"{split}/{shown}/{index:05d}.png", pixels[index], problem)
    for index in in_two_classes:
        images.add(f"train/{(labels[index] + 3) % 10}/other-{index}.png", pixels[index], "two_classes")
    for index in repeated:  # the same pixels in another format
        images.add(f"train/{labels[index]}/copy-{index}.bmp", pixels[index], "duplicate")
    for index in in_both_splits:
        images.add(f"train/{labels[index]}/copy-{index}.png", pixels[index], "train_test_duplicate")
    _write_useless_files(images, random)
    return images


def _write_useless_files(images: ImageFolder, random: np.random.Generator) -> None:
    photo = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (300, 200, 3), np.uint8)).save(photo, "JPEG")
    images.add_unreadable("train/3/half.jpg", photo.getvalue()[:9_000])
    images.add_unreadable("test/5/text.png", b"this is no picture\n")
    images.add("train/8/page.png", random.integers(230, 240, (300, 200), np.uint8), "blank")
    (images.folder / "train" / "0" / "labels.csv").write_text("0,0\n")


def call_prepare(raw: Path, output: Path, *options: object) -> Result:
    """Call prepare_data.py."""
    return call_main(prepare_data.main, raw, "--output", output, *options)


def read_report(output: Path) -> dict[str, Any]:
    """Return the cleaning report."""
    content: dict[str, Any] = json.loads((output / "cleaning_report.json").read_text(encoding="utf-8"))
    return content


def list_reported(output: Path, problem: str) -> list[str]:
    """Return the files that the report names under a problem, in its order."""
    return [image["file"] for image in read_report(output)["findings"][problem]["images"]]


def count_images(output: Path) -> ImageCounts:
    """Return the images of a prepared data set; those for validation count as training images."""
    splits = load_splits(str(output), Path())
    counts: ImageCounts = Counter()
    for split_name, split in (("train", splits.train), ("train", splits.validation), ("test", splits.test)):
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            counts[split_name, split.classes[label], image.numpy().tobytes()] += 1
    return counts


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below ``folder``."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
