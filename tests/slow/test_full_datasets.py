"""What only the full MNIST and Fashion-MNIST can show."""

import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pipeline.data.catalog import TORCHVISION_DATASETS
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.forms import MNIST_FORM
from pipeline.data.idx import read_idx, write_idx
from pipeline.data.preparation import prepare_image
from support.drawings import correlate_images, encode_picture, find_centre, prepare_file
from support.files import write_idx_file
from support.photographs import photograph_digit

NAMES = ["mnist", "fashion-mnist"]


@pytest.fixture(scope="module")
def digits(real_data: Path) -> np.ndarray:
    """Return 200 digits of MNIST's test set, uint8 [200, 28, 28]."""
    return load_test_split("mnist", real_data).images[:200, 0].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_images_are_those_that_torchvision_reads(name: str, real_data: Path, tmp_path: Path) -> None:
    class_name = TORCHVISION_DATASETS[name]
    shutil.copytree(real_data / class_name, tmp_path / class_name)
    read_by_torchvision = getattr(torchvision.datasets, class_name)
    expected = read_by_torchvision(tmp_path, train=False, download=True)  # only unpacks: the files exist
    test = load_test_split(name, real_data)
    assert torch.equal(test.images[:, 0], expected.data)
    assert torch.equal(test.labels, expected.targets)


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_their_sizes_and_classes(name: str, real_data: Path) -> None:
    splits = load_splits(name, real_data)
    assert [len(split) for split in splits] == [55_000, 5_000, 10_000]
    class_sizes = torch.bincount(splits.validation.labels)
    assert class_sizes.sub(500).abs().max() <= 65  # MNIST's classes differ in size


def test_fashion_mnist_names_its_classes(real_data: Path) -> None:
    classes = load_test_split("fashion-mnist", real_data).classes
    assert len(classes) == 10
    assert classes[0] == "T-shirt/top"
    assert classes[9] == "Ankle boot"


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_written_idx_is_what_mnists_authors_wrote(kind: str, real_data: Path, tmp_path: Path) -> None:
    packed = real_data / "MNIST" / "raw" / f"t10k-{kind}-ubyte.gz"
    content = gzip.decompress(packed.read_bytes())
    write_idx(tmp_path / "ours.gz", read_idx(io.BytesIO(content)))
    write_idx_file(tmp_path / "tests.gz", read_idx(io.BytesIO(content)))
    assert gzip.decompress((tmp_path / "ours.gz").read_bytes()) == content
    assert gzip.decompress((tmp_path / "tests.gz").read_bytes()) == content


@pytest.mark.parametrize("name", NAMES)  # some clothes fill the frame
def test_28x28_images_stay_unchanged(name: str, real_data: Path) -> None:
    for image in load_test_split(name, real_data).images[:200, 0].numpy():
        content = encode_picture(Image.fromarray(image), "PNG")
        assert np.array_equal(prepare_file(content), image)


def test_inverted_digits_are_inverted_back(digits: np.ndarray) -> None:
    for digit in digits:
        prepared = prepare_image(255 - digit, MNIST_FORM)
        assert np.array_equal(prepared.pixels[0], digit)
        assert prepared.changes == ("inverted",)


def test_enlarged_digits_are_fitted_as_mnists_authors_did(digits: np.ndarray) -> None:
    prepared = []
    for digit in digits:
        large = Image.fromarray(digit).resize((140, 140), Image.Resampling.BICUBIC)
        prepared.append(prepare_file(encode_picture(large, "PNG")))
    similarity = np.diag(correlate_images(np.stack(prepared), digits))
    assert np.median(similarity) > 0.98  # 0.992
    assert similarity.min() > 0.8  # 0.87


def test_photographs_become_the_digits_they_show(digits: np.ndarray) -> None:
    random = np.random.default_rng(0)
    digits = digits[:100]
    prepared = np.stack([prepare_file(photograph_digit(digit, random)) for digit in digits])
    similarity = correlate_images(prepared, digits)
    is_most_like_itself = similarity.argmax(axis=1) == np.arange(100)
    assert np.diag(similarity).min() > 0.7  # 0.78, though slanted by up to 11 degrees
    assert np.median(np.diag(similarity)) > 0.92
    assert is_most_like_itself.mean() > 0.8
    for pixels in prepared:
        assert find_centre(pixels) == pytest.approx((14, 14), abs=0.51)
