"""EMNIST, in an archive of its form."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import EMNIST

from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.idx import write_idx
from pipeline.errors import UserError

SIZES = {"train": 6_000, "test": 94}
# The first rows of an upright 7 as EMNIST's authors store it: rows and columns are exchanged.
UPRIGHT = np.zeros((28, 28), np.uint8)
UPRIGHT[4, 5:20] = 250  # the bar on top
UPRIGHT[4:24, 19] = 200  # the stem


def pack(folder: Path, contents: dict[str, np.ndarray]) -> bytes:
    """Return an archive in the layout of EMNIST's gzip.zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in contents.items():
            write_idx(folder / "member.gz", array)
            archive.writestr(f"gzip/{name}.gz", (folder / "member.gz").read_bytes())
    (folder / "member.gz").unlink()
    return buffer.getvalue()


def build_contents() -> dict[str, np.ndarray]:
    """Return the arrays of the two data sets by the names of their files; labels count up."""
    contents = {}
    for part, first, classes in (("letters", 1, 26), ("balanced", 0, 47)):
        for split, size in SIZES.items():
            labels = first + np.arange(size) % classes
            images = np.broadcast_to(UPRIGHT.T, (size, 28, 28)).copy()
            images[:, 0, 0] = labels  # so that an image shows which label it has
            contents[f"emnist-{part}-{split}-images-idx3-ubyte"] = images
            contents[f"emnist-{part}-{split}-labels-idx1-ubyte"] = labels.astype(np.uint8)
    return contents


def write_archive(data_dir: Path, contents: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the archive where torchvision has it, and make torchvision expect it."""
    file = data_dir / "EMNIST" / "raw" / "gzip.zip"
    file.parent.mkdir(parents=True)
    file.write_bytes(pack(data_dir, contents))
    monkeypatch.setattr(EMNIST, "md5", hashlib.md5(file.read_bytes()).hexdigest())
    return file


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_archive(tmp_path, build_contents(), monkeypatch)


@pytest.mark.parametrize("name", ["emnist-letters", "emnist-balanced"])
def test_images_are_upright(name: str, archive: Path, tmp_path: Path) -> None:
    image = load_test_split(name, tmp_path).images[0, 0].numpy().copy()
    image[0, 0] = 0  # the label
    assert np.array_equal(image, UPRIGHT)


@pytest.mark.parametrize(("name", "first"), [("emnist-letters", 1), ("emnist-balanced", 0)])
def test_labels_begin_at_0_and_belong_to_their_images(name: str, first: int, archive: Path, tmp_path: Path) -> None:
    splits = load_splits(name, tmp_path)
    assert [len(split) for split in splits] == [1_000, 5_000, 94]
    for split in splits:
        assert torch.equal(split.labels, split.images[:, 0, 0, 0].long() - first)
        assert split.labels.unique().tolist() == list(range(len(split.classes)))


def test_classes_are_letters_and_digits(archive: Path, tmp_path: Path) -> None:
    assert load_test_split("emnist-letters", tmp_path).classes == tuple("abcdefghijklmnopqrstuvwxyz")
    balanced = load_test_split("emnist-balanced", tmp_path).classes
    assert balanced == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")


def test_reading_writes_nothing(archive: Path, tmp_path: Path) -> None:
    load_test_split("emnist-letters", tmp_path)
    assert [path.name for path in archive.parent.iterdir()] == ["gzip.zip"]


def test_damaged_archive_is_named(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[:-1])
    expected = hashlib.md5(content).hexdigest()
    with pytest.raises(UserError, match=rf"{archive} is damaged \(MD5 .*, expected {expected}\); delete it and run"):
        load_test_split("emnist-letters", tmp_path)


def test_archive_without_the_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {name: array for name, array in build_contents().items() if "letters" in name}
    file = write_archive(tmp_path, contents, monkeypatch)
    with pytest.raises(UserError, match=rf"{file} is damaged \(it has no emnist-balanced-test-images-idx3-ubyte.gz\)"):
        load_test_split("emnist-balanced", tmp_path)


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/gzip.zip"  # the discard port, where no server answers
    monkeypatch.setattr(EMNIST, "url", url)
    folder = tmp_path / "EMNIST" / "raw"
    with pytest.raises(UserError, match=f"put gzip.zip from {url} into {folder}, or run with --dataset digits"):
        load_test_split("emnist-letters", tmp_path)
    assert list(tmp_path.iterdir()) == []
