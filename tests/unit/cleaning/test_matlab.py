"""MATLAB files, as `find_images` reads them."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.cleaning.importers import find_images
from pipeline.data.forms import PhotoForm
from pipeline.errors import UserError
from support.sources import read_all, read_error

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (12, 28, 28), np.uint8)
Y = (np.arange(12) % 3 + 1).astype(np.uint8)
NUMBERS = [str(label) for label in Y]
COLUMN_ORDER = X.transpose(0, 2, 1).reshape(12, 784)  # rows of pixels, column by column


@pytest.mark.parametrize("compressed", [True, False])
def test_emnist_is_upright_with_its_characters(compressed: bool, tmp_path: Path) -> None:
    part = {"images": COLUMN_ORDER, "labels": Y[:, None].astype(float), "writers": Y[:, None]}
    mapping = np.array([[1, 65, 97], [2, 66, 98], [3, 67, 99]])
    dataset = {"train": part, "test": part, "mapping": mapping}
    savemat(tmp_path / "emnist-letters.mat", {"dataset": dataset}, do_compression=compressed)
    source = find_images(tmp_path)
    assert source.kind == "mat"
    assert [image.label for image in source.images] == ["A", "B", "C"] * 8
    assert [image.split for image in source.images] == ["test"] * 12 + ["train"] * 12
    assert source.images[0].name == "emnist-letters.mat:test_images[0]"
    assert np.array_equal(read_all(source), [*X, *X])


@pytest.mark.parametrize(
    ("name", "split"), [("train_32x32.mat", "train"), ("test_32x32.mat", "test"), ("extra_32x32.mat", "train")]
)
def test_label_10_of_svhn_is_the_digit_0(name: str, split: str, tmp_path: Path) -> None:
    colours = RANDOM.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = np.array([10, 1, 2, 3] * 3, np.uint8)[:, None]
    savemat(tmp_path / name, {"X": np.moveaxis(colours, 0, 3), "y": labels})
    source = find_images(tmp_path)
    assert [image.label for image in source.images] == ["0", "1", "2", "3"] * 3
    assert {image.split for image in source.images} == {split}
    read = [image.read(PhotoForm((3, 32, 32))) for image in source.images]
    assert np.array_equal(read, colours)


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"X": COLUMN_ORDER, "y": Y[:, None]}, id="rows by columns"),
        pytest.param({"data": X.reshape(12, 784).T, "label": Y[None].astype(float)}, id="columns, as on OpenML"),
        pytest.param({"images": np.moveaxis(X, 0, 2), "labels": Y[:, None], "meta": "text"}, id="images last"),
    ],
)
def test_other_variables_are_paired_by_name(variables: dict[str, Any], tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", variables)
    source = find_images(tmp_path / "a.mat")
    assert [image.label for image in source.images] == NUMBERS
    assert np.array_equal(read_all(source), X)


def test_hdf5_is_refused_with_the_way_to_convert(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64"
    (tmp_path / "a.mat").write_bytes(header.ljust(512) + b"\x89HDF\r\n\x1a\n")
    assert "a.mat is a MATLAB file of version 7.3 (HDF5)" in read_error(tmp_path)
    assert "save('new.mat', '-v7')" in read_error(tmp_path)


def test_file_without_images_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"weights": X})
    assert "there are no images" in read_error(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 130, -50])
def test_damaged_file_is_refused(size: int, tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": COLUMN_ORDER, "y": Y[:, None]}, do_compression=True)
    (tmp_path / "a.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:size])
    error = read_error(tmp_path)
    assert str(tmp_path) in error
    assert "\n" not in error


@pytest.mark.parametrize("seed", range(20))
def test_changed_file_never_ends_the_process(seed: int, tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": COLUMN_ORDER, "y": Y[:, None]})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    random = np.random.default_rng(seed)
    for position in random.integers(128, 400, 3):  # in the headers of the variables, where SciPy crashes
        content[position] = random.integers(256)
    (tmp_path / "a.mat").write_bytes(content)
    with suppress(UserError):
        assert len(find_images(tmp_path).images) == 12


def test_variable_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.data.memory.available_memory", lambda: 2**26)
        assert "on this machine 16,777,216 can be read" in read_error(tmp_path)
