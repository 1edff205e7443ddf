"""Tables of labels beside images, as `find_images` reads them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cleaning.importers import find_images
from support.sources import read_error

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)


def draw(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[index]).save(file)


def summarize(source: Path) -> list[tuple[str, str, str]]:
    return [(image.name, image.label, image.split) for image in find_images(source).images]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "file,label\n1.png,cat\n2.png,dog\n"),
        ("labels.csv", "\ufefffilename;class\r\n1.png;cat\r\n2.png;dog\r\n"),
        ("labels.tsv", "image\tlabel\n1.png\tcat\n2.png\tdog\n"),
        ("metadata.csv", "file_name,width,label\n1.png,28,cat\n2.png,28,dog\n"),
        ("train.csv", "id,breed\n1,cat\n2,dog\n"),
        ("labels.csv", 'Label,Path\ncat,./1.png\n"dog","images\\2.png"\n'),
    ],
)
@pytest.mark.parametrize("folder", ["", "images/"])
def test_table_gives_the_classes(name: str, content: str, folder: str, tmp_path: Path) -> None:
    draw(tmp_path, f"{folder}1.png", f"{folder}2.png")
    (tmp_path / name).write_text(content)
    split = "train" if name == "train.csv" else ""
    assert find_images(tmp_path).kind == "labels"
    assert summarize(tmp_path) == [(f"{folder}1.png", "cat", split), (f"{folder}2.png", "dog", split)]


def test_column_says_the_split(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "labels.csv").write_text("file,label,split\n1.png,a,train\n2.png,a,test\n3.png,b,val\n")
    assert summarize(tmp_path) == [("1.png", "a", "train"), ("2.png", "a", "test"), ("3.png", "b", "train")]


def test_name_of_the_table_says_the_split(tmp_path: Path) -> None:
    draw(tmp_path, "train/1.png", "test/1.png")
    (tmp_path / "train.csv").write_text("id,label\n1,a\n")
    (tmp_path / "test.csv").write_text("id,label\n1,b\n")
    assert summarize(tmp_path) == [("test/1.png", "b", "test"), ("train/1.png", "a", "train")]


def test_images_and_rows_without_partners_are_named(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,a\n7.png,a\n8.png,b\n")
    source = find_images(tmp_path)
    assert [image.name for image in source.images] == ["1.png"]
    assert source.ignored_files == ["2.png"]
    assert source.remarks == ["2 of 3 files that labels.csv names are not there, such as 7.png"]


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/passwd", "C:\\1.png", "..\\1.png"])
def test_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "photos/1.png")
    (tmp_path / "photos" / "labels.csv").write_text(f"file,label\n{name},a\n")
    assert "which leads out of the folder" in read_error(tmp_path / "photos")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\n1.png,a\n1.png,b\n", "has 1.png in two classes, 'a' and 'b'"),
        ("file,label\n1.png,a\n1.png\n", "row 3 has 1 columns"),
        ("file,label\n1.png,\n", "row 2 has no file or no class"),
        ("file,label\n7.png,a\n", "none of the images that labels.csv names is there"),
    ],
)
def test_table_with_a_mistake_is_refused(content: str, message: str, tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    (tmp_path / "labels.csv").write_text(content)
    assert message in read_error(tmp_path)


def test_table_alone_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,a\n")
    assert "labels.csv is a table of labels; name the folder" in read_error(tmp_path / "labels.csv")


def test_packed_table_is_read(tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"file,label\n1.png,a\n"))
    assert summarize(tmp_path) == [("1.png", "a", "")]


def test_name_that_fits_to_two_files_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,x\n")
    assert "names '1.png', which may be a/1.png and b/1.png" in read_error(tmp_path)


def test_table_of_other_names_does_not_hide_class_folders(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "notes.csv").write_text("name,target\nMary,3\n")
    assert summarize(tmp_path) == [("cat/1.png", "cat", ""), ("dog/2.png", "dog", "")]
