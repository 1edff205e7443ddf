"""Compare runs: what differs between them, what came out, which is best.

    python compare.py                                        the last 20 runs, by validation accuracy
    python compare.py --dataset mnist --sort test_loss --last 100
    python compare.py --plot compare.png --csv compare.csv   learning curves and accuracy against seconds; the table

Runs on different test images are in tables of their own, each with its best run marked by an asterisk. Choose by the
validation metrics: if the best of many runs is chosen by the test set, its test metrics are too good.

A run that says RUNNING although its process on this machine is gone is ended as KILLED first. The status of a run of
another machine that has given no sign of life for an hour is shown as "lost?".
"""

import argparse
import gc
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import cli
from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.reports.comparison import RunGroup

DEFAULT_EXPERIMENT = "pytorch-demo"
MAX_NAMES = 20  # of experiments, in a line
PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--experiment", help="MLflow experiment (default: MLFLOW_EXPERIMENT_NAME, else pytorch-demo)")
    parser.add_argument("--dataset", type=strip_slash, help="only runs on this data set")
    parser.add_argument(
        "--sort", default="validation_accuracy", metavar="METRIC", help="best first (default: validation_accuracy)"
    )
    parser.add_argument(
        "--last", type=cli.bounded_number(int, 1), default=20, metavar="N", help="the newest N (default: 20)"
    )
    parser.add_argument(
        "--plot", type=parse_plot_path, metavar="FILE", help="also draw curves, and the metric against cost"
    )
    parser.add_argument("--csv", type=cli.path, metavar="FILE", help="also write the tables, as one, in full precision")
    return parser.parse_args(argv)


def strip_slash(text: str) -> str:
    """Return the name of a data set as runs record it: a directory without the slash at its end."""
    return cli.text(text).rstrip("/")


def parse_plot_path(text: str) -> Path:
    """Return the path of a figure in a format that can be drawn."""
    path = cli.path(text)
    if path.suffix not in PLOT_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, .svg or .pdf")
    return path


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """End lost runs, search the runs, group them by test images, print the tables, write and draw them if asked."""
    options = parse_options(argv)
    from pipeline.files import find_target
    from pipeline.reports.comparison import format_group, group_runs
    from pipeline.tracking.environment import find_experiment_name
    from pipeline.tracking.lost_runs import describe_lost_run, end_lost_runs
    from pipeline.tracking.registry import describe_stages
    from pipeline.tracking.runs import search_experiment_runs
    from pipeline.tracking.store import connect

    for path in (options.csv, options.plot):
        if path:
            find_target(path)  # it says now what is wrong with it
    gc.disable()  # MLflow makes a hundred thousand objects for a thousand runs, and all of them stay
    with connect():
        if options.experiment is None:
            options.experiment = find_experiment_name() or DEFAULT_EXPERIMENT
        for run_id in end_lost_runs(options.experiment):
            cli.log(describe_lost_run(run_id))
        runs = search_experiment_runs(options.experiment, options.dataset, options.last)
        if not runs:
            cli.print_text(describe_empty_result(options.experiment, options.dataset))
            return cli.OK
        stages = describe_stages([run.info.run_id for run in runs])
        groups = group_runs(runs, stages, options.sort)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        cli.print_text("\n\n".join(format_group(group, width) for group in groups))
        if options.csv:
            write_csv(options.csv, groups)
        if options.plot:
            write_plot(options.plot, groups, options.sort)
    return cli.OK


def describe_empty_result(experiment: str, dataset: str | None) -> str:
    """Return a line that says that there are no such runs, and names the experiments of the store."""
    from pipeline.tracking.runs import list_experiment_names

    selection = f" on {dataset}" if dataset else ""
    names = list_experiment_names()
    listed = ", ".join(names[:MAX_NAMES])
    if len(names) > MAX_NAMES:
        listed += f" and {len(names) - MAX_NAMES:,} more"
    return printable(f"no runs{selection} in the experiment {experiment!r}; this store has the experiments {listed}")


def write_csv(path: Path, groups: "list[RunGroup]") -> None:
    """Write the tables of all groups as one."""
    import pandas as pd

    from pipeline.files import atomic_file
    from pipeline.redact import redact
    from pipeline.reports.comparison import escape_table
    from pipeline.text import escape_formula

    tables = [group.table.assign(dataset=group.dataset, test_digest=group.test_digest) for group in groups]
    table = escape_table(pd.concat(tables), lambda text: escape_formula(printable(redact(text))))
    with atomic_file(path) as file:
        table.to_csv(file)


def write_plot(path: Path, groups: "list[RunGroup]", metric: str) -> None:
    """Draw the learning curves of all groups, and the metric against seconds of training."""
    from pipeline.files import atomic_file
    from pipeline.reports.plots import plot_comparison
    from pipeline.tracking.runs import get_metric_histories

    losses = {}
    for group in groups:
        for run_id in group.table.index:
            histories = get_metric_histories(run_id, ["validation_loss"])
            losses[run_id] = histories["validation_loss"]
    with atomic_file(path) as file:
        plot_comparison(groups, losses, metric).savefig(file)


if __name__ == "__main__":
    sys.exit(main())
