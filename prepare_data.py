"""Clean your own images and write them in the form that the other scripts train on.

    python prepare_data.py photos --output dataset_cleaned             photos/<class>/*.png, or photos/train/<class>/...
    python prepare_data.py letters.npz --output dataset_cleaned        X_train, y_train, X_test, y_test
    python prepare_data.py archive.zip --output dataset_cleaned        any of these, also in a .tar: docs/own-images.md
    python prepare_data.py photos --output dataset_cleaned --drop-label-issues
    python prepare_data.py photos --output dataset_cleaned --as photo --size 64 --channels 3

Read dataset_cleaned/cleaning_report.md, then: python pytorch_demo.py --dataset dataset_cleaned
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.data.catalog import CLEANING_REPORT_FILE, DATASET_NAMES
from pipeline.data.forms import INK, MAX_SIDE, PHOTO
from pipeline.errors import UserError
from pipeline.files import atomic_file
from pipeline.text import printable

AUTO = "auto"  # the pictures decide
MIN_SIDE = 8  # pixels

if TYPE_CHECKING:
    from pipeline.cleaning.form_choice import FormChoice
    from pipeline.cleaning.raw_images import FoundImages


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "raw",
        type=cli.path,
        metavar="RAW",
        help="the images: folders by class; a folder with labels.csv; IDX, .npy, .npz, .csv, .parquet or .mat files; "
        "or a .zip or .tar file of one of these",
    )
    parser.add_argument("--output", type=cli.path, required=True, help="the directory to create; it must not exist yet")
    parser.add_argument(
        "--drop-label-issues",
        action="store_true",
        help="remove probable label errors from the training images (default: only list them)",
    )
    add_form_options(parser.add_argument_group("the form of the images"))
    options = parser.parse_args(argv)
    if options.kind == INK and options.channels == 3:
        parser.error("ink has one channel: --as ink goes with --channels 1; or choose --as photo")
    return options


def add_form_options(group: argparse._ArgumentGroup) -> None:
    """Add what the images become; by default the pictures decide, see `pipeline.cleaning.form_choice`."""
    group.add_argument(
        "--as",
        dest="kind",
        choices=(INK, PHOTO, AUTO),
        default=AUTO,
        help="ink: bright on dark, fitted into a box; photo: cut and resized; auto: by the pictures (default: auto)",
    )
    group.add_argument(
        "--size",
        type=image_size,
        metavar="N",
        help=f"pixels of a side, {MIN_SIDE} to {MAX_SIDE}, or HEIGHTxWIDTH (default: by the pictures)",
    )
    group.add_argument("--channels", type=int, choices=(1, 3), help="1: grey, 3: colour (default: by the pictures)")


def image_size(text: str) -> tuple[int, int]:
    """Return height and width; an argparse type for ``64`` and ``48x64``."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64 or 48x64")
    height, width = int(sides[0][:9]), int(sides[-1][:9])
    if not MIN_SIDE <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: a side has {MIN_SIDE} to {MAX_SIDE} pixels")
    return height, width


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Find the images, clean them, write the data set and the report, print."""
    options = parse_options(argv)
    check_output(options.raw, options.output)
    from pipeline.cleaning.archives import open_source
    from pipeline.cleaning.form_choice import FormOptions, choose_form
    from pipeline.cleaning.importers import find_images
    from pipeline.cleaning.source_summary import count_ignored_files

    output = resolve_path(options.output)
    with open_source(resolve_path(options.raw)) as folder:
        source = find_images(folder)
        cli.log(f"{len(source.images):,} images in {options.raw} ({source.kind})")
        log_source(source)
        kind = None if options.kind == AUTO else options.kind
        choice = choose_form(source.images, FormOptions(kind, options.size, options.channels))
        cli.log(choice.reason)
        report = write_output(output, source, choice, drop_label_issues=options.drop_label_issues)
    log_findings(report["findings"])
    cli.log(f"read {options.output}/cleaning_report.md; next: python pytorch_demo.py --dataset {options.output}")
    cli.print_json(
        {
            "output": str(options.output),
            "classes": len(report["classes"]),
            "form": report["form"],
            "train": report["train"]["images"],
            "validation": report["validation"]["images"],
            "test": report["test"]["images"],
            "files_not_read": count_ignored_files(source.ignored_files),
            "findings": {name: problem["count"] for name, problem in report["findings"].items()},
            "report_sha256": hashlib.sha256((output / CLEANING_REPORT_FILE).read_bytes()).hexdigest(),
        }
    )
    return cli.OK


def check_output(raw: Path, output: Path) -> None:
    """Raise UserError if the output exists, has the name of another data set, or is inside the source."""
    real_raw, real_output = resolve_path(raw), resolve_path(output)
    if real_output.exists():
        raise UserError(f"{output} exists; remove it or choose another --output")
    if real_output.name in DATASET_NAMES:
        raise UserError(
            f"{output} has the name of a data set that promote.py has a policy for; choose another --output"
        )
    if real_output.is_relative_to(real_raw):
        raise UserError(f"{output} is inside {raw}, which stays as it is; choose another --output")


def resolve_path(path: Path) -> Path:
    """Return an absolute path without links; raise UserError if there can be none."""
    try:
        resolved = Path(os.path.realpath(path))
        resolved.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return resolved
    except (OSError, ValueError) as error:  # links that lead in a circle, a name that is too long
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot use {printable(str(path)[:200])} ({reason}); choose another path") from None
    if resolved.is_symlink():
        raise UserError(f"{printable(str(path))} is a link that leads to itself; choose another path")
    return resolved


def write_output(
    output: Path, source: "FoundImages", choice: "FormChoice", *, drop_label_issues: bool
) -> dict[str, Any]:
    """Clean the images and write the data set, the report and the quarantine; return the report.

    While they are cleaned, the images lie in a file beside the output, so that they may be more than the memory holds.
    """
    from pipeline.cleaning.checks import clean_images

    with atomic_file(output) as folder, tempfile.TemporaryFile(dir=folder.parent) as scratch:
        cleaned = clean_images(
            source.images, choice.form, scratch, drop_label_issues=drop_label_issues, progress=sys.stderr.isatty()
        )
        # These bring PyTorch and matplotlib, which the worker processes of clean_images do not need.
        from pipeline.cleaning import report as cleaning_report
        from pipeline.data.prepared import choose_splits, read_prepared_splits, save_splits
        from pipeline.reports.image_plots import plot_contact_sheet

        folder.mkdir()
        dataset = cleaning_report.build_dataset(cleaned, output.name)
        save_splits(folder, dataset, choose_splits(cleaned.labels, cleaned.is_test, len(cleaned.classes)))
        splits = read_prepared_splits(str(folder))
        report = cleaning_report.build_report(cleaned, source, choice.reason, splits)
        cleaning_report.write_report(folder, report)
        cleaning_report.write_quarantine(folder, cleaned)
        classes = cleaning_report.list_class_examples(splits.train)
        sheet = plot_contact_sheet(classes, cleaning_report.list_examples(cleaned))
        sheet.savefig(folder / cleaning_report.SHEET_FILE)
    return report


def log_source(source: "FoundImages") -> None:
    """Show the classes, and how many files are not read, because of their names or because of what they are."""
    from pipeline.cleaning.source_summary import format_class_counts, format_ignored_files

    cli.log(format_class_counts(source.images))
    for remark in source.remarks:
        cli.log(remark)
    ignored_files = format_ignored_files(source.ignored_files)
    if ignored_files:
        cli.log(f"{ignored_files}; the report lists them")
    if source.refused:
        first = source.refused[0]
        cli.log(
            f"not read: {len(source.refused):,} links or special files, such as {printable(str(first.path))} "
            f"({first.reason}); the report lists them"
        )


def log_findings(findings: dict[str, Any]) -> None:
    """Show how many images have each problem, and what was done; of small classes also how small they are."""
    from pipeline.cleaning.checks import describe_small_classes

    for name, problem in findings.items():
        if problem["count"]:
            cli.log(f"{name}: {problem['count']:,} {problem['done']} ({problem['what']})")
    small = [(image["class"], image["part"]) for image in findings["small_class"]["images"]]
    if small:
        cli.log(f"small_class: {describe_small_classes(small)}")


if __name__ == "__main__":
    sys.exit(main())
