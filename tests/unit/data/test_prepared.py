import gzip
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.catalog import CLASSES_FILE, CLEANING_REPORT_FILE, SPLITS
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.forms import MNIST_FORM, PhotoForm
from pipeline.data.prepared import FORM_FILE, describe_shape_and_form, find_cleaning_report
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from support.prepared import make_dataset, save_dataset, save_idx_dataset

IMAGES, LABELS = "train_images.npy", "train_labels.npy"
TEST_LABELS = "test_labels.npy"
HEADER = 128  # bytes before the first value of a .npy file
IDX_IMAGES = "MNIST/raw/train-images-idx3-ubyte.gz"
IDX_LABELS = "MNIST/raw/train-labels-idx1-ubyte.gz"
IDX_TEST_LABELS = "MNIST/raw/t10k-labels-idx1-ubyte.gz"
IMAGES_HEADER = 16  # bytes before the first pixel of an IDX file
LABELS_HEADER = 8  # bytes before its first label


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a prepared data set of 120 and 30 images in 3 classes, with a cleaning report."""
    folder = tmp_path / "own"
    save_dataset(folder, make_dataset(120), make_dataset(30))
    splits = load_splits(str(folder), Path("unused"))
    report: dict[str, Any] = {"classes": {name: {} for name in splits.train.classes}}
    report["form"] = describe_shape_and_form(MNIST_FORM)
    for name, split in zip(SPLITS, splits, strict=True):
        report[name] = {"sha256": split.digest}
    (folder / CLEANING_REPORT_FILE).write_text(json.dumps(report))
    return folder


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Return the same data set as earlier releases wrote it."""
    train, test = make_dataset(120), make_dataset(30)
    folder = tmp_path / "earlier"
    save_idx_dataset(folder, train, test)
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
    assert (splits.train.form, splits.test.form) == (MNIST_FORM, MNIST_FORM)
    assert load_test_split(str(folder), Path("unused")).digest == splits.test.digest


def test_earlier_data_set_has_the_same_splits(folder: Path, idx_folder: Path) -> None:
    splits = load_splits(str(folder), Path("unused"))
    earlier = load_splits(str(idx_folder), Path("unused"))
    assert [split.digest for split in splits] == [split.digest for split in earlier]
    assert load_test_split(str(idx_folder), Path("unused")).digest == splits.test.digest
    assert earlier.train.form is None


def test_images_are_mapped_from_the_file(folder: Path) -> None:
    train = load_splits(str(folder), Path("unused")).train
    with (folder / IMAGES).open("r+b") as file:
        file.seek(HEADER)
        file.write(bytes([int(train.images[0, 0, 0, 0]) ^ 255]))
    assert train.images[0, 0, 0, 0] == np.load(folder / IMAGES)[0, 0, 0, 0]


def test_files_are_plain_numpy_arrays(folder: Path) -> None:
    images = np.load(folder / IMAGES, allow_pickle=False)
    assert (images.shape, images.dtype) == ((108, 1, 28, 28), np.uint8)
    assert np.load(folder / LABELS, allow_pickle=False).dtype == np.int64


def test_colours_of_any_size_are_read_back(tmp_path: Path) -> None:
    grey = make_dataset(60)
    images = torch.arange(60 * 3 * 20 * 36).remainder(251).to(torch.uint8).view(60, 3, 20, 36)
    dataset = replace(grey, images=images, form=PhotoForm((3, 20, 36)))
    save_dataset(tmp_path / "own", dataset.subset(slice(45)), dataset.subset(slice(45, 60)))
    test = load_test_split(str(tmp_path / "own"), Path("unused"))
    assert torch.equal(test.images, images[45:])
    assert test.form == PhotoForm((3, 20, 36))


@pytest.mark.parametrize(("size", "validation_size"), [(120, 12), (20, 3)])
@pytest.mark.parametrize("save", [save_dataset, save_idx_dataset])
def test_validation_is_a_tenth(save: Callable[..., None], size: int, validation_size: int, tmp_path: Path) -> None:
    save(tmp_path / "own", make_dataset(size), make_dataset(30))
    splits = load_splits(str(tmp_path / "own"), Path("unused"))
    assert len(splits.validation) == validation_size  # at least one image of each class
    assert len(splits.train) == size - validation_size


@pytest.mark.parametrize("save", [save_dataset, save_idx_dataset])
def test_many_classes_are_read_back(save: Callable[..., None], tmp_path: Path) -> None:
    train, test = make_dataset(600, class_count=300), make_dataset(300, class_count=300)
    save(tmp_path / "own", train, test)
    assert load_test_split(str(tmp_path / "own"), Path("unused")).digest == test.digest


def test_class_names_keep_their_letters(tmp_path: Path) -> None:
    train = make_dataset(30)
    named = Dataset("", train.images, train.labels, ("数字 $1$", "😀", "ß"), "")
    save_dataset(tmp_path / "own", named, named)
    assert load_test_split(str(tmp_path / "own"), Path("unused")).classes == named.classes


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


