import numpy as np
import pytest
from PIL import Image

from pipeline.cleaning.duplicates import (
    MAX_HASH_DISTANCE,
    Duplicate,
    find_duplicates,
    find_near_duplicates,
    hash_image,
    iterate_similar_hashes,
)
from pipeline.cleaning.raw_images import RawImage

RANDOM = np.random.default_rng(0)
FIRST, SECOND = RANDOM.integers(0, 256, (2, 1, 28, 28), np.uint8)


def make_raw(name: str, label: str = "a", split: str = "") -> RawImage:
    return RawImage(name, label, split, FIRST[0])


def find_by_name(raw_images: list[RawImage], pixels: list[np.ndarray]) -> dict[str, Duplicate]:
    duplicates = find_duplicates(raw_images, np.stack(pixels))
    return {raw_images[duplicate.index].name: duplicate for duplicate in duplicates}


# --- equal images ---------------------------------------------------------------------------------------------------


def test_different_images_are_no_duplicates() -> None:
    raw_images = [make_raw("1"), make_raw("2")]
    assert find_duplicates(raw_images, np.stack([FIRST, SECOND])) == []


def test_first_of_equal_images_stays() -> None:
    raw_images = [make_raw("1"), make_raw("2"), make_raw("3"), make_raw("4")]
    duplicates = find_duplicates(raw_images, np.stack([FIRST, SECOND, FIRST, FIRST]))
    assert duplicates == [
        Duplicate("duplicate", 2, "kept: 1"),
        Duplicate("duplicate", 3, "kept: 1"),
    ]


@pytest.mark.parametrize("splits", [("train", "test", "test"), ("test", "test", "train"), ("test", "train", "test")])
def test_test_image_stays_before_training_image(splits: tuple[str, ...]) -> None:
    raw_images = [make_raw(f"{split} {index}", split=split) for index, split in enumerate(splits)]
    duplicates = find_by_name(raw_images, [FIRST] * 3)
    kept = f"test {splits.index('test')}"
    assert kept not in duplicates
    assert {duplicate.detail for duplicate in duplicates.values()} == {f"kept: {kept}"}
    problems = {name.split()[0]: duplicate.problem for name, duplicate in duplicates.items()}
    assert problems == {"train": "train_test_duplicate", "test": "duplicate"}


def test_no_image_in_two_classes_stays() -> None:
    raw_images = [make_raw("1"), make_raw("2", "b"), make_raw("3"), make_raw("4", "c", "test")]
    duplicates = find_by_name(raw_images, [FIRST] * 4)
    assert {duplicate.problem for duplicate in duplicates.values()} == {"two_classes"}
    details = {name: duplicate.detail for name, duplicate in duplicates.items()}
    assert details == {"1": "also 2, 4", "2": "also 1, 3, 4", "3": "also 2, 4", "4": "also 1, 2, 3"}


def test_many_equal_images_are_counted() -> None:
    raw_images = [make_raw(str(index), "ab"[index % 2]) for index in range(2_000)]
    duplicates = find_by_name(raw_images, [FIRST] * 2_000)
    assert duplicates["0"].detail == "also 1, 3, 5, 7, 9 and 995 more"


# --- nearly equal images --------------------------------------------------------------------------------------------


def flip_bits(value: np.uint64, bits: list[int]) -> np.uint64:
    return value ^ np.uint64(sum(1 << bit for bit in bits))


def make_hashes() -> np.ndarray:
    """Return hashes of which many are similar: uint64 [600]."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 600, np.uint64)
    for index in range(100):  # pairs that differ in 0 to 6 bits, anywhere
        bits = random.choice(64, index % 7, replace=False).tolist()
        hashes[100 + index] = flip_bits(hashes[index], bits)
    for index in range(50):  # pairs that differ in 4 bits, far from one another
        bits = [(index + distance) % 64 for distance in (0, 16, 32, 48)]
        hashes[250 + index] = flip_bits(hashes[200 + index], bits)
    for index in range(20):  # many that are similar to one
        bits = random.choice(64, 2, replace=False).tolist()
        hashes[301 + index] = flip_bits(hashes[300], bits)
    return hashes


def test_similar_hashes_are_those_of_all_pairs() -> None:
    hashes = make_hashes()
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    is_similar = np.triu(distances <= MAX_HASH_DISTANCE, k=1)
    expected = np.argwhere(is_similar)
    assert len(expected) > 70 + 50 + 20 * 19 / 2
    pairs = np.concatenate(list(iterate_similar_hashes(hashes)))
    assert np.unique(pairs, axis=0).tolist() == expected.tolist()


def test_no_hashes_have_no_pairs() -> None:
    assert list(iterate_similar_hashes(np.empty(0, np.uint64))) == []


def test_near_duplicates_have_similar_pixels() -> None:
    changed = FIRST.copy()
    changed[0, 27, 27] ^= 1
    pixels = np.stack([FIRST, SECOND, changed])
    hashes = np.zeros(3, np.uint64)
    assert find_near_duplicates(hashes, pixels) == [(0, 2)]


@pytest.mark.parametrize(("difference", "is_near"), [(12, True), (13, False)])
def test_difference_is_averaged_over_ink(difference: int, is_near: bool) -> None:
    first = np.zeros((1, 28, 28), np.uint8)
    first[:, 10:12] = 200
    second = first.copy()
    second[:, 10:12] -= difference
    near_duplicates = find_near_duplicates(np.zeros(2, np.uint64), np.stack([first, second]))
    assert near_duplicates == ([(0, 1)] if is_near else [])


def test_another_colour_is_another_image() -> None:
    red = np.zeros((3, 40, 30), np.uint8)
    red[0, 10:30, 5:20] = 150
    blue = red[::-1].copy()
    nearly_red = red + np.uint8(1)
    pixels = np.stack([red, blue, nearly_red])
    assert find_duplicates([make_raw("1"), make_raw("2"), make_raw("3")], pixels) == []
    assert find_near_duplicates(np.zeros(3, np.uint64), pixels) == [(0, 2)]


def test_hash_of_a_resized_colour_image_is_similar() -> None:
    scene = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8))
    sizes = ((90, 60), (140, 100))
    scenes = [np.asarray(scene.resize(size, Image.Resampling.BICUBIC)) for size in sizes]
    first, second = [hash_image(np.moveaxis(pixels, 2, 0)) for pixels in scenes]
    other = hash_image(np.moveaxis(scenes[0][:, ::-1], 2, 0))
    assert (first ^ second).bit_count() <= MAX_HASH_DISTANCE
    assert (first ^ other).bit_count() > 10


def test_near_duplicate_is_reported_once() -> None:
    pixels = np.stack([FIRST, FIRST, FIRST])
    assert find_near_duplicates(np.zeros(3, np.uint64), pixels) == [(0, 1), (0, 2)]


def test_different_hashes_are_not_near() -> None:
    hashes = np.array([0, 31], np.uint64)  # 5 bits
    assert find_near_duplicates(hashes, np.stack([FIRST, FIRST])) == []
