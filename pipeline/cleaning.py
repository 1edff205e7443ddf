"""What is wrong with a set of images: found, treated where that is safe, listed for a person where it is not."""

import hashlib
import json
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline import UserError, images, sources
from pipeline.sources import Raw

SMALLEST_CLASS = 10  # images; with fewer there is nothing to train, validate and test on
TEST_SHARE = 0.15  # of the images, where the source has no test part
NEAR = 4  # bits of 64 in which the perceptual hashes of near duplicates may differ
ALIKE = 12.0  # grey levels that their pixels may differ, on average over those with ink
FOLDS = 3  # in which the labels are checked, by a model for each
STEPS, BATCH = 600, 64  # of its training, whatever the number of images

# What is found, in the order in which it is looked for, and what follows.
SET_ASIDE, LISTED, CHANGED = "set aside", "listed", "changed"
PROBLEMS = {
    images.UNREADABLE: (SET_ASIDE, "no picture, a damaged one, or one too large"),
    images.NOT_FINITE: (SET_ASIDE, "pixels that are no numbers"),
    images.OUT_OF_RANGE: (SET_ASIDE, "pixels below black or above white"),
    images.BLANK: (SET_ASIDE, "nothing on it, or nearly nothing"),
    "two_classes": (SET_ASIDE, "the same image in two classes: all its copies"),
    "train_test_duplicate": (SET_ASIDE, "a training image that is in the test set too: it would flatter the result"),
    "duplicate": (SET_ASIDE, "the same image again: one is kept"),
    "small_class": (SET_ASIDE, f"a class of fewer than {SMALLEST_CLASS} training images, or without test images"),
    "label_issue": (LISTED, "probably in the wrong class; a model trained on the others says so"),
    "near_duplicate": (LISTED, "nearly the same as another image"),
    "inverted": (CHANGED, "dark on light: now bright on dark"),
    "resized": (CHANGED, "another size than 28x28: the ink fitted into 20x20, centred by mass"),
}


@dataclass(frozen=True)
class Finding:
    """One image with a problem; ``detail`` says more, for people. Set aside, it is not in what is left."""

    raw: Raw
    detail: str
    set_aside: bool


@dataclass(frozen=True)
class Cleaned:
    """What became of a source.

    Attributes
    ----------
    classes : the names of the classes that are left, in the order of the labels.
    pixels : uint8 [N, 28, 28], of the images that are left.
    labels : int64 [N].
    is_test : bool [N]; which of them belong to the test set.
    findings : what was found, by the names of `PROBLEMS`.
    """

    classes: tuple[str, ...]
    pixels: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    findings: dict[str, list[Finding]]


@dataclass(frozen=True)
class _Seen:
    """What one look at an image gave: pixels and their perceptual hash, or a problem."""

    pixels: np.ndarray
    hash: int
    problem: str
    detail: str
    changes: tuple[str, ...]


def _look(raw: Raw) -> _Seen:
    try:
        prepared = images.prepare(raw.grey())
    except images.UnusableError as error:
        return _Seen(np.empty(0), 0, error.problem, str(error), ())
    # Zauner 2010: the signs of the lowest frequencies of a cosine transform
    bits = imagehash.phash(Image.fromarray(prepared.pixels)).hash
    return _Seen(prepared.pixels, int.from_bytes(np.packbits(bits).tobytes(), "big"), "", "", prepared.changes)


