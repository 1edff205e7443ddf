"""Find images that are equal, and images that are nearly equal."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image

from pipeline.cleaning.raw_images import RawImage
from pipeline.data.preparation import arrange_for_display

MAX_HASH_DISTANCE = 4  # bits of 64 in which the perceptual hashes of near duplicates may differ
MAX_PIXEL_DISTANCE = 12.0  # grey levels by which their pixels with ink may differ on average
MIN_INK = 32  # grey level from which a pixel has ink
BYTES_AT_ONCE = 2**24  # of images that are compared or moved: it bounds the memory
MAX_NAMES = 5  # of the other images that are equal to one: a thousand of them would have a million

HASH_BITS = 64
PIECES = MAX_HASH_DISTANCE + 1
PIECE_BITS = math.ceil(HASH_BITS / PIECES)


@dataclass(frozen=True)
class Duplicate:
    """An image that has to go because it is in the data more than once.

    Attributes
    ----------
    problem : "two_classes", "train_test_duplicate" or "duplicate".
    index : of the image.
    detail : the names of the other images.
    """

    problem: str
    index: int
    detail: str


def hash_image(pixels: np.ndarray) -> int:
    """Return the perceptual hash of an image, uint8 [channels, height, width]; of colours, that of their grey levels.

    It has the signs of the lowest frequencies of a cosine transform: Zauner 2010, https://www.phash.org.
    """
    bits = imagehash.phash(Image.fromarray(arrange_for_display(pixels))).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def count_items(pixels: np.ndarray) -> int:
    """Return how many of the images, uint8 [N, channels, height, width], are handled at once."""
    return max(1, BYTES_AT_ONCE // max(1, math.prod(pixels.shape[1:])))


def find_duplicates(raw_images: Sequence[RawImage], pixels: np.ndarray) -> list[Duplicate]:
    """Return the images to remove so that each image is in the data once.

    Of equal images the first one stays, but one of the test set before those for training. If equal images are in
    different classes, none stays: nobody knows which class is right. ``pixels`` is uint8 [N, channels, height, width].
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, image in enumerate(pixels):
        groups[hashlib.sha256(image).digest()].append(index)
    duplicates: list[Duplicate] = []
    for group in groups.values():
        labels = {raw_images[index].label for index in group}
        if len(labels) > 1:
            duplicates.extend(_reject_all(raw_images, group))
        else:
            duplicates.extend(_reject_all_but_one(raw_images, group))
    return duplicates


def _reject_all(raw_images: Sequence[RawImage], group: Sequence[int]) -> Iterator[Duplicate]:
    others_of_label = {}
    for label in {raw_images[index].label for index in group}:
        others = [raw_images[index].name for index in group if raw_images[index].label != label]
        more = f" and {len(others) - MAX_NAMES:,} more" if len(others) > MAX_NAMES else ""
        others_of_label[label] = "also " + ", ".join(others[:MAX_NAMES]) + more
    for index in group:
        yield Duplicate("two_classes", index, others_of_label[raw_images[index].label])


def _reject_all_but_one(raw_images: Sequence[RawImage], group: Sequence[int]) -> Iterator[Duplicate]:
    test_images = [index for index in group if raw_images[index].split == "test"]
    kept = test_images[0] if test_images else group[0]
    for index in group:
        if index == kept:
            continue
        is_train = raw_images[index].split != "test"
        problem = "train_test_duplicate" if test_images and is_train else "duplicate"
        yield Duplicate(problem, index, f"kept: {raw_images[kept].name}")


def find_near_duplicates(hashes: np.ndarray, pixels: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of indices of images that are nearly equal, the smaller index first.

    Both their perceptual hashes, uint64 [N], and their pixels, uint8 [N, channels, height, width], have to be similar.
    An image is the second of one pair at most.
    """
    first_of = np.full(len(hashes), len(hashes))  # the smallest index of an image that is like this one
    pairs_at_once = count_items(pixels)
    for pairs in iterate_similar_hashes(hashes):
        for start in range(0, len(pairs), pairs_at_once):
            first, second = pairs[start : start + pairs_at_once].T
            is_earlier = first < first_of[second]
            first, second = first[is_earlier], second[is_earlier]
            is_similar = _compare_pixels(pixels[first], pixels[second])
            np.minimum.at(first_of, second[is_similar], first[is_similar])
    second = np.flatnonzero(first_of < len(hashes))
    return sorted(zip(first_of[second].tolist(), second.tolist(), strict=True))


def _compare_pixels(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return which pairs of images, uint8 [pairs, C, H, W] each, have similar pixels; bool [pairs]."""
    brighter = np.maximum(first, second)
    darker = np.minimum(first, second)
    has_ink = brighter >= MIN_INK
    difference = np.where(has_ink, brighter - darker, 0).sum((1, 2, 3))
    return np.asarray(difference <= MAX_PIXEL_DISTANCE * has_ink.sum((1, 2, 3)))


def iterate_similar_hashes(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the pairs of ``hashes``, uint64 [N], that differ in at most `MAX_HASH_DISTANCE` bits, at most N at a time.

    They are int64 [pairs, 2], the smaller index first; a pair may come several times. A hash is cut into one piece more
    than bits may differ, so similar hashes have at least one equal piece. Only hashes with an equal piece are compared.
    """
    mask = np.uint64(2**PIECE_BITS - 1)
    for piece in range(PIECES):
        shift = np.uint64(piece * PIECE_BITS)
        yield from _compare_equal_pieces(hashes, (hashes >> shift) & mask)


def _compare_equal_pieces(hashes: np.ndarray, pieces: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the pairs of similar hashes among those whose ``pieces``, [N], are equal."""
    order = np.argsort(pieces, kind="stable")  # equal pieces are neighbours, the smaller index first
    largest_group = np.unique(pieces, return_counts=True)[1].max(initial=0)
    for offset in range(int(largest_group) - 1, 0, -1):  # the smallest first index comes first
        first = order[:-offset]
        second = order[offset:]
        is_equal = pieces[first] == pieces[second]
        first = first[is_equal]
        second = second[is_equal]
        distance = np.bitwise_count(hashes[first] ^ hashes[second])
        yield np.column_stack((first, second))[distance <= MAX_HASH_DISTANCE]
