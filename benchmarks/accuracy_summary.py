"""What the trainings of `accuracy_runs` come to: rows, a headline, a table and a plot."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accuracy_runs import Entry, ScoredPoint, TrainingRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Row:
    """What the runs of one entry come to.

    Attributes
    ----------
    recipe, name, source, seeds : what was measured, and how often.
    epochs, images_per_second : of a complete training; the mean over seeds.
    training_seconds : of a complete training, the mean over seeds.
    accuracy, spread : on the test set after the last epoch: mean and standard deviation over seeds (None for one seed).
    seconds_to : for each target in percent, when a run first reaches it, and how many seeds do. It is the median over
        seeds, in which a seed that never reaches it counts as the latest; None if that is the median.
    mean_seconds_to : for each target, the mean seconds of the shortest training whose mean accuracy over seeds
        reaches it: of the complete training, or of its first epochs if the entry is endless. None if there is none.
    peak_memory, import_memory : bytes, the largest over seeds: at the end, after the imports.
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

    def seconds_to_target(self, target: float) -> float:
        """Return the seconds until the mean accuracy reaches ``target``; infinite if it does not."""
        seconds = self.mean_seconds_to[format_percent(target)]
        return math.inf if seconds is None else seconds


def format_percent(share: float) -> str:
    """Return ``share`` as table and JSON name it: 0.99 is "99.0"."""
    return f"{100 * share:.1f}"


# --- rows -----------------------------------------------------------------------------------------------------------


def summarize_runs(entry: Entry, runs: Sequence[TrainingRun], targets: Sequence[float]) -> Row:
    """Return what the ``runs`` of ``entry``, one for each seed, come to."""
    last_points = [run.points[-1] for run in runs]
    accuracies = [point.accuracy for point in last_points]
    speeds = [point.images / point.seconds for point in last_points]
    ends = _find_ends(entry, runs)
    return Row(
        recipe=entry.recipe,
        name=runs[0].name,
        source=runs[0].source,
        seeds=len(runs),
        epochs=last_points[0].epoch,
        images_per_second=statistics.fmean(speeds),
        training_seconds=_mean_seconds(last_points),
        accuracy=statistics.fmean(accuracies),
        spread=statistics.stdev(accuracies) if len(runs) > 1 else None,
        seconds_to={format_percent(target): _median_seconds_to(runs, target) for target in targets},
        mean_seconds_to={format_percent(target): _mean_seconds_to(ends, target) for target in targets},
        peak_memory=max(run.peak_memory for run in runs),
        import_memory=max(run.import_memory for run in runs),
    )


def _find_ends(entry: Entry, runs: Sequence[TrainingRun]) -> list[Sequence[ScoredPoint]]:
    """Return the moments at which the training may end, each as the points of all seeds."""
    moments = list(zip(*(run.points for run in runs), strict=True))
    ends: list[Sequence[ScoredPoint]] = []
    if entry.endless:
        for points in moments[:-1]:
            if points[0].epoch.is_integer():
                ends.append(points)
    ends.append(moments[-1])
    return ends


def _mean_seconds(points: Sequence[ScoredPoint]) -> float:
    return statistics.fmean(point.seconds for point in points)


def _median_seconds_to(runs: Sequence[TrainingRun], target: float) -> tuple[float | None, int]:
    """Return the median over the seeds of when a run first reaches the target, and how many runs do."""
    first_seconds = []
    for run in runs:
        reached = [point.seconds for point in run.points if point.accuracy >= target]
        first_seconds.append(reached[0] if reached else math.inf)
    median = statistics.median(first_seconds)
    count = sum(math.isfinite(seconds) for seconds in first_seconds)
    return (median if math.isfinite(median) else None), count


def _mean_seconds_to(ends: Sequence[Sequence[ScoredPoint]], target: float) -> float | None:
    """Return the mean seconds of the first end whose mean accuracy reaches the target."""
    for points in ends:
        accuracy = statistics.fmean(point.accuracy for point in points)
        if round(accuracy, 9) >= target:  # an error in the 16th digit must not decide
            return _mean_seconds(points)
    return None


# --- headline -------------------------------------------------------------------------------------------------------


def summarize_recipes(rows: Sequence[Row], target: float) -> dict[str, Any]:
    """Return, for the fastest entry of each recipe, the seconds until its mean accuracy reaches ``target``; ratios."""
    best = _find_fastest_rows(rows, target)
    result: dict[str, Any] = {"target_accuracy": target}
    for recipe, row in best.items():
        result[recipe] = {
            "name": row.name,
            "seconds_to_target": row.mean_seconds_to[format_percent(target)],
            "training_seconds": row.training_seconds,
            "test_accuracy": row.accuracy,
            "seeds": row.seeds,
        }
    if "ours" not in best:
        return result
    ours = best.pop("ours")
    for recipe, row in best.items():
        ratio = row.seconds_to_target(target) / ours.seconds_to_target(target)
        is_known = math.isfinite(ratio) and ratio > 0
        result[f"times_faster_than_{recipe}"] = ratio if is_known else None
    return result


