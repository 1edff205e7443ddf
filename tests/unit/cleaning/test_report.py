import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.cleaning.checks import PROBLEMS, CleanedImages, Finding
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.cleaning.report import (
    build_dataset,
    build_report,
    format_cleaning_report,
    list_class_examples,
    list_examples,
    write_quarantine,
    write_report,
)
from pipeline.data.forms import MNIST_FORM, Form, InkForm, PhotoForm
from pipeline.data.splits import Dataset, Splits
from support.prepared import make_dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 1, 28, 28), np.uint8)
LABELS = np.array([0, 1] * 6)
IS_TEST = np.arange(12) >= 8
SOURCE = FoundImages("folders", [RawImage("any", "cat", "", PIXELS[0, 0])] * 30, ["README.md", "a`b|c.csv"])


def make_finding(name: str, *, is_set_aside: bool = False) -> Finding:
    image = RawImage(name, "cat", "train", PIXELS[0, 0], 255)
    return Finding(image, "looks odd", is_set_aside)


@pytest.fixture
def cleaned() -> CleanedImages:
    """Return five images of two classes, with some findings."""
    findings: dict[str, list[Finding]] = {name: [] for name in PROBLEMS}
    findings["duplicate"] = [make_finding(f"x[{index}]", is_set_aside=True) for index in range(25)]
    findings["label_issue"] = [make_finding("x[30]", is_set_aside=True), make_finding("x[31]")]
    findings["inverted"] = [make_finding("x[40]")]
    return CleanedImages(("cat", "dog | `x`"), PIXELS, LABELS, IS_TEST, findings, MNIST_FORM)


def split_images(cleaned: CleanedImages) -> Splits:
    """Return the first six images for training, two for validation, and the rest for testing."""
    dataset = build_dataset(cleaned, "own")
    return Splits(dataset.subset(slice(6)), dataset.subset(slice(6, 8)), dataset.subset(slice(8, 12)))


@pytest.fixture
def report(cleaned: CleanedImages) -> dict[str, Any]:
    return build_report(cleaned, SOURCE, "prepared as ink: why", split_images(cleaned))


# --- for programs ---------------------------------------------------------------------------------------------------


def test_data_set_has_all_images_and_their_form(cleaned: CleanedImages) -> None:
    dataset = build_dataset(cleaned, "own")
    assert np.array_equal(dataset.images, PIXELS)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert (dataset.classes, dataset.form) == (cleaned.classes, MNIST_FORM)


def test_report_describes_the_form(report: dict[str, Any]) -> None:
    assert (report["form"]["kind"], report["form"]["shape"]) == ("ink", [1, 28, 28])
    assert report["form_reason"] == "prepared as ink: why"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (InkForm((1, 64, 48), 40), "the ink fitted into 40x40 of 64x48 pixels"),
        (PhotoForm((3, 64, 48)), "the middle of the picture resized to 64x48"),
    ],
)
def test_report_says_what_resizing_means(form: Form, text: str, cleaned: CleanedImages) -> None:
    report = build_report(replace(cleaned, form=form), SOURCE, "", split_images(cleaned))
    assert text in report["findings"]["resized"]["what"]


def test_report_describes_the_source(report: dict[str, Any]) -> None:
    ignored = {"files_ignored": SOURCE.ignored_files, "files_refused": []}
    assert report["source"] == {"kind": "folders", "images": 30, **ignored}


def test_report_counts_images_by_class(report: dict[str, Any]) -> None:
    assert report["images"] == 12
    sizes = {"train": 3, "validation": 1, "test": 2}
    assert report["classes"] == {"cat": sizes, "dog | `x`": sizes}


def test_report_has_the_digests(cleaned: CleanedImages, report: dict[str, Any]) -> None:
    train, validation, test = split_images(cleaned)
    assert report["train"] == {"images": 6, "sha256": train.digest}
    assert report["validation"] == {"images": 2, "sha256": validation.digest}
    assert report["test"] == {"images": 4, "sha256": test.digest}


def test_report_lists_every_image_of_a_problem(report: dict[str, Any]) -> None:
    assert list(report["findings"]) == list(PROBLEMS)
    duplicate = report["findings"]["duplicate"]
    assert duplicate["count"] == len(duplicate["images"]) == 25
    assert duplicate["done"] == "set aside"
    assert duplicate["images"][7] == {
        "file": "x[7]",
        "class": "cat",
        "part": "train",
        "detail": "looks odd",
        "set_aside": True,
    }


def test_changed_images_are_only_counted(report: dict[str, Any]) -> None:
    inverted = report["findings"]["inverted"]
    assert (inverted["count"], inverted["images"]) == (1, [])


def test_set_aside_images_among_listed_are_counted(report: dict[str, Any]) -> None:
    assert report["findings"]["label_issue"]["done"] == "listed, 1 set aside"


# --- for people -----------------------------------------------------------------------------------------------------