def clean(found: Sequence[Raw], drop_label_issues: bool, progress: bool) -> Cleaned:
    """Return what is left of the images, and what was found.

    The first of several equal images, in the order of ``found``, is kept; the same input gives the same output. With
    ``drop_label_issues`` probable label errors are set aside, from the training images only: dropping test images that
    a model gets wrong would flatter every later result.

    Raises
    ------
    UserError
        Fewer than two classes, or more than 1,000, are left.
    """
    report: dict[str, list[Finding]] = {name: [] for name in PROBLEMS}
    seen: list[tuple[np.ndarray, int]] = []
    raws: list[Raw] = []
    looks = images.for_each(_look, found)
    for raw, look in zip(found, tqdm(looks, "images", len(found), unit="", disable=not progress), strict=True):
        if look.problem:
            report[look.problem].append(Finding(raw, look.detail, True))
        else:
            raws.append(raw)
            seen.append((look.pixels, look.hash))
            for change in look.changes:
                report[change].append(Finding(raw, "", False))
    pixels = np.stack([each for each, _ in seen]) if seen else np.empty((0, 28, 28), np.uint8)
    hashes = np.array([each for _, each in seen], np.uint64)
    del seen

    left = np.ones(len(raws), bool)

    def set_aside(problem: str, place: int, detail: str) -> None:
        report[problem].append(Finding(raws[place], detail, True))
        left[place] = False

    for problem, place, detail in _copies(raws, pixels):
        set_aside(problem, place, detail)

    from pipeline import data  # brings PyTorch: after the processes above, which do without

    has_test = any(raw.part == "test" for place, raw in enumerate(raws) if left[place])
    for place, label, count in _small_classes(raws, left, has_test):
        set_aside("small_class", place, f"class {label!r} has {count}")
    places = np.flatnonzero(left)
    classes = tuple(sources.order(raws[place].label for place in places))
    if not 2 <= len(classes) <= 1000:
        told = ", ".join(f"{name}: {len(items):,}" for name, items in report.items() if items)
        raise UserError(f"{len(classes):,} classes are left, and 2 to 1,000 are needed; found: {told or 'nothing'}")
    pixels = pixels[places]
    number = {name: each for each, name in enumerate(classes)}
    labels = np.array([number[raws[place].label] for place in places], np.int64)
    if has_test:
        is_test = np.array([raws[place].part == "test" for place in places])
    else:
        is_test = data.choose(labels, max(len(classes), round(TEST_SHARE * len(labels))))

    keep = np.ones(len(places), bool)
    sizes = np.bincount(labels[~is_test])
    for index, detail in label_issues(pixels, labels, classes, progress):
        label = labels[index]
        if drop_label_issues and not is_test[index] and sizes[label] > SMALLEST_CLASS:
            keep[index] = False
            sizes[label] -= 1
        report["label_issue"].append(Finding(raws[places[index]], detail, not keep[index]))
    for index, other in _near(hashes[places], pixels):
        report["near_duplicate"].append(Finding(raws[places[other]], f"like {raws[places[index]].name}", False))
    return Cleaned(classes, pixels[keep], labels[keep], is_test[keep], report)


def _copies(raws: Sequence[Raw], pixels: np.ndarray) -> Iterator[tuple[str, int, str]]:
    """Yield problem, place and detail of each image that is there more than once, but for the one that is kept."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for place, image in enumerate(pixels):
        same[hashlib.sha256(image).digest()].append(place)
    for group in same.values():
        labels = {raws[place].label for place in group}
        if len(labels) > 1:
            for place in group:
                others = (other for other in group if raws[other].label != raws[place].label)
                yield "two_classes", place, "also " + ", ".join(raws[other].name for other in others)
            continue
        tests = [place for place in group if raws[place].part == "test"]
        kept = (tests or group)[0]
        for place in group:
            if place != kept:
                across = tests and raws[place].part != "test"
                yield "train_test_duplicate" if across else "duplicate", place, f"kept: {raws[kept].name}"


def _small_classes(raws: Sequence[Raw], left: np.ndarray, has_test: bool) -> Iterator[tuple[int, str, str]]:
    """Yield place, class and number of images for each image of a class that is too small."""
    train: dict[str, int] = defaultdict(int)
    test: dict[str, int] = defaultdict(int)
    for place in np.flatnonzero(left).tolist():
        (test if raws[place].part == "test" else train)[raws[place].label] += 1
    for place in np.flatnonzero(left).tolist():
        label = raws[place].label
        if train[label] < SMALLEST_CLASS or (has_test and not test[label]):
            yield place, label, f"{train[label]:,} training and {test[label]:,} test images"


def _near(hashes: np.ndarray, pixels: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs of images, the earlier first, whose hashes and whose pixels are nearly the same; each later once."""
    seen: set[int] = set()
    pairs = _close(hashes)
    for few in np.array_split(pairs, 1 + len(pairs) // 4096):
        ones, others = (pixels[few[:, column]].reshape(len(few), images.SIDE**2) for column in (0, 1))
        ink = np.maximum(ones, others) >= 32
        gaps = np.where(ink, np.maximum(ones, others) - np.minimum(ones, others), 0).sum(1)
        for index, other in few[gaps <= ALIKE * ink.sum(1)].tolist():
            if other not in seen:
                seen.add(other)
                yield index, other


def _close(hashes: np.ndarray) -> np.ndarray:
    """Return the pairs, int64 [pairs, 2] in order, of ``hashes``, uint64 [N], that differ in at most `NEAR` bits.

    Such a pair agrees in one of NEAR + 1 parts of the hash, so only those are compared that do.
    """
    width = math.ceil(64 / (NEAR + 1))
    pairs = [np.empty(0, np.int64)]  # a pair is one number here: the earlier times N plus the later
    for part in range(NEAR + 1):
        key = (hashes >> np.uint64(width * part)) & np.uint64(2**width - 1)
        order = np.argsort(key, kind="stable")
        for step in range(1, len(order)):
            same = key[order[step:]] == key[order[:-step]]
            if not same.any():
                break
            ones, others = order[:-step][same], order[step:][same]
            close = np.bitwise_count(hashes[ones] ^ hashes[others]) <= NEAR
            pairs.append(ones[close] * len(order) + others[close])
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), max(len(hashes), 1)), 1)