def _find_fastest_rows(rows: Sequence[Row], target: float) -> dict[str, Row]:
    best: dict[str, Row] = {}
    for row in rows:
        current = best.get(row.recipe)
        if current is None or row.seconds_to_target(target) < current.seconds_to_target(target):
            best[row.recipe] = row
    return best


# --- table ----------------------------------------------------------------------------------------------------------


def format_table(rows: Sequence[Row], targets: Sequence[float]) -> str:
    """Return the table and what its columns mean. The second target is that of the headline."""
    import pandas

    target = targets[1]
    percent = format_percent(target)
    example = next((row for row in rows if row.recipe == "example"), None)
    cells = [_format_row(row, targets, example) for row in rows]
    lines = [
        pandas.DataFrame(cells).to_string(index=False),
        "",
        "test accuracy: after the last epoch, mean ± standard deviation over seeds",
        "s to: seconds until a run first reaches that percentage, the median over seeds (how many reach it)",
        f"mean {percent}: seconds of the shortest training, in complete epochs, whose mean accuracy reaches it",
        "peak MB: of the process, with the scoring (and how much of it came after the imports)",
        f"ratio: mean {percent} of PyTorch's example, divided by this one's",
    ]
    if example:
        lines.append(
            f"PyTorch's example is far slower, so it runs {example.epochs:g} of its 14 epochs, "
            f"on {example.seeds} of the seeds"
        )
    return "\n".join(lines)


def _format_row(row: Row, targets: Sequence[float], example: Row | None) -> dict[str, Any]:
    target = targets[1]
    seconds = row.seconds_to_target(target)
    added_memory = row.peak_memory - row.import_memory
    accuracy = f"{row.accuracy:.2%}"
    if row.spread is not None:
        accuracy += f" ± {row.spread:.2%}"
    cells: dict[str, Any] = {
        "recipe": row.name,
        "seeds": row.seeds,
        "epochs": f"{row.epochs:g}",
        "test accuracy": accuracy,
    }
    for other in targets:
        cells[f"s to {format_percent(other)}"] = _format_crossing(row, other)
    cells[f"mean {format_percent(target)}"] = _format_finite(seconds, "{:.2f}")
    cells["s in all"] = f"{row.training_seconds:.2f}"
    cells["images/s"] = f"{row.images_per_second:,.0f}"
    cells["peak MB"] = f"{row.peak_memory / 1e6:,.0f} (+{added_memory / 1e6:,.0f})"
    cells["ratio"] = _format_finite(example.seconds_to_target(target) / seconds, "{:.1f}x") if example else "-"
    return cells


def _format_crossing(row: Row, target: float) -> str:
    """Return when the median run reaches ``target``, and how many runs do."""
    median, count = row.seconds_to[format_percent(target)]
    seconds = math.inf if median is None else median
    return f"{_format_finite(seconds, '{:.2f}')} ({count}/{row.seeds})"


def _format_finite(value: float, template: str) -> str:
    """Return ``value`` as text; a dash for what was not reached."""
    if math.isfinite(value) and value > 0:
        return template.format(value)
    return "-"


# --- plot -----------------------------------------------------------------------------------------------------------


def plot_accuracy(rows: Sequence[Row], runs: Sequence[Sequence[TrainingRun]], targets: Sequence[float]) -> "Figure":
    """Return accuracy against seconds: a line for each entry's mean over seeds, dots for the seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for target in targets:
        axes.axhline(target, color="grey", linewidth=0.8, linestyle=":")
    for row, row_runs in zip(rows, runs, strict=True):
        _plot_row(axes, row, row_runs)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(
        xlabel="training seconds",
        ylabel="test accuracy",
        ylim=(targets[0] - 0.03, 1),  # below it all recipes look alike
        title="Accuracy against training time: mean over seeds, dots for each seed",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=9)
    return figure


def _plot_row(axes: "Axes", row: Row, runs: Sequence[TrainingRun]) -> None:
    mean_seconds = []
    mean_accuracies = []
    for points in zip(*(run.points for run in runs), strict=True):
        mean_seconds.append(_mean_seconds(points))
        mean_accuracies.append(statistics.fmean(point.accuracy for point in points))
    label = f"{row.name} ({row.accuracy:.2%})"
    (line,) = axes.plot(mean_seconds, mean_accuracies, marker="o", markersize=5, linewidth=1.8, label=label)
    for run in runs:
        seconds = [point.seconds for point in run.points]
        accuracies = [point.accuracy for point in run.points]
        axes.plot(seconds, accuracies, ".", markersize=3, alpha=0.4, color=line.get_color())