@pytest.mark.parametrize("name", [CLASSES_FILE, FORM_FILE, IMAGES, LABELS, "validation_images.npy", TEST_LABELS])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(str(folder / name))):
        load(folder)


@pytest.mark.parametrize("name", [CLASSES_FILE, IDX_IMAGES, IDX_LABELS, IDX_TEST_LABELS])
def test_missing_file_of_an_earlier_data_set_is_named(idx_folder: Path, name: str) -> None:
    (idx_folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(str(idx_folder / name))):
        load(idx_folder)


def test_class_without_training_images_is_refused(folder: Path) -> None:
    (folder / CLEANING_REPORT_FILE).unlink()
    np.save(folder / LABELS, np.arange(108) % 2)
    with pytest.raises(UserError, match="class 'class 2' has 0 training images"):
        load(folder)


# --- damage ---------------------------------------------------------------------------------------------------------


def change_value(content: bytes) -> bytes:
    return content[:HEADER] + bytes([content[HEADER] ^ 1]) + content[HEADER + 1 :]


def raise_npy_label(content: bytes) -> bytes:
    return content[:HEADER] + bytes([10]) + content[HEADER + 1 :]


def replace_in_header(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)
    return lambda content: content[:HEADER].replace(old, new) + content[HEADER:]


def set_array(array: Any) -> Callable[[bytes], bytes]:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return set_content(file.getvalue())


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
        (IMAGES, truncate, f"{IMAGES} is damaged"),
        (IMAGES, empty, f"{IMAGES} is damaged"),
        (IMAGES, change_value, "SHA-256 of train"),
        (IMAGES, replace_in_header(b"'fortran_order': False", b"'fortran_order': True "), f"{IMAGES} is damaged"),
        (IMAGES, replace_in_header(b"|u1", b"|i1"), f"{IMAGES} is damaged (int8 [108, 1, 28, 28], and the form is"),
        (IMAGES, replace_in_header(b"28, 28)", b"14, 56)"), f"{IMAGES} is damaged (uint8 [108, 1, 14, 56]"),
        (LABELS, raise_npy_label, f"{LABELS} is damaged (labels up to 10 for 3 classes)"),
        (LABELS, set_array(np.zeros(108)), f"{LABELS} is damaged (labels of type float64)"),
        (LABELS, set_array(np.array([None, "code"])), f"{LABELS} is damaged (it contains Python objects"),
        (LABELS, set_array(np.arange(0)), f"{LABELS} is damaged (labels of shape (0,)"),
        (LABELS, set_array(np.zeros((54, 2), int)), f"{LABELS} is damaged (labels of shape (54, 2)"),
        (LABELS, set_array(np.arange(107) % 3), f"{LABELS} is damaged (images of shape (108, 1, 28, 28)"),
        (TEST_LABELS, change_value, "SHA-256 of test"),
        ("validation_images.npy", change_value, "SHA-256 of validation"),
        (FORM_FILE, truncate, f"{FORM_FILE} is damaged"),
        (FORM_FILE, set_content(b'{"kind": "ink"}'), f"{FORM_FILE} is damaged (there is no form)"),
        (FORM_FILE, set_content(b'{"shape": [1, 28, 28], "kind": "photo"}'), "its form is not that of form.json"),
        (FORM_FILE, set_content(b'{"shape": [3, 28, 28], "kind": "photo"}'), f"{IMAGES} is damaged"),
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


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IDX_IMAGES, flip_packed_bit, IDX_IMAGES),
        (IDX_IMAGES, truncate, f"{IDX_IMAGES} is damaged"),
        (IDX_IMAGES, empty, f"{IDX_IMAGES} is damaged"),
        (IDX_IMAGES, drop_last_pixel, f"{IDX_IMAGES} is damaged (fewer values than its header says)"),
        (IDX_IMAGES, change_pixel, "SHA-256 of train"),
        (IDX_LABELS, swap_labels, "SHA-256 of train"),
        (IDX_LABELS, raise_label, f"{IDX_LABELS} is damaged (labels up to 10 for 3 classes)"),
        (IDX_LABELS, drop_all_labels, f"{IDX_LABELS} is damaged (labels of shape (0,)"),
        (IDX_TEST_LABELS, keep_one_label, f"{IDX_TEST_LABELS} is damaged (labels of shape (1,)"),
        (IDX_TEST_LABELS, swap_labels, "SHA-256 of test"),
    ],
)
def test_damage_of_an_earlier_data_set_is_named(
    idx_folder: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    load(idx_folder)
    file = idx_folder / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        load(idx_folder)
    assert str(refused.value).endswith("run prepare_data.py again")


@pytest.mark.parametrize("names", ['["a", "b", "a "]', '["a", "b", ""]', '["a", 1, "1"]'])
def test_equal_and_empty_class_names_are_refused(folder: Path, names: str) -> None:
    (folder / CLASSES_FILE).write_text(names)
    with pytest.raises(UserError, match=r"classes\.json: .*; give every class a name of its own, and run prepare_data"):
        load(folder)
