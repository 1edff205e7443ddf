import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.data import splits
from pipeline.data.forms import PhotoForm
from pipeline.data.splits import Dataset, stratified_mask, stratified_split
from pipeline.errors import UserError


@pytest.fixture
def dataset() -> Dataset:
    """Return 60 random images, 20 of each of 3 classes."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 1, 28, 28), np.uint8)
    labels = torch.arange(60) % 3
    return Dataset("random", torch.from_numpy(pixels), labels, ("a", "b", "c"), "https://example.com")


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_digest_changes_with_one_value(dataset: Dataset, changed: str) -> None:
    copy = dataset.subset(torch.arange(len(dataset)))
    assert copy.digest == dataset.digest
    other = dataset.subset(torch.arange(len(dataset)))
    getattr(other, changed).view(-1)[0] += 1
    assert other.digest != dataset.digest


def test_digest_changes_with_the_shape(dataset: Dataset) -> None:
    wide = Dataset("wide", dataset.images.reshape(60, 1, 14, 56), dataset.labels, dataset.classes, "")
    assert wide.digest != dataset.digest


def test_digest_ignores_the_memory_layout(dataset: Dataset) -> None:
    images = dataset.images.expand(60, 3, 28, 28)
    contiguous = Dataset("", images.contiguous(), dataset.labels, dataset.classes, "")
    strided = Dataset("", images, dataset.labels, dataset.classes, "")
    assert strided.digest == contiguous.digest


def test_digest_is_that_of_the_whole(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"(60, 1, 28, 28)" + dataset.images.numpy().tobytes() + dataset.labels.numpy().tobytes()
    monkeypatch.setattr(splits, "BLOCK_BYTES", 7 * 28 * 28)  # blocks of seven images
    assert dataset.digest == hashlib.sha256(content).hexdigest()


def test_kind_is_that_of_the_form(dataset: Dataset) -> None:
    assert dataset.kind == "ink"
    assert replace(dataset, form=PhotoForm((1, 28, 28))).kind == "photo"


def test_digest_ignores_name_and_source(dataset: Dataset) -> None:
    renamed = Dataset("other", dataset.images, dataset.labels, dataset.classes, "file:///other")
    assert renamed.digest == dataset.digest


def test_subset_keeps_images_with_their_labels(dataset: Dataset) -> None:
    subset = dataset.subset(torch.tensor([5, 3]))
    assert torch.equal(subset.images, dataset.images[[5, 3]])
    assert subset.labels.tolist() == [2, 0]
    assert subset.classes == dataset.classes


def test_to_moves_images_and_labels(dataset: Dataset) -> None:
    moved = dataset.to("meta")
    assert moved.images.device.type == "meta"
    assert moved.labels.device.type == "meta"
    assert dataset.images.device.type == "cpu"


def test_mask_takes_the_same_share_of_classes() -> None:
    labels = np.repeat([0, 1, 2], [100, 200, 300])
    mask = stratified_mask(labels, 60)
    assert mask.dtype == bool
    assert np.bincount(labels[mask]).tolist() == [10, 20, 30]


def test_mask_is_always_the_same() -> None:
    labels = np.arange(100) % 4
    np.random.seed(1)
    first = stratified_mask(labels, 20)
    np.random.seed(2)
    assert np.array_equal(stratified_mask(labels, 20), first)


def test_split_keeps_the_order_of_images(dataset: Dataset) -> None:
    rest, cut = stratified_split(dataset, 15)
    mask = torch.from_numpy(stratified_mask(dataset.labels.numpy(), 15))
    assert torch.equal(cut.images, dataset.images[mask])
    assert torch.equal(rest.images, dataset.images[~mask])
    assert len(rest) + len(cut) == len(dataset)


def test_model_of_another_shape_is_refused(dataset: Dataset) -> None:
    dataset.check_shape((1, 28, 28), "models:/m-1")
    with pytest.raises(UserError, match=r"models:/m-1 takes images of shape \(3, 28, 28\).* random have \(1, 28, 28\)"):
        dataset.check_shape((3, 28, 28), "models:/m-1")
