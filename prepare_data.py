"""Clean your own images and bring them to the form that the other scripts train on.

    python prepare_data.py photos --output dataset_cleaned             photos/<class>/*.png, or photos/train/<class>/...
    python prepare_data.py letters.npz --output dataset_cleaned        X_train, y_train, X_test, y_test; or IDX files
    python prepare_data.py photos --output dataset_cleaned --drop-label-issues

Look at dataset_cleaned/cleaning_report.md, then: python pytorch_demo.py --dataset dataset_cleaned
"""

import argparse
import hashlib
import sys
from pathlib import Path

from pipeline import UserError, cli


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("raw", type=Path, metavar="RAW", help="the images: folders by class, IDX files, .npz or .npy")
    parser.add_argument("--output", type=Path, required=True, help="the directory to make; it must not be there yet")
    parser.add_argument(
        "--drop-label-issues",
        action="store_true",
        help="set probable label errors aside from the training images (default: only list them)",
    )
    return parser.parse_args()


def main() -> int:
    """Find the images, clean them, write the data set and the report, print."""
    options = parse_options()
    raw, output = options.raw.resolve(), options.output.resolve()
    if output.exists():
        raise UserError(f"{options.output} is there already; remove it or choose another --output")
    if output.is_relative_to(raw):
        raise UserError(f"{options.output} lies in {options.raw}, which stays as it is; choose another --output")
    from pipeline import cleaning, sources

    kind, found, ignored = sources.find(raw)
    cli.log(f"{len(found):,} images in {options.raw} ({kind})")
    cleaned = cleaning.clean(found, options.drop_label_issues, progress=sys.stderr.isatty())
    report = cleaning.report(cleaned, kind, len(found), ignored)
    with cli.whole_file(output) as folder:
        folder.mkdir()
        cleaning.write(folder, cleaned, report)
    counts = {name: problem["count"] for name, problem in report["findings"].items()}
    for name, count in counts.items():
        if count:
            cli.log(f"{name}: {count:,} {report['findings'][name]['done']} ({report['findings'][name]['what']})")
    cli.log(f"look at {options.output}/cleaning_report.md; next: python pytorch_demo.py --dataset {options.output}")
    cli.print_json(
        {
            "output": str(options.output),
            "classes": len(cleaned.classes),
            "train": report["train"]["images"],
            "test": report["test"]["images"],
            "findings": counts,
            "report_sha256": hashlib.sha256((output / "cleaning_report.json").read_bytes()).hexdigest(),
        }
    )
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