def label_issues(
    pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], progress: bool
) -> list[tuple[int, str]]:
    """Return index and detail of the images that are probably in the wrong class, the most suspicious first.

    Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068) on the probabilities that models give
    to the images that they were not trained on.
    """
    from cleanlab.filter import find_label_issues

    probabilities = _cross_validated(pixels, labels, classes, progress)
    found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    guesses = probabilities.argmax(1)
    return [
        (int(index), f"looks like {classes[guesses[index]]!r} ({probabilities[index].max():.1%})") for index in found
    ]


def _cross_validated(pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], progress: bool) -> np.ndarray:
    """Return probabilities, float64 [N, classes], of models that were trained on the other folds."""
    import torch
    from sklearn.model_selection import StratifiedKFold

    from pipeline import model, training
    from pipeline.data import Dataset
    from pipeline.evaluation import probabilities

    every = Dataset("cleaning", torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels), classes, "")
    found = np.empty((len(labels), len(classes)))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    for rest, fold in tqdm(folds, "labels", FOLDS, unit="", disable=not progress):
        train, others = every.take(torch.from_numpy(rest)), every.take(torch.from_numpy(fold))
        torch.manual_seed(0)
        network = model.build("cnn", len(classes), train.images)
        for _ in training.fit(
            network,
            training.optimizer(network, 0.01, 0.05),
            train,
            others,
            epochs=math.ceil(STEPS / math.ceil(len(train) / BATCH)),
            batch_size=BATCH,
            seed=0,
            device=torch.device("cpu"),
            augment=("affine",),
        ):
            pass
        found[fold] = probabilities(network, others.images, device=torch.device("cpu"))
    return found


# --- the report -----------------------------------------------------------------------------------------------------


def report(cleaned: Cleaned, kind: str, found: int, ignored: Sequence[str]) -> dict[str, Any]:
    """Return the report for JSON. Nothing in it tells time or place. Of what was only changed it has the numbers."""
    train, test = (
        np.bincount(cleaned.labels[part], minlength=len(cleaned.classes)).tolist()
        for part in (~cleaned.is_test, cleaned.is_test)
    )
    counts = {name: {"train": train[i], "test": test[i]} for i, name in enumerate(cleaned.classes)}
    return {
        "source": {"kind": kind, "images": found, "files_ignored": list(ignored)},
        "images": len(cleaned.labels),
        "classes": counts,
        "findings": {
            name: {
                "count": len(cleaned.findings[name]),
                "done": _done(done, cleaned.findings[name]),
                "what": what,
                "images": [
                    {
                        "file": each.raw.name,
                        "class": each.raw.label,
                        "part": each.raw.part or None,
                        "detail": each.detail,
                        "set_aside": each.set_aside,
                    }
                    for each in cleaned.findings[name]
                ]
                if done != CHANGED
                else [],
            }
            for name, (done, what) in PROBLEMS.items()
        },
    }


