"""Measure accuracy against training time: this pipeline's training beside two public recipes.

    python benchmarks/time_to_accuracy.py                    MNIST, five seeds; the longest by far
    python benchmarks/time_to_accuracy.py --quick            fewer seeds and one epoch of PyTorch's example
    python benchmarks/time_to_accuracy.py --dataset fashion-mnist --recipes ours

The entries take turns, seed by seed, so that a change in the machine's mood meets them all. Each training has a
process of its own, so that its peak memory is its own and each pays for its own first batch. The clock runs from the
first batch to the last, data in memory, evaluation excluded (see recipes.py); the test set is scored by
`pipeline.evaluation.predict` for all, in float32.

Writes all points and the machine as JSON, and a plot, into --output-dir; prints a table. Leave the machine alone
meanwhile.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, where the pipeline lies

from pipeline import cli
from pipeline.provenance import cpu
from pytorch_demo import DEFAULTS  # by data set

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS, QUICK_SEEDS = 5, 2
EXAMPLE_SEEDS, EXAMPLE_EPOCHS = 2, 5  # PyTorch's example takes a minute an epoch and needs about 4 of its 14 to 99.0%
RECIPES = ("ours", "record", "example")
COMMON = {"batch_size": 256, "weight_decay": 0.05, "label_smoothing": 0.05}  # pytorch_demo.py's defaults everywhere

# The options of pytorch_demo.py to measure.
OURS: dict[str, list[dict[str, Any]]] = {
    "mnist": [{"epochs": 1, "augment": ["none"]}, {}, {"epochs": 10}],
    "fashion-mnist": [{}, {"epochs": 20}],
    "digits": [{}],
}

# What accuracies to time; the second is the headline's.
TARGETS = {"mnist": (0.98, 0.99, 0.994), "fashion-mnist": (0.88, 0.90, 0.925), "digits": (0.90, 0.95, 0.98)}


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes
    ----------
    recipe, settings : a function of recipes.py and its arguments.
    seeds : how many trainings it gets.
    endless : whether its schedule knows no end, so that each of its epochs is the end of a shorter training. A cycle
        of the learning rate counts only where it closes: to stop it early would be to choose on the test set.
    """

    recipe: str
    settings: dict[str, Any]
    seeds: int
    endless: bool = False


def entries(dataset: str, recipes: Sequence[str], seeds: int, quick: bool) -> list[Entry]:
    """Return what to measure, in the table's order."""
    every = [
        *(Entry("ours", {**COMMON, **DEFAULTS[dataset], **options}, seeds) for options in OURS[dataset]),
        Entry("record", {"bf16": True}, seeds),
        Entry("record", {"bf16": False}, seeds),
        Entry("example", {"epochs": 1 if quick else EXAMPLE_EPOCHS}, min(seeds, 1 if quick else EXAMPLE_SEEDS), True),
    ]
    return [entry for entry in every if entry.recipe in recipes]


@dataclass(frozen=True)
class Measured:
    """A point of a training, scored on the test set."""

    seconds: float
    epoch: float
    images: int
    accuracy: float


@dataclass(frozen=True)
class Run:
    """One training of an entry: its points, and in bytes the peak resident size of its process, whole and on import."""

    name: str
    source: str
    seed: int
    points: list[Measured]
    peak_memory: int
    import_memory: int
    threads: int
    bf16_native: bool


@dataclass(frozen=True)
class Row:
    """What the runs of one entry come to.

    Attributes
    ----------
    recipe, name, source, seeds : what was measured, and how often.
    epochs, images_per_second : of a whole training; the mean over seeds.
    training_seconds : of a whole training, the mean over seeds.
    accuracy, spread : of the test set after the last epoch: mean and standard deviation over seeds (None for one seed).
    seconds_to : for each target in percent, when a run first reaches it: the median over seeds, where a seed that
        never does counts as the latest; None where that is the median. And how many seeds do.
    mean_seconds_to : for each target, the mean seconds of the shortest training whose mean accuracy over seeds
        reaches it: of the whole one, or of its first epochs where the entry is endless. None where there is none.
    peak_memory, import_memory : bytes, the largest over seeds: at most, and after the imports.
    """

    recipe: str
    name: str
    source: str
    seeds: int
    epochs: float
    images_per_second: float
    training_seconds: float
    accuracy: float
    spread: float | None
    seconds_to: dict[str, tuple[float | None, int]]
    mean_seconds_to: dict[str, float | None]
    peak_memory: int
    import_memory: int


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--dataset", choices=TARGETS, default="mnist", help="what to train on (default: mnist)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the files lie (default: data)")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES, help="which (default: all)")
    parser.add_argument(
        "--seeds",
        type=cli.number(int, 1),
        help=f"trainings of each entry (default: {SEEDS}; PyTorch's example gets {EXAMPLE_SEEDS} at most)",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds, one epoch of PyTorch's example")
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("benchmarks/results"),
        help="where the JSON and the plot go (default: benchmarks/results)",
    )
    options = parser.parse_args()
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    return options


