from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import KMNIST, MNIST

from pipeline.data.datasets import load_splits, load_test_split
from pipeline.errors import UserError


def test_digits_are_split_without_a_download(tmp_path: Path) -> None:
    splits = load_splits("digits", tmp_path / "absent")
    sizes = [len(split) for split in splits]
    assert sizes == [1257, 180, 360]
    assert not (tmp_path / "absent").exists()


def test_images_are_uint8_and_labels_int64() -> None:
    for split in load_splits("digits", Path()):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 1, 28, 28)
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)


def test_splits_share_no_image() -> None:
    splits = load_splits("digits", Path())
    contents = [{image.numpy().tobytes() for image in split.images} for split in splits]
    distinct = set.union(*contents)
    assert len(distinct) == sum(len(images) for images in contents)


def test_each_split_has_all_classes_alike() -> None:
    for split in load_splits("digits", Path()):
        shares = torch.bincount(split.labels, minlength=10) / len(split)
        assert shares.sub(0.1).abs().max() < 0.01


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_test_split_alone_is_the_same(name: str, small_mnist: Callable[[], Path]) -> None:
    data_dir = small_mnist()
    assert load_test_split(name, data_dir).digest == load_splits(name, data_dir).test.digest


def test_limit_keeps_the_first_training_images(tmp_path: Path) -> None:
    splits = load_splits("digits", tmp_path)
    limited = load_splits("digits", tmp_path, limit=50)
    assert torch.equal(limited.train.images, splits.train.images[:50])
    assert limited.validation.digest == splits.validation.digest
    assert limited.test.digest == splits.test.digest


def test_limit_above_the_size_keeps_all(tmp_path: Path) -> None:
    assert len(load_splits("digits", tmp_path, limit=10_000).train) == 1257


def test_mnist_validation_has_5000_images(small_mnist: Callable[[], Path]) -> None:
    splits = load_splits("mnist", small_mnist())
    sizes = [len(split) for split in splits]
    assert sizes == [1000, 5000, 100]
    assert splits.test.labels.tolist() == [index % 10 for index in range(100)]


def test_mnist_images_come_from_the_files(small_mnist: Callable[[], Path]) -> None:
    splits = load_splits("mnist", small_mnist())
    written = np.random.default_rng(0).integers(0, 256, (6_000, 28, 28)).astype(np.uint8)
    expected = {image.tobytes() for image in written}
    for image in splits.train.images:
        assert image.numpy().tobytes() in expected


def test_kmnist_is_read_as_mnist(small_mnist: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = small_mnist()
    (data_dir / "MNIST").rename(data_dir / "KMNIST")
    monkeypatch.setattr(KMNIST, "resources", MNIST.resources)
    splits = load_splits("kmnist", data_dir)
    assert [len(split) for split in splits] == [1_000, 5_000, 100]
    assert splits.test.name == "kmnist"
    assert splits.test.classes == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    message = r"'cifar', and there is no cifar.*; choose one of mnist, fashion-mnist, .*digits"
    with pytest.raises(UserError, match=message):
        load_splits("cifar", tmp_path)
    with pytest.raises(UserError, match=message):
        load_test_split("cifar", tmp_path)
