"""Runs side by side: what differs between them, what came out, which is best on the same test images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from pipeline.data.catalog import SPLITS
from pipeline.documents import parse_milliseconds
from pipeline.errors import UserError
from pipeline.text import printable
from pipeline.tracking.lost_runs import is_silent
from pipeline.tracking.runs import FINISHED, Run

METRICS = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "training_seconds")
LOWER_IS_BETTER = ("loss", "seconds", "duration")  # in the name of a metric

# Parameters that are not compared: the groups are made by the test images, and sizes follow from the data.
DATA_PARAMS = {f"{split}_{kind}" for split in SPLITS for kind in ("digest", "size")} | {"dataset"}
# Options that change no training; earlier versions logged them.
OPTION_PARAMS = {"run_name", "data_dir", "experiment", "register", "reproduce", "system_metrics", "model_name"}
# PyTorch's defaults for AdamW, which earlier versions logged; fused is how PyTorch computes, not what.
OPTIMIZER_PARAMS = {"amsgrad", "betas", "capturable", "decoupled_weight_decay", "differentiable", "eps", "foreach"}
OPTIMIZER_PARAMS |= {"fused", "maximize", "optimizer_fused"}
HIDDEN_PARAMS = DATA_PARAMS | OPTION_PARAMS | OPTIMIZER_PARAMS


@dataclass(frozen=True)
class RunGroup:
    """Runs that were tested on the same images, the best first.

    Attributes
    ----------
    dataset, test_digest : of those images; None if the runs do not record them.
    table : a row for each run, indexed by its id: ``best`` (True if no finished run is better), ``name``, the
        parameters that differ, `METRICS`, ``duration`` in seconds, ``stage``, ``status`` ("lost?" for a run that says
        RUNNING without a sign of life), ``started``.
    """

    dataset: str | None
    test_digest: str | None
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """What the runs have in common."""
        count = len(self.table)
        runs = "1 run" if count == 1 else f"{count:,} runs"
        if self.test_digest is None:
            return f"{runs} without a record of its test images"
        return f"{self.dataset}, {runs} on the test images with SHA-256 {self.test_digest[:12]}..."


def is_lower_better(metric: str) -> bool:
    """Return whether a low value of the metric is a good one."""
    return any(word in metric for word in LOWER_IS_BETTER)


def group_runs(runs: Sequence[Run], stages: Mapping[str, str], sort: str) -> list[RunGroup]:
    """Return the runs in groups of the same test images, each sorted by a metric, unfinished runs last.

    Parameters
    ----------
    runs
        In any order.
    stages
        Run id -> name, version and stage of its model in the registry.
    sort
        The metric to sort by.

    Raises
    ------
    UserError
        No run has the metric ``sort``.
    """
    metrics = {"duration"}
    for run in runs:
        metrics.update(run.data.metrics)
    if runs and sort not in metrics:
        raise UserError(f"no run has the metric {sort!r} to sort by; there are {', '.join(sorted(metrics))}")
    by_digest: dict[str | None, list[Run]] = {}
    for run in runs:
        by_digest.setdefault(run.data.params.get("test_digest"), []).append(run)
    groups = []
    for digest, members in by_digest.items():
        dataset = members[0].data.params.get("dataset") if digest else None
        groups.append(RunGroup(dataset, digest, _build_table(members, stages, sort)))
    return sorted(groups, key=_sort_key)


def _sort_key(group: RunGroup) -> tuple[bool, str]:
    """Sort groups by data set; runs without a record of their test images come last."""
    return group.test_digest is None, group.dataset or ""


def _build_table(runs: Sequence[Run], stages: Mapping[str, str], sort: str) -> pd.DataFrame:
    params = _differing_params(runs)
    metrics = _final_metrics(runs, sort)
    table = pd.concat([params, metrics], axis="columns")
    table.insert(0, "name", [run.info.run_name for run in runs])
    table["stage"] = [stages.get(run.info.run_id, "") for run in runs]
    table["status"] = ["lost?" if is_silent(run) else run.info.status for run in runs]
    table["started"] = pd.to_datetime([_read_start(run) for run in runs]).floor("s")
    table.index = pd.Index([run.info.run_id for run in runs], name="run_id")

    ascending = is_lower_better(sort)
    finished = table[sort].where(table["status"] == FINISHED)
    best = finished.min() if ascending else finished.max()
    table.insert(0, "best", finished == best)
    order = finished.sort_values(ascending=ascending, kind="stable").index  # NaN comes last
    return table.loc[order]


def _read_start(run: Run) -> datetime | None:
    """Return when the run started, in UTC; None if the store gives no such time."""
    start = parse_milliseconds(run.info.start_time)
    return start.replace(tzinfo=None) if start else None


def _differing_params(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the parameters that differ, a row for each run; "-" if a run lacks one."""
    params = pd.DataFrame([run.data.params for run in runs])
    params = params.drop(columns=list(HIDDEN_PARAMS), errors="ignore").fillna("-")
    differing = [name for name in params if params[name].nunique() > 1]
    return params[differing]


def _final_metrics(runs: Sequence[Run], sort: str) -> pd.DataFrame:
    names = list(dict.fromkeys([*METRICS, sort]))
    metrics = pd.DataFrame([run.data.metrics for run in runs], columns=names, dtype=float)
    milliseconds = [(run.info.end_time or np.nan) - run.info.start_time for run in runs]
    metrics["duration"] = np.array(milliseconds) / 1000
    return metrics


def format_group(group: RunGroup, width: int | None) -> str:
    """Return the group for people; in blocks of at most ``width`` characters if it is not None."""
    table = escape_table(group.table.reset_index(), printable)
    table["best"] = table["best"].map({True: "*", False: ""})
    for name in table.columns:
        if pd.api.types.is_float_dtype(table[name]):
            table[name] = _format_column(name, table[name])
    columns = [*table.columns[1:], "run_id"]
    table = table[columns].rename(columns={"best": ""})
    return f"{printable(group.title)}\n{table.to_string(index=False, line_width=width)}"


def escape_table(table: pd.DataFrame, escape: Callable[[str], str]) -> pd.DataFrame:
    """Return the table with its texts, and the names of its columns, as ``escape`` returns them."""
    escaped = table.rename(columns=escape)
    for position, dtype in enumerate(escaped.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_datetime64_any_dtype(dtype):
            column = escaped.iloc[:, position]
            texts = [escape(value) if isinstance(value, str) else value for value in column]
            escaped.isetitem(position, pd.Series(texts, column.index, dtype=object))
    return escaped


def _format_column(name: str, values: pd.Series) -> list[str]:
    is_time = name == "duration" or name.endswith("seconds")
    digits = 1 if is_time else 4
    return [f"{value:.{digits}f}" if np.isfinite(value) else "-" for value in values]


def pareto_front(costs: Sequence[float], values: Sequence[float], *, lower_is_better: bool) -> list[int]:
    """Return the indices of the points that no other point beats in both, in the order of their cost.

    Parameters
    ----------
    costs
        A low cost is a good one.
    values
        What the cost is paid for.
    lower_is_better
        Whether a low value is a good one.
    """
    scores = [-value if lower_is_better else value for value in values]
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -scores[index]))
    front: list[int] = []
    for index in order:
        if not front or scores[index] > scores[front[-1]]:
            front.append(index)
    return front
