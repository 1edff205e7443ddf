import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.datasets import MNIST

from pipeline.data.catalog import CLASSES_FILE, CLEANING_REPORT_FILE
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.prepared import find_cleaning_report, save_dataset
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from support.prepared import make_dataset

IMAGES = "MNIST/raw/train-images-idx3-ubyte.gz"
LABELS = "MNIST/raw/train-labels-idx1-ubyte.gz"
TEST_LABELS = "MNIST/raw/t10k-labels-idx1-ubyte.gz"
IMAGES_HEADER = 16  # bytes before the first pixel
LABELS_HEADER = 8  # bytes before the first label


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a prepared data set of 120 and 30 images in 3 classes, with a cleaning report."""
    train, test = make_dataset(120), make_dataset(30)
    folder = tmp_path / "own"
    save_dataset(folder, train, test)
    report: dict[str, Any] = {"classes": {name: {} for name in train.classes}}
    report["train"] = {"sha256": train.digest}
    report["test"] = {"sha256": test.digest}
    (folder / CLEANING_REPORT_FILE).write_text(json.dumps(report))
    return folder


def load(folder: Path) -> None:
    load_splits(str(folder), Path("unused"))


def test_saved_data_set_is_read_back(folder: Path) -> None:
    splits = load_splits(str(folder), Path("unused"))
    assert splits.test.digest == make_dataset(30).digest
    assert splits.test.classes == ("class 0", "class 1", "class 2")
    assert splits.test.source == folder.as_uri()
    assert load_test_split(str(folder), Path("unused")).digest == splits.test.digest


@pytest.mark.parametrize(("size", "validation_size"), [(120, 12), (20, 3)])
def test_validation_is_a_tenth(size: int, validation_size: int, tmp_path: Path) -> None:
    save_dataset(tmp_path / "own", make_dataset(size), make_dataset(30))
    splits = load_splits(str(tmp_path / "own"), Path("unused"))
    assert len(splits.validation) == validation_size  # at least one image of each class
    assert len(splits.train) == size - validation_size


def test_many_classes_are_read_back(tmp_path: Path) -> None:
    train, test = make_dataset(600, class_count=300), make_dataset(300, class_count=300)
    save_dataset(tmp_path / "own", train, test)
    assert load_test_split(str(tmp_path / "own"), Path("unused")).digest == test.digest


def test_class_names_keep_their_letters(tmp_path: Path) -> None:
    train = make_dataset(30)
    named = Dataset("", train.images, train.labels, ("数字 $1$", "😀", "ß"), "")
    save_dataset(tmp_path / "own", named, named)
    assert load_test_split(str(tmp_path / "own"), Path("unused")).classes == named.classes


def test_torchvision_reads_what_was_saved(folder: Path) -> None:
    for packed in (folder / "MNIST" / "raw").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    expected = make_dataset(120)
    dataset = MNIST(folder, train=True)
    assert torch.equal(dataset.data, expected.images[:, 0])
    assert torch.equal(dataset.targets, expected.labels)


def test_data_set_without_report_is_read(folder: Path) -> None:
    (folder / CLEANING_REPORT_FILE).unlink()
    load(folder)
    assert find_cleaning_report(str(folder)) is None


def test_report_of_a_prepared_data_set(folder: Path) -> None:
    assert find_cleaning_report(str(folder)) == folder / CLEANING_REPORT_FILE


def test_known_name_has_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / CLEANING_REPORT_FILE).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_cleaning_report("mnist") is None


@pytest.mark.parametrize("name", [CLASSES_FILE, IMAGES, LABELS, TEST_LABELS])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(str(folder / name))):
        load(folder)


# --- damage ---------------------------------------------------------------------------------------------------------


def flip_packed_bit(content: bytes) -> bytes:
    return content[:5_000] + bytes([content[5_000] ^ 1]) + content[5_001:]


def truncate(content: bytes) -> bytes:
    return content[:-5]


def empty(content: bytes) -> bytes:
    return b""


def drop_last_pixel(packed: bytes) -> bytes:
    return gzip.compress(gzip.decompress(packed)[:-1])


def change_pixel(packed: bytes) -> bytes:
    content = bytearray(gzip.decompress(packed))
    content[IMAGES_HEADER] ^= 1
    return gzip.compress(content)


def swap_labels(packed: bytes) -> bytes:
    content = bytearray(gzip.decompress(packed))
    first, second = content[LABELS_HEADER : LABELS_HEADER + 2]
    content[LABELS_HEADER : LABELS_HEADER + 2] = bytes([second, first])
    return gzip.compress(content)


def raise_label(packed: bytes) -> bytes:
    content = bytearray(gzip.decompress(packed))
    content[LABELS_HEADER] = 10
    return gzip.compress(content)


def drop_all_labels(packed: bytes) -> bytes:
    return gzip.compress(b"\0\0\x08\x01" + bytes(4))


def keep_one_label(packed: bytes) -> bytes:
    return gzip.compress(b"\0\0\x08\x01" + bytes([0, 0, 0, 1, 0]))


def set_content(content: bytes) -> Callable[[bytes], bytes]:
    return lambda _: content


def change_sha256(content: bytes) -> bytes:
    return re.sub(rb'"sha256": "..', b'"sha256": "??', content)


def rename_class(content: bytes) -> bytes:
    return content.replace(b"class 0", b"class X")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, flip_packed_bit, IMAGES),
        (IMAGES, truncate, f"{IMAGES} is damaged"),
        (IMAGES, empty, f"{IMAGES} is damaged"),
        (IMAGES, drop_last_pixel, f"{IMAGES} is damaged (fewer values than its header says)"),
        (IMAGES, change_pixel, "SHA-256 of train"),
        (LABELS, swap_labels, "SHA-256 of train"),
        (LABELS, raise_label, f"{LABELS} is damaged (labels up to 10 for 3 classes)"),
        (LABELS, drop_all_labels, f"{LABELS} is damaged (labels of shape (0,)"),
        (TEST_LABELS, keep_one_label, f"{TEST_LABELS} is damaged (labels of shape (1,)"),
        (TEST_LABELS, swap_labels, "SHA-256 of test"),
        (CLASSES_FILE, set_content(b'["0", "1"]'), "is damaged (labels up to 2 for 2 classes)"),
        (CLASSES_FILE, truncate, f"{CLASSES_FILE} is damaged"),
        (CLASSES_FILE, set_content(b"10"), f"{CLASSES_FILE} is damaged"),
        (CLASSES_FILE, rename_class, f"{CLEANING_REPORT_FILE} is damaged (its classes are not those of"),
        (CLEANING_REPORT_FILE, truncate, f"{CLEANING_REPORT_FILE} is damaged"),
        (CLEANING_REPORT_FILE, set_content(b"{}"), f"{CLEANING_REPORT_FILE} is damaged"),
        (CLEANING_REPORT_FILE, set_content(b"[]"), f"{CLEANING_REPORT_FILE} is damaged"),
        (CLEANING_REPORT_FILE, change_sha256, f"is not what its {CLEANING_REPORT_FILE} describes"),
    ],
)
def test_damage_is_named_with_the_next_step(
    folder: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    load(folder)
    file = folder / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        load(folder)
    assert str(folder) in str(refused.value)
    assert str(refused.value).endswith("run prepare_data.py again")


@pytest.mark.parametrize("names", ['["a", "b", "a "]', '["a", "b", ""]', '["a", 1, "1"]'])
def test_equal_and_empty_class_names_are_refused(folder: Path, names: str) -> None:
    (folder / CLASSES_FILE).write_text(names)
    with pytest.raises(UserError, match=r"classes\.json: .*; give every class a name of its own, and run prepare_data"):
        load(folder)


@pytest.mark.parametrize("shape", [(120, 28, 27), (119, 28, 28)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    images = torch.zeros(shape, dtype=torch.uint8).unsqueeze(1)
    wrong = Dataset("", images, make_dataset(120).labels, ("a", "b", "c"), "")
    save_dataset(tmp_path / "own", wrong, wrong)
    with pytest.raises(UserError, match=r"is damaged .images of shape"):
        load(tmp_path / "own")
