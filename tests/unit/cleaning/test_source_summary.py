from pathlib import Path

import pytest

from pipeline.cleaning.raw_images import RawImage
from pipeline.cleaning.source_summary import count_ignored_files, format_class_counts, format_ignored_files


def make_images(*labels: str) -> list[RawImage]:
    return [RawImage(f"{label}/1.png", label, "", Path("1.png")) for label in labels]


def test_classes_are_counted_in_their_order() -> None:
    images = make_images("dog", *["cat"] * 1_200, "dog")
    assert format_class_counts(images) == "2 classes: cat 1,200, dog 2"
    assert format_class_counts(make_images("10", "9", "9")) == "2 classes: 9 2, 10 1"
    assert format_class_counts(make_images("cat")) == "1 class: cat 1"


def test_at_most_twenty_classes_are_shown() -> None:
    twenty = format_class_counts(make_images(*(str(number) for number in range(20))))
    assert twenty.endswith("18 1, 19 1")
    more = format_class_counts(make_images(*(str(number) for number in range(1_500))))
    assert more.startswith("1,500 classes: 0 1, 1 1, ")
    assert more.endswith("19 1, and 1,480 more")


def test_class_names_stay_in_the_line() -> None:
    assert format_class_counts(make_images("a\nb")) == r"1 class: a\nb 1"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], ""),
        (["a/1.HEIC"] * 45, "45 files not read: .HEIC 45; convert to JPEG"),
        (["a/1.HEIC", "a/2.heif"], "2 files not read: .HEIC 1, .heif 1; convert to JPEG"),
        (["notes.txt"], "1 file not read: .txt 1"),
        (["a/1.heic", "a/2.heic", "a.csv"], "3 files not read: .heic 2, .csv 1; convert .heic to JPEG"),
        (["a/README", "1.png", "2.JPG"], "3 files not read: in no class folder 2, without a suffix 1"),
        (["a.\x1b[2J"], r"1 file not read: .\x1b[2J 1"),
    ],
)
def test_ignored_files_are_counted_by_suffix(names: list[str], line: str) -> None:
    assert format_ignored_files(names) == line


def test_counts_are_for_programs_too() -> None:
    names = ["a.txt", "b.txt", "c.HEIC", "d.heic", "e", "f.png"]
    expected = {".txt": 2, ".HEIC": 1, ".heic": 1, "in no class folder": 1, "without a suffix": 1}
    assert list(count_ignored_files(names).items()) == list(expected.items())
