"""The cleaned data set on disk: its report, for programs and for people, and the images that were set aside."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.cleaning.checks import CHANGED, LISTED, PROBLEMS, SET_ASIDE, CleanedImages, Finding
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.data.catalog import CLEANING_REPORT_FILE, MAX_JSON_SIZE
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import MAX_FILE_SIZE, UnusableImageError
from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.regular_files import open_real_file, read_limited
from pipeline.text import escape_markdown

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
            "files_refused": [{"file": str(entry.path), "reason": entry.reason} for entry in source.refused],
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
    lines += _format_refused_files(report["source"]["files_refused"])
    for name, problem in report["findings"].items():
        if problem["images"]:
            lines += ["", f"## {name}: {problem['count']:,}", ""]
            lines += _format_images(problem)
    lines += ["", "## Classes", "", "| class | to train on | to test on |", "| --- | --- | --- |"]
    for name, counts in report["classes"].items():
        lines.append(f"| {escape_markdown(name)} | {counts['train']:,} | {counts['test']:,} |")
    return "\n".join(lines) + "\n"


def _format_ignored_files(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    lines = ["", f"{len(names):,} files not looked at, because of their names or because they lie in no class:", ""]
    lines += [f"- {escape_markdown(name)}" for name in names[:MAX_LISTED]]
    return lines


def _format_refused_files(files: Sequence[Mapping[str, str]]) -> list[str]:
    if not files:
        return []
    lines = ["", f"{len(files):,} not read, because they are no regular files, or are links that lead elsewhere:", ""]
    lines += [f"- {escape_markdown(file['file'])}: {escape_markdown(file['reason'])}" for file in files[:MAX_LISTED]]
    return lines


def _format_images(problem: Mapping[str, Any]) -> list[str]:
    lines = []
    for image in problem["images"][:MAX_LISTED]:
        file, label, detail = [escape_markdown(image[key]) for key in ("file", "class", "detail")]
        line = f"- {file} (class {label}): {detail}"
        if image["set_aside"] and problem["done"] != SET_ASIDE:
            line += "; set aside"
        lines.append(line)
    return lines


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
    """Write the report into ``folder``, as JSON and as Markdown.

    Raises
    ------
    UserError
        It would be larger than what is read later.
    """
    content = (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()
    if len(content) > MAX_JSON_SIZE:
        raise UserError(
            f"the report would have {len(content):,} bytes, more than {MAX_JSON_SIZE:,}: too many images have a "
            "problem, or too many files are ignored; remove them from the source"
        )
    (folder / CLEANING_REPORT_FILE).write_bytes(content)
    (folder / MARKDOWN_FILE).write_text(format_cleaning_report(report), encoding="utf-8")


def write_quarantine(folder: Path, cleaned: CleanedImages) -> None:
    """Write the images that were set aside to ``quarantine/<problem>/``: files as they are, pixels as PNG."""
    for name, findings in cleaned.findings.items():
        for finding in findings:
            if finding.is_set_aside:
                _write_image(finding.image, folder / QUARANTINE_FOLDER / name)


def _write_image(image: RawImage, folder: Path) -> None:
    content = _read_content(image)
    if content is None:
        return
    file = folder / _file_name(image)
    file.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while file.exists():  # names that differ in capitals only are the same on some disks
        number += 1
        file = file.with_name(f"{number}-{file.name[:100]}")
    file.write_bytes(content)


def _read_content(image: RawImage) -> bytes | None:
    """Return a file as it is, or pixels as PNG; None if that cannot be read, or is too large for a picture."""
    if isinstance(image.content, Path):
        try:
            with open_real_file(image.content) as file:
                return read_limited(file, MAX_FILE_SIZE)
        except OSError:
            return None
    pixels = _read_or_none(image)
    if pixels is None:
        return None
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()


def _file_name(image: RawImage) -> str:
    """Return the name of an image below its folder."""
    if isinstance(image.content, Path):
        return image.name
    # The maker of the file chose the array's name: it must not lead out of the folder.
    name = f"{image.name[-40:]} {image.label[:15]}"  # at most 225 bytes
    return re.sub(r"[^][\w. -]", "_", name) + ".png"


def _read_or_none(image: RawImage) -> np.ndarray | None:
    try:
        return image.read(MNIST_FORM)
    except UnusableImageError:
        return None
