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

from pipeline.cleaning.checks import (
    CHANGED,
    LISTED,
    PROBLEMS,
    SET_ASIDE,
    CleanedImages,
    Finding,
    describe_problem,
)
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.data.catalog import CLEANING_REPORT_FILE, MAX_JSON_SIZE, SPLITS
from pipeline.data.forms import MAX_SIDE, Form, PhotoForm
from pipeline.data.images import MAX_FILE_SIZE, UnusableImageError
from pipeline.data.preparation import arrange_for_display
from pipeline.data.prepared import describe_shape_and_form
from pipeline.data.splits import Dataset, Splits
from pipeline.errors import UserError
from pipeline.regular_files import read_limited
from pipeline.text import escape_markdown

MARKDOWN_FILE = "cleaning_report.md"
SHEET_FILE = "cleaning_report.png"
JPEG_START = b"\xff\xd8"
QUARANTINE_FOLDER = "quarantine"
MAX_LISTED = 20  # images of a problem in the report for people
MAX_EXAMPLES = 8  # images of a problem on the contact sheet
MAX_CLASS_EXAMPLES = 10  # good images of a class on it
MAX_CLASSES_SHOWN = 20
SHOWN_FORM = PhotoForm((3, 64, 64))  # as which images of the source are read to be shown: in colour, reduced
KEPT_FORM = PhotoForm((3, MAX_SIDE, MAX_SIDE))  # as which arrays of the source are read to be kept


def build_dataset(cleaned: CleanedImages, name: str) -> Dataset:
    """Return all images that stay as a data set; they remain where they are."""
    images = torch.from_numpy(cleaned.pixels)
    return Dataset(name, images, torch.from_numpy(cleaned.labels), cleaned.classes, "", cleaned.form)


def build_report(cleaned: CleanedImages, source: FoundImages, reason: str, splits: Splits) -> dict[str, Any]:
    """Return the report for programs. The same images give the same report: it has no times and no absolute paths.

    Images that were only changed are counted, not listed. ``reason`` says why the images have their form.
    """
    report: dict[str, Any] = {
        "source": {
            "kind": source.kind,
            "images": len(source.images),
            "files_ignored": source.ignored_files,
            "files_refused": [{"file": str(entry.path), "reason": entry.reason} for entry in source.refused],
        },
        "form": describe_shape_and_form(cleaned.form),
        "form_reason": reason,
        "images": len(cleaned.labels),
        "classes": _count_by_class(splits),
        "findings": {},
    }
    for name, findings in cleaned.findings.items():
        report["findings"][name] = _describe_problem(name, findings, cleaned.form)
    for name, split in zip(SPLITS, splits, strict=True):
        report[name] = {"images": len(split), "sha256": split.digest}
    return report


def _count_by_class(splits: Splits) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {name: {} for name in splits.train.classes}
    for name, split in zip(SPLITS, splits, strict=True):
        sizes = split.labels.bincount(minlength=len(counts)).tolist()
        for class_name, size in zip(counts, sizes, strict=True):
            counts[class_name][name] = size
    return counts


def _describe_problem(name: str, findings: Sequence[Finding], form: Form) -> dict[str, Any]:
    problem = PROBLEMS[name]
    images = []
    if problem.action != CHANGED:
        images = [_describe_finding(finding) for finding in findings]
    return {
        "count": len(findings),
        "done": _describe_action(problem.action, findings),
        "what": describe_problem(name, form),
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
        f"classes: {report['train']['images']:,} to train on, {report['validation']['images']:,} to validate on and "
        f"{report['test']['images']:,} to test on. Every image of every problem is in {CLEANING_REPORT_FILE}.",
        "",
        f"The images are {escape_markdown(report['form_reason'])}.",
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
    lines += ["", "## Classes", "", "| class | to train on | to validate on | to test on |"]
    lines.append("| --- | --- | --- | --- |")
    for name, counts in report["classes"].items():
        numbers = " | ".join(f"{counts[split]:,}" for split in SPLITS)
        lines.append(f"| {escape_markdown(name)} | {numbers} |")
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


def list_class_examples(train: Dataset) -> list[tuple[str, str, list[np.ndarray]]]:
    """Return name, size and first training images of the first `MAX_CLASSES_SHOWN` classes, for a contact sheet.

    An image is uint8 [height, width] or [height, width, 3]: what the model will see. If there are more classes, the
    last entry says how many, and has no images.
    """
    rows = []
    for label, name in enumerate(train.classes[:MAX_CLASSES_SHOWN]):
        indices = torch.nonzero(train.labels == label).flatten()
        images = train.images[indices[:MAX_CLASS_EXAMPLES]].numpy()
        rows.append((name, f"{len(indices):,} to train on", [arrange_for_display(pixels) for pixels in images]))
    more = len(train.classes) - MAX_CLASSES_SHOWN
    if more > 0:
        rows.append((f"and {more:,} more classes", "", []))
    return rows


def list_examples(cleaned: CleanedImages) -> list[tuple[str, list[tuple[np.ndarray | None, str]]]]:
    """Return a title and the first images of each problem, each with a caption, for a contact sheet.

    An image is uint8 [height, width] or [height, width, 3] as it was in the source, or None if it cannot be read.
    """
    rows = []
    for name, findings in cleaned.findings.items():
        if not findings or PROBLEMS[name].action == CHANGED:
            continue
        examples = []
        for finding in findings[:MAX_EXAMPLES]:
            image = finding.image
            examples.append((_read_or_none(image, SHOWN_FORM), f"{image.label}: {Path(image.name).name}"))
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
    """Return a picture file as it is, or pixels as PNG; None if that cannot be read, or is too large for a picture."""
    if image.is_encoded:
        try:
            with image.open() as file:
                return read_limited(file, MAX_FILE_SIZE)
        except (OSError, UnusableImageError):
            return None
    pixels = _read_or_none(image, KEPT_FORM)
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
    is_jpeg = image.is_encoded and image.content[:2].tobytes() == JPEG_START
    return re.sub(r"[^][\w. -]", "_", name) + (".jpg" if is_jpeg else ".png")


def _read_or_none(image: RawImage, form: Form) -> np.ndarray | None:
    """Return an image of the source, uint8 [height, width, 3], or [height, width] if it has no colours."""
    try:
        pixels = image.read(form)
    except UnusableImageError:
        return None
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels
