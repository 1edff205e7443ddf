"""Compare runs: what differs between them, what came out, which is best.

    python compare.py                                        the last 20 runs, by validation accuracy
    python compare.py --dataset mnist --sort test_loss --last 100
    python compare.py --plot compare.png --csv compare.csv   learning curves and accuracy against seconds; the table

Runs on different test images stand in tables of their own, each with its best run marked by an asterisk. Choose by the
validation metrics: who picks the best of many runs by the test set gets a figure that is too good.
"""

import argparse
import gc
import shutil
import sys
from pathlib import Path

from pipeline import cli


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--experiment", default="pytorch-demo", help="MLflow experiment (default: pytorch-demo)")
    parser.add_argument("--dataset", type=lambda text: text.rstrip("/"), help="only runs on this data set")
    parser.add_argument(
        "--sort", default="validation_accuracy", metavar="METRIC", help="best first (default: validation_accuracy)"
    )
    parser.add_argument("--last", type=cli.number(int, 1), default=20, metavar="N", help="the newest N (default: 20)")
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw curves, and the metric against cost")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the tables, as one, in full precision")
    return parser.parse_args()


def picture(text: str) -> Path:
    """Return the path of a picture in a format that can be drawn."""
    if Path(text).suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, .svg or .pdf")
    return Path(text)


def main() -> int:
    """Find the runs, group them by test images, print, plot and write where asked."""
    options = parse_options()
    from pipeline import comparison, registry, tracking

    gc.disable()  # MLflow makes a hundred thousand objects for a thousand runs, and all of them stay
    with tracking.connected():
        runs = tracking.runs_on(options.experiment, options.dataset, options.last)
        if not runs:
            of = f" on {options.dataset}" if options.dataset else ""
            there = ", ".join(tracking.experiments())
            print(f"no runs{of} in the experiment {options.experiment!r}; this store has the experiments {there}")
            return cli.OK
        groups = comparison.groups(runs, registry.stages(), options.sort)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n\n".join(comparison.text(group, width) for group in groups))
        if options.csv:
            import pandas as pd

            tables = [group.table.assign(dataset=group.dataset, test_digest=group.test_digest) for group in groups]
            with cli.whole_file(options.csv) as file:
                pd.concat(tables).to_csv(file)
        if options.plot:
            from pipeline import plots

            losses = {run.info.run_id: tracking.curves(run.info.run_id, ["validation_loss"]) for run in runs}
            curves = {run_id: each["validation_loss"] for run_id, each in losses.items()}
            with cli.whole_file(options.plot) as file:
                plots.comparison(groups, curves, options.sort).savefig(file)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