def main() -> int:
    """Measure in turns, summarise, write, print."""
    options = parse_options()
    listed = entries(options.dataset, options.recipes, options.seeds, options.quick)
    runs: list[list[Run]] = [[] for _ in listed]
    # This process imports nothing heavy until they are done: on Linux a child's peak memory begins at its parent's.
    for number, run in in_turns(listed, options.dataset, options.data_dir):
        runs[number].append(run)
        last = run.points[-1]
        cli.log(f"seed {run.seed}: {run.name}: {last.accuracy:.2%} in {last.seconds:.2f} s")

    targets = TARGETS[options.dataset]
    rows = [summarise(entry, group, targets) for entry, group in zip(listed, runs, strict=True)]
    cli.log("\n" + table(rows, targets) + "\n")
    name = f"time_to_accuracy_{options.dataset}" + ("_quick" if options.quick else "")  # never over the full result
    with cli.whole(options.output_dir) as folder:
        result = {
            "dataset": options.dataset,
            "quick": options.quick,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(runs[0][0]),
            "rows": [asdict(row) for row in rows],
            "entries": [asdict(entry) for entry in listed],
            "runs": [[asdict(run) for run in group] for group in runs],
        }
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        plot(rows, runs, targets).savefig(folder / f"{name}.png", dpi=150)
    cli.log(f"written: {options.output_dir / name}.json and .png")
    cli.print_json(headline(rows, targets[1]) | {"dataset": options.dataset, "machine": result["machine"]})
    return cli.OK


def in_turns(listed: list[Entry], dataset: str, data_dir: Path) -> Iterator[tuple[int, Run]]:
    """Yield each entry's number and run, seed by seed, entry by entry."""
    for seed in range(max(entry.seeds for entry in listed)):
        for number, entry in enumerate(listed):
            if seed < entry.seeds:
                yield number, alone(entry, dataset, data_dir, seed)


def alone(*arguments: Any) -> Run:
    """Call `measure` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(measure, *arguments).result()
        except BaseException:  # a benchmark that is stopped leaves nothing behind that computes
            for child in multiprocessing.active_children():
                child.kill()
            raise


def measure(entry: Entry, dataset: str, data_dir: Path, seed: int) -> Run:
    """Train once and score every point; to be called in a process of its own."""
    import recipes
    import torch

    from pipeline import data, training
    from pipeline.evaluation import predict

    imported = peak_memory()
    splits = data.load(dataset, data_dir)
    recipe: recipes.Recipe = getattr(recipes, entry.recipe)(**entry.settings)
    points = []
    for point in recipe.train(splits, seed):
        guesses = predict(point.model, splits.test.images, device=recipes.CPU).argmax(1)
        accuracy = (guesses == splits.test.labels).double().mean().item()
        points.append(Measured(point.seconds, point.epoch, point.images, accuracy))
    with training.autocast(recipes.CPU):
        native = torch.is_autocast_enabled("cpu")
    return Run(recipe.name, recipe.source, seed, points, peak_memory(), imported, torch.get_num_threads(), native)


def peak_memory() -> int:
    """Return the largest resident size that this process has had, in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def summarise(entry: Entry, runs: list[Run], targets: tuple[float, ...]) -> Row:
    """Return what the ``runs`` of ``entry`` come to."""
    together = list(zip(*(run.points for run in runs), strict=True))
    lasts = together[-1]
    ends = [points for points in together if points is lasts or (entry.endless and points[0].epoch.is_integer())]
    accuracies = [last.accuracy for last in lasts]
    seconds_to: dict[str, tuple[float | None, int]] = {}
    mean_seconds_to: dict[str, float | None] = {}
    for target in targets:
        firsts = [next((p.seconds for p in run.points if p.accuracy >= target), math.inf) for run in runs]
        median = statistics.median(firsts)
        reached = sum(math.isfinite(first) for first in firsts)
        seconds_to[percent(target)] = (median if math.isfinite(median) else None, reached)
        mean_seconds_to[percent(target)] = next(
            (
                statistics.fmean(point.seconds for point in points)
                for points in ends
                # rounded: an error in the 16th digit must not decide
                if round(statistics.fmean(point.accuracy for point in points), 9) >= target
            ),
            None,
        )
    return Row(
        recipe=entry.recipe,
        name=runs[0].name,
        source=runs[0].source,
        seeds=len(runs),
        epochs=lasts[0].epoch,
        images_per_second=statistics.fmean(last.images / last.seconds for last in lasts),
        training_seconds=statistics.fmean(last.seconds for last in lasts),
        accuracy=statistics.fmean(accuracies),
        spread=statistics.stdev(accuracies) if len(runs) > 1 else None,
        seconds_to=seconds_to,
        mean_seconds_to=mean_seconds_to,
        peak_memory=max(run.peak_memory for run in runs),
        import_memory=max(run.import_memory for run in runs),
    )


