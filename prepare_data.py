"""Clean your own images and write them in the form that the other scripts train on.

    python prepare_data.py photos --output dataset_cleaned             photos/<class>/*.png, or photos/train/<class>/...
    python prepare_data.py letters.npz --output dataset_cleaned        X_train, y_train, X_test, y_test; or IDX files
    python prepare_data.py photos --output dataset_cleaned --drop-label-issues

Read dataset_cleaned/cleaning_report.md, then: python pytorch_demo.py --dataset dataset_cleaned
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.data.catalog import CLEANING_REPORT_FILE, DATASET_NAMES
from pipeline.errors import UserError
from pipeline.files import atomic_file
from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.cleaning.checks import CleanedImages
    from pipeline.cleaning.raw_images import FoundImages


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "raw", type=cli.path, metavar="RAW", help="the images: folders by class, IDX files, .npz or .npy"
    )
    parser.add_argument("--output", type=cli.path, required=True, help="the directory to create; it must not exist yet")
    parser.add_argument(
        "--drop-label-issues",
        action="store_true",
        help="remove probable label errors from the training images (default: only list them)",
    )
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Find the images, clean them, write the data set and the report, print."""
    options = parse_options(argv)
    check_output(options.raw, options.output)
    from pipeline.cleaning.checks import clean_images
    from pipeline.cleaning.importers import find_images

    source = find_images(resolve_path(options.raw))
    cli.log(f"{len(source.images):,} images in {options.raw} ({source.kind})")
    log_refused_files(source)
    cleaned = clean_images(source.images, drop_label_issues=options.drop_label_issues, progress=sys.stderr.isatty())
    output = resolve_path(options.output)
    report = write_output(output, cleaned, source)
    log_findings(report["findings"])
    cli.log(f"read {options.output}/cleaning_report.md; next: python pytorch_demo.py --dataset {options.output}")
    cli.print_json(
        {
            "output": str(options.output),
            "classes": len(cleaned.classes),
            "train": report["train"]["images"],
            "test": report["test"]["images"],
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


def write_output(output: Path, cleaned: "CleanedImages", source: "FoundImages") -> dict[str, Any]:
    """Write the data set, the report (JSON, Markdown, a contact sheet) and the quarantine; return the report."""
    # These bring PyTorch and matplotlib, which the worker processes of clean_images do not need.
    from pipeline.cleaning import report as cleaning_report
    from pipeline.data.prepared import save_dataset
    from pipeline.reports.image_plots import plot_contact_sheet

    train, test = cleaning_report.build_datasets(cleaned, output.name)
    report = cleaning_report.build_report(cleaned, source, train, test)
    with atomic_file(output) as folder:
        folder.mkdir()
        save_dataset(folder, train, test)
        cleaning_report.write_report(folder, report)
        cleaning_report.write_quarantine(folder, cleaned)
        sheet = plot_contact_sheet(cleaning_report.list_examples(cleaned))
        sheet.savefig(folder / cleaning_report.SHEET_FILE)
    return report


def log_refused_files(source: "FoundImages") -> None:
    """Say in one line how many files are not read because of what they are, and name the first."""
    if source.refused:
        first = source.refused[0]
        cli.log(
            f"not read: {len(source.refused):,} links or special files, such as {printable(str(first.path))} "
            f"({first.reason}); the report lists them"
        )


def log_findings(findings: dict[str, Any]) -> None:
    """Show how many images have each problem, and what was done."""
    for name, problem in findings.items():
        if problem["count"]:
            cli.log(f"{name}: {problem['count']:,} {problem['done']} ({problem['what']})")


if __name__ == "__main__":
    sys.exit(main())
