"""Find the problems of a set of images. Safe ones are fixed, the others are listed for a person."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.cleaning.duplicates import find_duplicates, find_near_duplicates
from pipeline.cleaning.raw_images import RawImage, sort_classes
from pipeline.data.catalog import MAX_CLASSES
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import BLANK, MAX_MEMORY, NOT_FINITE, OUT_OF_RANGE, UNREADABLE, UnusableImageError
from pipeline.data.parallel import parallel_map
from pipeline.data.preparation import prepare_image
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.cleaning.label_issues import LabelIssue

MIN_CLASS_SIZE = 10  # training images; with fewer there is nothing to train, validate and test on
TEST_SHARE = 0.15  # of the images, if the source has no test split

SET_ASIDE, LISTED, CHANGED = "set aside", "listed", "changed"


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Attributes
    ----------
    action : what happens to such an image: `SET_ASIDE`, `LISTED` or `CHANGED`.
    description : for people.
    """

    action: str
    description: str


# In the order in which the checks run. The descriptions are part of the report, and the report is part of every
# training's provenance: another text is another report.
PROBLEMS = {
    UNREADABLE: Problem(SET_ASIDE, "no picture, a damaged one, or one too large"),
    NOT_FINITE: Problem(SET_ASIDE, "pixels that are no numbers"),
    OUT_OF_RANGE: Problem(SET_ASIDE, "pixels below black or above white"),
    BLANK: Problem(SET_ASIDE, "nothing on it, or nearly nothing"),
    "two_classes": Problem(SET_ASIDE, "the same image in two classes: all its copies"),
    "train_test_duplicate": Problem(
        SET_ASIDE, "a training image that is in the test set too: it would flatter the result"
    ),
    "duplicate": Problem(SET_ASIDE, "the same image again: one is kept"),
    "small_class": Problem(
        SET_ASIDE, f"a class of fewer than {MIN_CLASS_SIZE} training images, or without test images"
    ),
    "label_issue": Problem(LISTED, "probably in the wrong class; a model trained on the others says so"),
    "near_duplicate": Problem(LISTED, "nearly the same as another image"),
    "inverted": Problem(CHANGED, "dark on light: now bright on dark"),
    "resized": Problem(CHANGED, "another size than 28x28: the ink fitted into 20x20, centred by mass"),
}


@dataclass(frozen=True)
class Finding:
    """One image with a problem.

    Attributes
    ----------
    image : as it is in the source.
    detail : more about the problem, for people.
    is_set_aside : whether the image was removed.
    """

    image: RawImage
    detail: str
    is_set_aside: bool


Findings = dict[str, list[Finding]]  # by the names of `PROBLEMS`


@dataclass(frozen=True)
class CleanedImages:
    """The images that stay, and what was found.

    Attributes
    ----------
    classes : the names of the classes, in the order of the labels.
    pixels : uint8 [N, 28, 28].
    labels : int64 [N].
    is_test : bool [N]; whether the image belongs to the test set.
    findings : by problem.
    """

    classes: tuple[str, ...]
    pixels: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    findings: Findings


@dataclass(frozen=True)
class _UsableImages:
    """Prepared images: where they come from, pixels uint8 [N, 28, 28], perceptual hashes uint64 [N]."""

    raw: list[RawImage]
    pixels: np.ndarray
    hashes: np.ndarray

    def select(self, mask: np.ndarray) -> "_UsableImages":
        raw = [self.raw[index] for index in np.flatnonzero(mask)]
        return _UsableImages(raw, self.pixels[mask], self.hashes[mask])

    def are_test(self) -> np.ndarray:
        return np.array([raw.split == "test" for raw in self.raw], bool)


@dataclass(frozen=True)
class _PreparedImage:
    pixels: np.ndarray
    perceptual_hash: int
    changes: tuple[str, ...]


@dataclass(frozen=True)
class _UnusableImage:
    problem: str
    detail: str


def clean_images(raw_images: Sequence[RawImage], *, drop_label_issues: bool, progress: bool) -> CleanedImages:
    """Return the images that stay, and what was found.

    The same input gives the same output. With ``drop_label_issues`` probable label errors are removed from the
    training images. They are never removed from the test images: to drop those that a model gets wrong would make
    every later result look better than it is.

    Raises
    ------
    UserError
        Fewer than two classes, or more than 1,000, are left.
    """
    findings: Findings = {name: [] for name in PROBLEMS}
    images = _prepare_all(raw_images, findings, progress=progress)
    images = _remove_duplicates(images, findings)
    images = _remove_small_classes(images, findings)
    classes = _check_classes(images, findings)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[raw.label] for raw in images.raw], np.int64)
    is_test = _choose_test_images(images, labels)

    from pipeline.cleaning import label_issues  # brings PyTorch, which the worker processes above do not need

    issues = label_issues.detect_label_issues(images.pixels, labels, classes, progress=progress)
    is_dropped = np.zeros(len(labels), bool)
    if drop_label_issues:
        is_dropped = _choose_dropped(issues, labels, is_test)
    for issue in issues:
        is_set_aside = bool(is_dropped[issue.index])
        findings["label_issue"].append(Finding(images.raw[issue.index], issue.detail, is_set_aside))
    for first, second in find_near_duplicates(images.hashes, images.pixels):
        detail = f"like {images.raw[first].name}"
        findings["near_duplicate"].append(Finding(images.raw[second], detail, is_set_aside=False))
    is_kept = ~is_dropped
    return CleanedImages(classes, images.pixels[is_kept], labels[is_kept], is_test[is_kept], findings)