def find_section(text: str, title: str) -> str:
    match = re.search(rf"^## {title}.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[0]


def test_markdown_starts_with_the_numbers(report: dict[str, Any]) -> None:
    text = format_cleaning_report(report)
    assert "30 images found, 12 left in 2 classes: 6 to train on, 2 to validate on and 4 to test on." in text
    for name, problem in report["findings"].items():
        assert f"| {name} | {problem['count']} | {problem['done']} | {problem['what']} |\n" in text


def test_markdown_lists_twenty_images(report: dict[str, Any]) -> None:
    section = find_section(format_cleaning_report(report), "duplicate: 25")
    assert section.count("\n- ") == 20
    assert r"- x\[0\] (class cat): looks odd" in section


def test_markdown_marks_images_set_aside(report: dict[str, Any]) -> None:
    section = find_section(format_cleaning_report(report), "label_issue: 2")
    assert r"- x\[30\] (class cat): looks odd; set aside" in section
    assert r"- x\[31\] (class cat): looks odd" in section.splitlines()


def test_markdown_skips_empty_problems(report: dict[str, Any]) -> None:
    text = format_cleaning_report(report)
    assert "## blank" not in text
    assert "## inverted" not in text


def test_markdown_escapes_names(report: dict[str, Any]) -> None:
    text = format_cleaning_report(report)
    assert r"| dog \| \`x\` | 3 | 1 | 2 |" in text
    assert r"- a\`b\|c.csv" in text


def test_report_files_have_the_same_content(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(tmp_path, report)
    assert json.loads((tmp_path / "cleaning_report.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "cleaning_report.md").read_text(encoding="utf-8") == format_cleaning_report(report)


def test_examples_are_the_first_images(cleaned: CleanedImages) -> None:
    rows = list_examples(cleaned)
    assert [title for title, _ in rows] == ["duplicate: 25", "label_issue: 2"]
    _, pictures = rows[0]
    assert len(pictures) == 8
    pixels, caption = pictures[3]
    assert pixels is not None
    assert np.array_equal(pixels, PIXELS[0, 0])
    assert caption == "cat: x[3]"


def test_unreadable_example_has_no_picture(cleaned: CleanedImages, tmp_path: Path) -> None:
    image = RawImage("a/b/text.png", "b", "", tmp_path / "text.png")
    cleaned.findings["unreadable"].append(Finding(image, "it is missing", is_set_aside=True))
    (_, pictures), *_ = list_examples(cleaned)
    assert pictures == [(None, "b: text.png")]


def test_class_examples_are_training_images_as_the_model_sees_them() -> None:
    labels = torch.tensor([1, 0, 1])
    dataset = Dataset("own", torch.from_numpy(PIXELS[:3]).expand(3, 3, 28, 28), labels, ("cat", "dog"), "")
    (_, _, cats), (name, size, dogs) = list_class_examples(dataset)
    assert (name, size) == ("dog", "2 to train on")
    assert (len(cats), len(dogs)) == (1, 2)
    assert np.array_equal(dogs[1], np.moveaxis(dataset.images[2].numpy(), 0, 2))


def test_class_examples_are_limited() -> None:
    dataset = make_dataset(520, 26)
    rows = list_class_examples(dataset)
    assert [len(images) for _, _, images in rows] == [10] * 20 + [0]
    assert rows[-1][0] == "and 6 more classes"


def test_colours_are_shown_and_kept(cleaned: CleanedImages, tmp_path: Path) -> None:
    red = np.zeros((300, 400, 3), np.uint8)
    red[:150, :, 0] = 255
    cleaned.findings["blank"].append(Finding(RawImage("x[0]", "cat", "", red, 255), "", is_set_aside=True))
    (_, ((shown, _),)), *_ = list_examples(cleaned)
    assert shown is not None
    assert shown[0, 0].tolist() == [255, 0, 0]
    write_quarantine(tmp_path, cleaned)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "quarantine" / "blank" / "x[0] cat.png")), red)


# --- the quarantine -------------------------------------------------------------------------------------------------


def quarantine(folder: Path, image: RawImage) -> list[str]:
    """Write a quarantine with one image; return its files."""
    removed = Finding(image, "", is_set_aside=True)
    listed = Finding(image, "", is_set_aside=False)
    findings = {"duplicate": [removed], "label_issue": [listed]}
    write_quarantine(folder, CleanedImages(("a", "b"), PIXELS, LABELS, IS_TEST, findings, MNIST_FORM))
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_quarantined_file_keeps_bytes_and_path(tmp_path: Path) -> None:
    source = tmp_path / "photo"
    source.write_bytes(b"any content")
    output = tmp_path / "output"
    names = quarantine(output, RawImage("train/a/photo.png", "a", "train", source))
    assert names == ["quarantine/duplicate/train/a/photo.png"]
    assert (output / names[0]).read_bytes() == b"any content"


def test_missing_file_is_not_quarantined(tmp_path: Path) -> None:
    assert quarantine(tmp_path / "output", RawImage("a/gone.png", "a", "", tmp_path / "gone.png")) == []


def test_quarantined_pixels_become_png(tmp_path: Path) -> None:
    names = quarantine(tmp_path, RawImage("x_train[71]", "ü", "", PIXELS[1, 0], 255))
    assert names == ["quarantine/duplicate/x_train[71] ü.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / names[0])), PIXELS[1, 0])


@pytest.mark.parametrize("levels", [1, 4, 6])
def test_array_name_stays_in_quarantine(levels: int, tmp_path: Path) -> None:
    """The maker of the file chooses the name of an array and of a class."""
    up = "../" * levels
    names = quarantine(tmp_path / "a" / "b" / "output", RawImage(f"{up}out/x[1]", f"{up}b", "", PIXELS[0, 0], 255))
    assert len(names) == 1
    assert names[0].startswith("quarantine/duplicate/")
    assert len(list(tmp_path.rglob("*.png"))) == 1
