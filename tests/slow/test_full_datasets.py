"""What only the full MNIST and Fashion-MNIST can show."""

import gzip
import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pipeline.cleaning import label_issues
from pipeline.data.catalog import TORCHVISION_DATASETS
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.forms import MNIST_FORM, InkForm
from pipeline.data.idx import name_idx_files, read_idx, write_idx
from pipeline.data.known_files import KNOWN_FILES, digest_content
from pipeline.data.preparation import measure_form, prepare_image
from pipeline.errors import UserError
from support.drawings import correlate_images, encode_picture, find_centre, prepare_file
from support.files import write_idx_file
from support.own_images import call_prepare
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


@pytest.mark.parametrize("name", NAMES)
def test_known_digests_are_those_of_the_unpacked_files(name: str, real_data: Path) -> None:
    for file_name, expected in KNOWN_FILES[name].sha256.items():
        packed = real_data / TORCHVISION_DATASETS[name] / "raw" / f"{file_name}.gz"
        content = gzip.decompress(packed.read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected
        assert digest_content(read_idx(io.BytesIO(content))) == expected


def unpack(source: Path, target: Path, split: str = "test") -> None:
    """Write the two files of a split of real data without gzip."""
    target.mkdir(parents=True, exist_ok=True)
    for file_name in name_idx_files(split):
        (target / file_name).write_bytes(gzip.decompress((source / f"{file_name}.gz").read_bytes()))


@pytest.mark.parametrize("name", NAMES)
def test_unpacked_and_repacked_files_are_right(name: str, real_data: Path, tmp_path: Path) -> None:
    folder = Path(TORCHVISION_DATASETS[name], "raw")
    unpack(real_data / folder, tmp_path / folder)
    expected = load_test_split(name, real_data).digest
    assert load_test_split(name, tmp_path).digest == expected
    for file in list((tmp_path / folder).iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))
        file.unlink()
    assert load_test_split(name, tmp_path).digest == expected


def test_files_of_another_set_are_named(real_data: Path, tmp_path: Path) -> None:
    for class_name in ("MNIST", "KMNIST"):
        unpack(real_data / "FashionMNIST" / "raw", tmp_path / class_name / "raw")
    for name in ("mnist", "kmnist"):
        with pytest.raises(UserError, match=f"is not that of {name}: it is t10k-images-idx3-ubyte of fashion-mnist"):
            load_test_split(name, tmp_path)


def test_labels_of_the_test_part_are_not_those_of_training(real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    unpack(real_data / "MNIST" / "raw", raw, "train")
    unpack(real_data / "MNIST" / "raw", raw, "test")
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(
        UserError, match=r"train-labels-idx1-ubyte is not that of mnist: it holds 10,000 labels, not 60"
    ):
        load_splits("mnist", tmp_path)


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_written_idx_is_what_mnists_authors_wrote(kind: str, real_data: Path, tmp_path: Path) -> None:
    packed = real_data / "MNIST" / "raw" / f"t10k-{kind}-ubyte.gz"
    content = gzip.decompress(packed.read_bytes())
    write_idx(tmp_path / "ours.gz", read_idx(io.BytesIO(content)))
    write_idx_file(tmp_path / "tests.gz", read_idx(io.BytesIO(content)))
    assert gzip.decompress((tmp_path / "ours.gz").read_bytes()) == content
    assert gzip.decompress((tmp_path / "tests.gz").read_bytes()) == content


@pytest.mark.parametrize("name", NAMES)
def test_prepared_idx_files_give_the_same_splits(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])
    source = tmp_path / "source"
    source.mkdir()
    for file in (real_data / TORCHVISION_DATASETS[name] / "raw").glob("*.gz"):
        shutil.copyfile(file, source / file.name)
    result = call_prepare(source, tmp_path / "cleaned", "--as", "ink")
    expected = load_splits(name, real_data)
    prepared = load_splits(str(tmp_path / "cleaned"), Path("unused"))
    if name == "mnist":  # in which no image is there twice
        assert [split.digest for split in prepared] == [split.digest for split in expected]
    images = {image.tobytes() for split in expected for image in split.images.numpy()}
    assert result.json["findings"]["resized"] == 0
    for split in prepared:
        for image in split.images.numpy():
            assert image.tobytes() in images


@pytest.mark.parametrize(
    ("name", "form"),
    [("mnist", InkForm((1, 28, 28), 20, "mass", 1.9)), ("fashion-mnist", InkForm((1, 28, 28), 28, "box", 0.0))],
)
def test_images_have_the_form_of_their_set_and_stay_unchanged(name: str, form: InkForm, real_data: Path) -> None:
    splits = load_splits(name, real_data)
    assert measure_form(splits.train.images.numpy(), "ink") == form
    for image in splits.test.images[:3_000, 0].numpy():
        prepared = prepare_image(image, form)
        assert prepared.changes == ()
        assert np.array_equal(prepared.pixels[0], image)


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