def _done(done: str, findings: Sequence[Finding]) -> str:
    """Return what was done; of what is usually only listed, how many were set aside."""
    aside = sum(each.set_aside for each in findings)
    return f"{done}, {aside:,} set aside" if aside and done == LISTED else done


def markdown(report: dict[str, Any]) -> str:
    """Return the report for people: a table, then up to 20 images of each problem."""
    train, test = (sum(each[part] for each in report["classes"].values()) for part in ("train", "test"))
    lines = [
        "# Cleaning report",
        "",
        f"{report['source']['images']:,} images found, {report['images']:,} left in {len(report['classes']):,} "
        f"classes: {train:,} to train on and {test:,} to test on. Every image of every problem is in "
        "cleaning_report.json.",
        "",
        "| problem | images | done | |",
        "| --- | --- | --- | --- |",
    ]
    for name, problem in report["findings"].items():
        lines.append(f"| {name} | {problem['count']:,} | {problem['done']} | {problem['what']} |")
    if ignored := report["source"]["files_ignored"]:
        lines += [
            "",
            f"{len(ignored):,} files not looked at, because of their names or because they lie in no class:",
            "",
        ]
        lines += [f"- {_code(name)}" for name in ignored[:20]]
    for name, problem in report["findings"].items():
        if problem["images"]:
            lines += ["", f"## {name}: {problem['count']:,}", ""]
            for each in problem["images"][:20]:
                aside = "; set aside" if each["set_aside"] and problem["done"] != SET_ASIDE else ""
                lines.append(f"- {_code(each['file'])} (class {_code(each['class'])}): {each['detail']}{aside}")
    lines += ["", "## Classes", "", "| class | to train on | to test on |", "| --- | --- | --- |"]
    lines += [f"| {_code(name)} | {each['train']:,} | {each['test']:,} |" for name, each in report["classes"].items()]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Return a name as code, whatever is in it."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"


def write(folder: Path, cleaned: Cleaned, report: dict[str, Any]) -> None:
    """Write the data set, the report (JSON, Markdown, a sheet of pictures) and what was set aside, in ``quarantine/``.

    Adds ``train`` and ``test`` to the report: how many images, and their digest.
    """
    import torch

    from pipeline import data, plots

    splits = []
    for part, chosen in (("train", ~cleaned.is_test), ("test", cleaned.is_test)):
        pixels, labels = (torch.from_numpy(array[chosen]) for array in (cleaned.pixels, cleaned.labels))
        splits.append(data.Dataset(folder.name, pixels.unsqueeze(1), labels, cleaned.classes, ""))
        report[part] = {"images": len(labels), "sha256": splits[-1].digest}
    data.save(folder, *splits)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (folder / data.REPORT).write_text(text, encoding="utf-8")
    (folder / "cleaning_report.md").write_text(markdown(report), encoding="utf-8")
    rows = []
    for name, findings in cleaned.findings.items():
        if findings and PROBLEMS[name][0] != CHANGED:
            examples = [(_picture(each.raw), f"{each.raw.label}: {Path(each.raw.name).name}") for each in findings[:8]]
            rows.append((f"{name}: {len(findings):,}", examples))
        for each in findings:
            if each.set_aside:
                file = folder / "quarantine" / name / _file_name(each.raw)
                file.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(each.raw.picture, Path):
                    with suppress(OSError):  # what cannot be read cannot be copied
                        shutil.copyfile(each.raw.picture, file)
                elif (picture := _picture(each.raw)) is not None:
                    Image.fromarray(picture).save(file)
    plots.contact_sheet(rows).savefig(folder / "cleaning_report.png")


def _picture(raw: Raw) -> np.ndarray | None:
    """Return the grey levels of an image, or None where it has none."""
    try:
        return raw.grey()
    except images.UnusableError:
        return None


def _file_name(raw: Raw) -> str:
    """Return where an image lies below a folder; one from an array is named by the array, its place and its class."""
    if isinstance(raw.picture, Path):
        return raw.name
    return re.sub(r"[^][\w. -]", "_", f"{raw.name[-40:]} {raw.label[:40]}") + ".png"
