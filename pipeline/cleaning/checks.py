"""Find the problems of a set of images. Safe ones are fixed, the others are listed for a person."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from tqdm import tqdm

from pipeline.cleaning.duplicates import count_items, find_duplicates, find_near_duplicates, hash_image
from pipeline.cleaning.raw_images import RawImage, sort_classes
from pipeline.data.catalog import MAX_CLASSES
from pipeline.data.forms import Form, InkForm
from pipeline.data.images import BLANK, MAX_MEMORY, NOT_FINITE, OUT_OF_RANGE, UNREADABLE, UnusableImageError
from pipeline.data.parallel import parallel_map
from pipeline.data.preparation import prepare_image
from pipeline.errors import UserError
from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.cleaning.label_issues import LabelIssue

MIN_CLASS_SIZE = 10  # training images; with fewer there is nothing to train, validate and test on
MAX_SMALL_CLASSES_SHOWN = 10
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
    "resized": Problem(CHANGED, "another size or place than the form's: {}"),  # see `describe_problem`
}


def describe_problem(name: str, form: Form) -> str:
    """Return the description of a problem in a data set of this form, for people."""
    _, height, width = form.shape
    change = f"the middle of the picture resized to {height}x{width}"
    if isinstance(form, InkForm):
        change = f"the ink fitted into {form.box}x{form.box} of {height}x{width} pixels, and placed as the form says"
    return PROBLEMS[name].description.format(change)


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
    pixels : uint8 [N, channels, height, width], mapped from a file.
    labels : int64 [N].
    is_test : bool [N]; whether the image belongs to the test set.
    findings : by problem.
    form : of the images.
    """

    classes: tuple[str, ...]
    pixels: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    findings: Findings
    form: Form


@dataclass(frozen=True)
class _UsableImages:
    """Prepared images: where they come from, pixels uint8 [N, C, H, W], perceptual hashes uint64 [N]."""

    raw: list[RawImage]
    pixels: np.ndarray
    hashes: np.ndarray

    def select(self, mask: np.ndarray) -> "_UsableImages":
        """Return some of the images; the others are overwritten."""
        raw = [self.raw[index] for index in np.flatnonzero(mask)]
        return _UsableImages(raw, move_to_front(self.pixels, mask), self.hashes[mask])

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


def clean_images(
    raw_images: Sequence[RawImage], form: Form, scratch: BinaryIO, *, drop_label_issues: bool, progress: bool
) -> CleanedImages:
    """Return the images that stay, prepared into the form, and what was found.

    The pixels are in ``scratch``, an empty file open to read and write: all of them may need more than the memory.
    The file must stay as long as they are used.

    The same input gives the same output. With ``drop_label_issues`` probable label errors are removed from the
    training images. They are never removed from the test images: to drop those that a model gets wrong would make
    every later result look better than it is.

    Raises
    ------
    UserError
        Fewer than two classes, or more than 1,000, are left.
    """
    findings: Findings = {name: [] for name in PROBLEMS}
    images = _prepare_all(raw_images, form, scratch, findings, progress=progress)
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
    pixels = move_to_front(images.pixels, is_kept)
    return CleanedImages(classes, pixels, labels[is_kept], is_test[is_kept], findings, form)


def move_to_front(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the images that ``mask`` selects, at the front of ``pixels``, where they overwrite the others.

    They are moved in blocks, so that a mapped array may be larger than the memory.
    """
    indices = np.flatnonzero(mask)
    if len(indices) < len(pixels):
        size = count_items(pixels)
        for start in range(0, len(indices), size):
            block = pixels[indices[start : start + size]]
            pixels[start : start + len(block)] = block
    return pixels[: len(indices)]


def _prepare_all(
    raw_images: Sequence[RawImage], form: Form, scratch: BinaryIO, findings: Findings, *, progress: bool
) -> _UsableImages:
    raw: list[RawImage] = []
    hashes: list[int] = []
    item_size = max((raw.content.nbytes for raw in raw_images if isinstance(raw.content, np.ndarray)), default=0)
    results = parallel_map(partial(_prepare_one, form=form), raw_images, memory=MAX_MEMORY, item_size=item_size)
    results_with_bar = tqdm(results, "images", len(raw_images), unit="", disable=not progress)
    for raw_image, result in zip(raw_images, results_with_bar, strict=True):
        if isinstance(result, _UnusableImage):
            findings[result.problem].append(Finding(raw_image, result.detail, is_set_aside=True))
            continue
        for change in result.changes:
            findings[change].append(Finding(raw_image, "", is_set_aside=False))
        raw.append(raw_image)
        scratch.write(result.pixels.tobytes())
        hashes.append(result.perceptual_hash)
    scratch.flush()
    shape = (len(raw), *form.shape)
    pixels = np.memmap(scratch, np.uint8, "r+", 0, shape) if raw else np.empty(shape, np.uint8)
    return _UsableImages(raw, pixels, np.array(hashes, np.uint64))


def _prepare_one(raw_image: RawImage, form: Form) -> _PreparedImage | _UnusableImage:
    """Return the prepared image, or what is wrong with it."""
    # Worker processes import this module for it. Keep PyTorch out, so that they start at once.
    try:
        prepared = prepare_image(raw_image.read(form), form)
    except UnusableImageError as error:
        return _UnusableImage(error.problem, str(error))
    return _PreparedImage(prepared.pixels, hash_image(prepared.pixels), prepared.changes)


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


def describe_small_classes(images: Iterable[tuple[str, str | None]]) -> str:
    """Return what the classes that are set aside lack, for people: "'x' has 4 of at least 10".

    ``images`` are class and split of each of their images.
    """
    counts: Counter[str] = Counter()
    for label, split in images:
        counts[label] += split != "test"
    lines = []
    for label in sort_classes(counts)[:MAX_SMALL_CLASSES_SHOWN]:
        name = repr(printable(label))
        count = counts[label]
        if count < MIN_CLASS_SIZE:
            lines.append(f"{name} has {count:,} of at least {MIN_CLASS_SIZE}")
        else:
            lines.append(f"{name} has no test image")
    if len(counts) > len(lines):
        lines.append(f"and {len(counts) - len(lines):,} more")
    return ", ".join(lines)


def _check_classes(images: _UsableImages, findings: Findings) -> tuple[str, ...]:
    """Return the classes that are left, in the order of their labels."""
    classes = sort_classes(raw.label for raw in images.raw)
    if not 2 <= len(classes) <= MAX_CLASSES:
        counts = [f"{name}: {len(items):,}" for name, items in findings.items() if items]
        small = [(finding.image.label, finding.image.split) for finding in findings["small_class"]]
        details = f"; {describe_small_classes(small)}" if small else ""
        raise UserError(
            f"{len(classes):,} classes are left, and 2 to {MAX_CLASSES:,} are needed; "
            f"found: {', '.join(counts) or 'nothing'}{details}"
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