def headline(rows: list[Row], target: float) -> dict[str, Any]:
    """Return, for the fastest entry of each recipe, the seconds until its mean accuracy reaches ``target``; ratios."""
    best: dict[str, Row] = {}
    for row in rows:
        best.setdefault(row.recipe, row)
        if seconds(row, target) < seconds(best[row.recipe], target):
            best[row.recipe] = row
    result: dict[str, Any] = {"target_accuracy": target}
    for recipe, row in best.items():
        reached = row.mean_seconds_to[percent(target)]
        result[recipe] = {
            "name": row.name,
            "seconds_to_target": reached,
            "training_seconds": row.training_seconds,
            "test_accuracy": row.accuracy,
            "seeds": row.seeds,
        }
    for recipe in best.keys() - {"ours"} if "ours" in best else ():
        ratio = seconds(best[recipe], target) / seconds(best["ours"], target)
        result[f"times_faster_than_{recipe}"] = ratio if math.isfinite(ratio) and ratio else None
    return result


def seconds(row: Row, target: float) -> float:
    """Return the seconds until the mean accuracy reaches ``target``; infinite where it does not."""
    reached = row.mean_seconds_to[percent(target)]
    return math.inf if reached is None else reached


def percent(share: float) -> str:
    """Return ``share`` as the table and the JSON name it: 0.99 is "99.0"."""
    return f"{100 * share:.1f}"


def table(rows: list[Row], targets: tuple[float, ...]) -> str:
    """Return the table and what its columns mean."""
    import pandas

    target = targets[1]
    base = next((row for row in rows if row.recipe == "example"), None)
    lines = [
        {
            "recipe": row.name,
            "seeds": row.seeds,
            "epochs": f"{row.epochs:g}",
            "test accuracy": f"{row.accuracy:.2%}" + ("" if row.spread is None else f" ± {row.spread:.2%}"),
            **{f"s to {percent(each)}": crossing(row, each) for each in targets},
            f"mean {percent(target)}": finite(seconds(row, target), "{:.2f}"),
            "s in all": f"{row.training_seconds:.2f}",
            "images/s": f"{row.images_per_second:,.0f}",
            "peak MB": f"{row.peak_memory / 1e6:,.0f} (+{(row.peak_memory - row.import_memory) / 1e6:,.0f})",
            "ratio": finite(seconds(base, target) / seconds(row, target), "{:.1f}x") if base else "-",
        }
        for row in rows
    ]
    text = f"""{pandas.DataFrame(lines).to_string(index=False)}

test accuracy: after the last epoch, mean ± standard deviation over seeds
s to: seconds until a run first reaches that percentage, the median over seeds (how many reach it)
mean {percent(target)}: seconds of the shortest training, in whole epochs, whose mean accuracy over seeds reaches it
peak MB: of the process, scoring included (and how much of it came after the imports)
ratio: PyTorch's example's mean {percent(target)} to this one's"""
    if base:
        text += f"\nPyTorch's example, far slower, runs {base.epochs:g} of its 14 epochs, on {base.seeds} of the seeds"
    return text


def crossing(row: Row, target: float) -> str:
    """Return when the median run reaches ``target`` and how many do."""
    median, reached = row.seconds_to[percent(target)]
    return f"{finite(math.inf if median is None else median, '{:.2f}')} ({reached}/{row.seeds})"


def finite(value: float, form: str) -> str:
    """Return ``value`` as text, a dash for what was not reached."""
    return form.format(value) if math.isfinite(value) and value else "-"


def machine(run: Run) -> dict[str, Any]:
    """Return what the figures depend on besides this repository."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": run.threads,
        "bf16_native": run.bf16_native,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def plot(rows: list[Row], runs: list[list[Run]], targets: tuple[float, ...]) -> "Figure":
    """Return accuracy against seconds: a line for each entry's mean over seeds, dots for the seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for target in targets:
        axes.axhline(target, color="grey", linewidth=0.8, linestyle=":")
    for row, group in zip(rows, runs, strict=True):
        times, accuracies = (
            [[getattr(point, field) for point in run.points] for run in group] for field in ("seconds", "accuracy")
        )
        means = [[statistics.fmean(at) for at in zip(*values, strict=True)] for values in (times, accuracies)]
        label = f"{row.name} ({row.accuracy:.2%})"
        line = axes.plot(*means, marker="o", markersize=5, linewidth=1.8, label=label)[0]
        for x, y in zip(times, accuracies, strict=True):
            axes.plot(x, y, ".", markersize=3, alpha=0.4, color=line.get_color())
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(
        xlabel="training seconds",
        ylabel="test accuracy",
        ylim=(targets[0] - 0.03, 1),  # below it all look alike
        title="Accuracy against training time: mean over seeds, dots for each seed",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=9)
    return figure


if __name__ == "__main__":
    cli.run(main)