def _prepare_all(raw_images: Sequence[RawImage], findings: Findings, *, progress: bool) -> _UsableImages:
    raw: list[RawImage] = []
    pixels: list[np.ndarray] = []
    hashes: list[int] = []
    item_size = max((raw.content.nbytes for raw in raw_images if isinstance(raw.content, np.ndarray)), default=0)
    results = parallel_map(_prepare_one, raw_images, memory=MAX_MEMORY, item_size=item_size)
    results_with_bar = tqdm(results, "images", len(raw_images), unit="", disable=not progress)
    for raw_image, result in zip(raw_images, results_with_bar, strict=True):
        if isinstance(result, _UnusableImage):
            findings[result.problem].append(Finding(raw_image, result.detail, is_set_aside=True))
            continue
        for change in result.changes:
            findings[change].append(Finding(raw_image, "", is_set_aside=False))
        raw.append(raw_image)
        pixels.append(result.pixels)
        hashes.append(result.perceptual_hash)
    shape = MNIST_FORM.shape[1:]
    stacked = np.stack(pixels) if pixels else np.empty((0, *shape), np.uint8)
    return _UsableImages(raw, stacked, np.array(hashes, np.uint64))


def _prepare_one(raw_image: RawImage) -> _PreparedImage | _UnusableImage:
    """Return the prepared image, or what is wrong with it."""
    # Worker processes import this module for it. Keep PyTorch out, so that they start at once.
    try:
        prepared = prepare_image(raw_image.read(MNIST_FORM), MNIST_FORM)
    except UnusableImageError as error:
        return _UnusableImage(error.problem, str(error))
    # The signs of the lowest frequencies of a cosine transform: Zauner 2010, https://www.phash.org.
    bits = imagehash.phash(Image.fromarray(prepared.pixels[0])).hash
    perceptual_hash = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return _PreparedImage(prepared.pixels[0], perceptual_hash, prepared.changes)


def _remove_duplicates(images: _UsableImages, findings: Findings) -> _UsableImages:
    is_kept = np.ones(len(images.raw), bool)
    for duplicate in find_duplicates(images.raw, images.pixels):
        finding = Finding(images.raw[duplicate.index], duplicate.detail, is_set_aside=True)
        findings[duplicate.problem].append(finding)
        is_kept[duplicate.index] = False
    return images.select(is_kept)


def _remove_small_classes(images: _UsableImages, findings: Findings) -> _UsableImages:
    is_test = images.are_test()
    train_counts: Counter[str] = Counter()
    test_counts: Counter[str] = Counter()
    for raw, test in zip(images.raw, is_test, strict=True):
        counts = test_counts if test else train_counts
        counts[raw.label] += 1
    has_test_split = bool(is_test.any())
    is_kept = np.ones(len(images.raw), bool)
    for index, raw in enumerate(images.raw):
        train = train_counts[raw.label]
        test = test_counts[raw.label]
        lacks_test_images = has_test_split and test == 0
        if train >= MIN_CLASS_SIZE and not lacks_test_images:
            continue
        is_kept[index] = False
        detail = f"class {raw.label!r} has {train:,} training and {test:,} test images"
        findings["small_class"].append(Finding(raw, detail, is_set_aside=True))
    return images.select(is_kept)


def _check_classes(images: _UsableImages, findings: Findings) -> tuple[str, ...]:
    """Return the classes that are left, in the order of their labels."""
    classes = sort_classes(raw.label for raw in images.raw)
    if not 2 <= len(classes) <= MAX_CLASSES:
        counts = [f"{name}: {len(items):,}" for name, items in findings.items() if items]
        raise UserError(
            f"{len(classes):,} classes are left, and 2 to {MAX_CLASSES:,} are needed; "
            f"found: {', '.join(counts) or 'nothing'}"
        )
    return tuple(classes)


def _choose_test_images(images: _UsableImages, labels: np.ndarray) -> np.ndarray:
    """Return which images are for testing, bool [N]: those of the source's test split, else a share of each class."""
    from pipeline.data.splits import stratified_mask  # brings PyTorch, see clean_images

    is_test = images.are_test()
    if is_test.any():
        return is_test
    class_count = len(np.unique(labels))
    return stratified_mask(labels, max(class_count, round(TEST_SHARE * len(labels))))


def _choose_dropped(issues: "Sequence[LabelIssue]", labels: np.ndarray, is_test: np.ndarray) -> np.ndarray:
    """Return which of the images to remove, bool [N]: training images, as long as their class stays large enough."""
    sizes = np.bincount(labels[~is_test])
    is_dropped = np.zeros(len(labels), bool)
    for issue in issues:
        label = labels[issue.index]
        if is_test[issue.index] or sizes[label] <= MIN_CLASS_SIZE:
            continue
        is_dropped[issue.index] = True
        sizes[label] -= 1
    return is_dropped
