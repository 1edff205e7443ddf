"""The cleaned data set on disk: its report, for programs and for people, and the images that were set aside."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.cleaning.checks import CHANGED, LISTED, PROBLEMS, SET_ASIDE, CleanedImages, Finding
from pipeline.cleaning.importers import FoundImages, RawImage
from pipeline.data.catalog import CLEANING_REPORT_FILE
from pipeline.data.images import UnusableImageError
from pipeline.data.splits import Dataset

MARKDOWN_FILE = "cleaning_report.md"
SHEET_FILE = "cleaning_report.png"
QUARANTINE_FOLDER = "quarantine"
MAX_LISTED = 20  # images of a problem in the report for people
MAX_EXAMPLES = 8  # images of a problem on the contact sheet


def build_datasets(cleaned: CleanedImages, name: str) -> tuple[Dataset, Dataset]:
    """Return the training and the test set."""
    return _select(cleaned, name, ~cleaned.is_test), _select(cleaned, name, cleaned.is_test)


def _select(cleaned: CleanedImages, name: str, mask: np.ndarray) -> Dataset:
    images = torch.from_numpy(cleaned.pixels[mask]).unsqueeze(1)
    labels = torch.from_numpy(cleaned.labels[mask])
    return Dataset(name, images, labels, cleaned.classes, "")


def build_report(cleaned: CleanedImages, source: FoundImages, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Return the report for programs. The same images give the same report: it has no times and no absolute paths.

    Images that were only changed are counted, not listed.
    """
    return {
        "source": {
            "kind": source.kind,
            "images": len(source.images),
            "files_ignored": source.ignored_files,
        },
        "images": len(cleaned.labels),
        "classes": _count_by_class(train, test),
        "findings": {name: _describe_problem(name, findings) for name, findings in cleaned.findings.items()},
        "train": {"images": len(train), "sha256": train.digest},
        "test": {"images": len(test), "sha256": test.digest},
    }


def _count_by_class(train: Dataset, test: Dataset) -> dict[str, dict[str, int]]:
    train_counts = train.labels.bincount(minlength=len(train.classes)).tolist()
    test_counts = test.labels.bincount(minlength=len(train.classes)).tolist()
    counts = {}
    for number, name in enumerate(train.classes):
        counts[name] = {"train": train_counts[number], "test": test_counts[number]}
    return counts


def _describe_problem(name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    problem = PROBLEMS[name]
    images = []
    if problem.action != CHANGED:
        images = [_describe_finding(finding) for finding in findings]
    return {
        "count": len(findings),
        "done": _describe_action(problem.action, findings),
        "what": problem.description,
        "images": images,
    }


def _describe_finding(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.image.name,
        "class": finding.image.label,
        "part": finding.image.split or None,
        "detail": finding.detail,
        "set_aside": finding.is_set_aside,
    }


def _describe_action(action: str, findings: Sequence[Finding]) -> str:
    """Return the action; of images that are usually only listed, also how many were set aside."""
    count = sum(finding.is_set_aside for finding in findings)
    if action == LISTED and count:
        return f"{action}, {count:,} set aside"
    return action


# --- for people -----------------------------------------------------------------------------------------------------


def format_cleaning_report(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown: a table, the first images of each problem, the classes."""
    lines = [
        "# Cleaning report",
        "",
        f"{report['source']['images']:,} images found, {report['images']:,} left in {len(report['classes']):,} "
        f"classes: {report['train']['images']:,} to train on and {report['test']['images']:,} to test on. "
        f"Every image of every problem is in {CLEANING_REPORT_FILE}.",
        "",
        "| problem | images | done | |",
        "| --- | --- | --- | --- |",
    ]
    for name, problem in report["findings"].items():
        lines.append(f"| {name} | {problem['count']:,} | {problem['done']} | {problem['what']} |")
    lines += _format_ignored_files(report["source"]["files_ignored"])
    for name, problem in report["findings"].items():
        if problem["images"]:
            lines += ["", f"## {name}: {problem['count']:,}", ""]
            lines += _format_images(problem)
    lines += ["", "## Classes", "", "| class | to train on | to test on |", "| --- | --- | --- |"]
    for name, counts in report["classes"].items():
        lines.append(f"| {_format_name(name)} | {counts['train']:,} | {counts['test']:,} |")
    return "\n".join(lines) + "\n"


def _format_ignored_files(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    lines = ["", f"{len(names):,} files not looked at, because of their names or because they lie in no class:", ""]
    lines += [f"- {_format_name(name)}" for name in names[:MAX_LISTED]]
    return lines


def _format_images(problem: Mapping[str, Any]) -> list[str]:
    lines = []
    for image in problem["images"][:MAX_LISTED]:
        line = f"- {_format_name(image['file'])} (class {_format_name(image['class'])}): {image['detail']}"
        if image["set_aside"] and problem["done"] != SET_ASIDE:
            line += "; set aside"
        lines.append(line)
    return lines


def _format_name(name: str) -> str:
    """Return a name as Markdown code, without the characters that would end it or split the table."""
    text = name.replace("`", "'").replace("|", "/")
    return "`" + " ".join(text.split()) + "`"


def list_examples(cleaned: CleanedImages) -> list[tuple[str, list[tuple[np.ndarray | None, str]]]]:
    """Return a title and the first images of each problem, each with a caption, for a contact sheet.

    An image is uint8 [height, width], or None if it cannot be read.
    """
    rows = []
    for name, findings in cleaned.findings.items():
        if not findings or PROBLEMS[name].action == CHANGED:
            continue
        examples = []
        for finding in findings[:MAX_EXAMPLES]:
            image = finding.image
            examples.append((_read_or_none(image), f"{image.label}: {Path(image.name).name}"))
        rows.append((f"{name}: {len(findings):,}", examples))
    return rows


# --- files ----------------------------------------------------------------------------------------------------------


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the report into ``folder``, as JSON and as Markdown."""
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (folder / CLEANING_REPORT_FILE).write_text(text, encoding="utf-8")
    (folder / MARKDOWN_FILE).write_text(format_cleaning_report(report), encoding="utf-8")


def write_quarantine(folder: Path, cleaned: CleanedImages) -> None:
    """Write the images that were set aside to ``quarantine/<problem>/``: files as they are, pixels as PNG."""
    for name, findings in cleaned.findings.items():
        for finding in findings:
            if finding.is_set_aside:
                _write_image(finding.image, folder / QUARANTINE_FOLDER / name)


def _write_image(image: RawImage, folder: Path) -> None:
    file = folder / _file_name(image)
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image.content, Path):
        with suppress(OSError):  # a file that cannot be read cannot be copied
            shutil.copyfile(image.content, file)
        return
    pixels = _read_or_none(image)
    if pixels is not None:
        Image.fromarray(pixels).save(file)


def _file_name(image: RawImage) -> str:
    """Return the name of an image below its folder."""
    if isinstance(image.content, Path):
        return image.name
    # The maker of the file chose the array's name: it must not lead out of the folder.
    name = f"{image.name[-40:]} {image.label[:40]}"
    return re.sub(r"[^][\w. -]", "_", name) + ".png"


def _read_or_none(image: RawImage) -> np.ndarray | None:
    try:
        return image.read_grey()
    except UnusableImageError:
        return None
