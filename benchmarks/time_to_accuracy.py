"""Measure accuracy against training time: this pipeline's training and two public recipes.

    python benchmarks/time_to_accuracy.py                    MNIST, five seeds; the longest by far
    python benchmarks/time_to_accuracy.py --quick            fewer seeds and one epoch of PyTorch's example
    python benchmarks/time_to_accuracy.py --dataset fashion-mnist --recipes ours

The entries alternate, seed by seed, so that a slow minute of the machine affects them all. Each training has a process
of its own, so its peak memory is its own, and each pays for its own first batch. The clock runs from the first batch
to the last, with the data in memory, without evaluation (see recipes.py). The test set is scored by
`pipeline.evaluation.inference.compute_logits` for all, in float32.

The script writes all points and the machine as JSON, and a plot, into --output-dir; it prints a table. Do not use the
machine meanwhile.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, for the pipeline

from accuracy_runs import Entry, TrainingRun, run_alternately
from accuracy_summary import Row, format_table, plot_accuracy, summarize_recipes, summarize_runs
from pipeline import cli
from pipeline.files import atomic_directory
from pipeline.training.config import build_config

SEEDS = 5
QUICK_SEEDS = 2
EXAMPLE_SEEDS = 2
EXAMPLE_EPOCHS = 5  # PyTorch's example needs a minute for an epoch, and about 4 of its 14 epochs to 99.0%
RECIPES = ("ours", "record", "example")

# The options of pytorch_demo.py to measure; all others have their defaults.
PIPELINE_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "mnist": [{"epochs": 1, "augment": ["none"]}, {}, {"epochs": 10}],
    "fashion-mnist": [{}, {"epochs": 20}],
    "digits": [{}],
}

# The accuracies to time; the second is that of the headline.
TARGETS = {"mnist": (0.98, 0.99, 0.994), "fashion-mnist": (0.88, 0.90, 0.925), "digits": (0.90, 0.95, 0.98)}


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--dataset", choices=TARGETS, default="mnist", help="what to train on (default: mnist)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="directory of the files (default: data)")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES, help="which (default: all)")
    parser.add_argument(
        "--seeds",
        type=cli.bounded_number(int, 1),
        help=f"trainings of each entry (default: {SEEDS}; PyTorch's example gets {EXAMPLE_SEEDS} at most)",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds, one epoch of PyTorch's example")
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("benchmarks/results"),
        help="directory for the JSON and the plot (default: benchmarks/results)",
    )
    options = parser.parse_args(argv)
    if options.seeds is None:
        options.seeds = QUICK_SEEDS if options.quick else SEEDS
    return options


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Measure alternately, summarize, write, print."""
    options = parse_options(argv)
    entries = list_entries(options.dataset, options.recipes, options.seeds, quick=options.quick)
    runs: list[list[TrainingRun]] = [[] for _ in entries]
    # Nothing heavy is imported here before they are done: on Linux a child's peak memory begins at its parent's.
    for index, run in run_alternately(entries, options.dataset, options.data_dir):
        runs[index].append(run)
        last = run.points[-1]
        cli.log(f"seed {run.seed}: {run.name}: {last.accuracy:.2%} in {last.seconds:.2f} s")

    targets = TARGETS[options.dataset]
    rows = [summarize_runs(entry, entry_runs, targets) for entry, entry_runs in zip(entries, runs, strict=True)]
    for line in ("", *format_table(rows, targets).splitlines(), ""):
        cli.log(line)
    machine = describe_machine(runs[0][0])
    name = f"time_to_accuracy_{options.dataset}"
    if options.quick:
        name += "_quick"  # it must not replace the full result
    content = {
        "dataset": options.dataset,
        "quick": options.quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "rows": [asdict(row) for row in rows],
        "entries": [asdict(entry) for entry in entries],
        "runs": [[asdict(run) for run in entry_runs] for entry_runs in runs],
    }
    write_results(options.output_dir, name, content, rows, runs, targets)
    cli.log(f"written: {options.output_dir / name}.json and .png")
    headline = summarize_recipes(rows, targets[1])
    cli.print_json(headline | {"dataset": options.dataset, "machine": machine})
    return cli.OK


def list_entries(dataset: str, recipes: Sequence[str], seeds: int, *, quick: bool) -> list[Entry]:
    """Return what to measure, in the order of the table."""
    entries = [Entry("ours", list_settings(dataset, options), seeds) for options in PIPELINE_OPTIONS[dataset]]
    entries.append(Entry("record", {"bf16": True}, seeds))
    entries.append(Entry("record", {"bf16": False}, seeds))
    example_epochs = 1 if quick else EXAMPLE_EPOCHS
    example_seeds = min(seeds, 1 if quick else EXAMPLE_SEEDS)
    entries.append(Entry("example", {"epochs": example_epochs}, example_seeds, endless=True))
    return [entry for entry in entries if entry.recipe in recipes]


def list_settings(dataset: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of pytorch_demo.py with these options, without the seed."""
    config = build_config(dataset, 1, "cpu", options)  # the number of images does not matter: the epochs are set
    settings = asdict(config)
    del settings["seed"]
    return settings


def describe_machine(run: TrainingRun) -> dict[str, Any]:
    """Return what the figures depend on besides this repository."""
    from pipeline.provenance.record import cpu_name  # heavy

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": run.threads,
        "bf16_native": run.bf16_native,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def write_results(
    directory: Path,
    name: str,
    content: dict[str, Any],
    rows: Sequence[Row],
    runs: Sequence[Sequence[TrainingRun]],
    targets: Sequence[float],
) -> None:
    """Write ``<name>.json`` and ``<name>.png`` into ``directory``."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with atomic_directory(directory) as folder:
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        plot_accuracy(rows, runs, targets).savefig(folder / f"{name}.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
