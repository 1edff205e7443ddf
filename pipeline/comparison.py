"""Runs side by side: what differs between them, what came out, which is best on the same test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities import Run

from pipeline import UserError

METRICS = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "training_seconds")
# Parameters that name things, or follow from others; the digest of the test images is what groups are made by.
UNTOLD = {"run_name", "data_dir", "experiment", "register", "reproduce", "system_metrics", "model_name"}
UNTOLD |= {"train_digest", "validation_digest", "test_digest", "train_size", "validation_size", "test_size", "dataset"}


@dataclass(frozen=True)
class Group:
    """Runs that were tested on the same images, the best first.

    Attributes
    ----------
    dataset, test_digest : of those images; None for runs that do not say.
    table : a row for each run, indexed by its id: ``best`` (True where no finished one is better), ``name``, the
        parameters that differ, `METRICS`, ``duration`` in seconds, ``stage``, ``status``, ``started``.
    """

    dataset: str | None
    test_digest: str | None
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """What the runs have in common."""
        runs = "1 run" if len(self.table) == 1 else f"{len(self.table):,} runs"
        if self.test_digest is None:
            return f"{runs} without a record of its test images"
        return f"{self.dataset}, {runs} on the test images with SHA-256 {self.test_digest[:12]}..."


def lower_is_better(metric: str) -> bool:
    """Return whether a low value of the metric is a good one."""
    return any(word in metric for word in ("loss", "seconds", "duration"))


def groups(runs: Sequence[Run], stages: Mapping[str, str], sort: str) -> list[Group]:
    """Return the runs by test images, each group sorted by a metric; runs still going and failed ones come last.

    ``stages`` maps run ids to what the registry says of their models.

    Raises
    ------
    UserError
        No run has the metric ``sort``.
    """
    known = sorted({name for run in runs for name in run.data.metrics} | {"duration"})
    if runs and sort not in known:
        raise UserError(f"no run has the metric {sort!r} to sort by; there are {', '.join(known)}")
    by_digest: dict[str | None, list[Run]] = {}
    for run in runs:
        by_digest.setdefault(run.data.params.get("test_digest"), []).append(run)
    found = [
        Group(same[0].data.params.get("dataset") if digest else None, digest, _table(same, stages, sort))
        for digest, same in by_digest.items()
    ]
    return sorted(found, key=lambda group: (group.test_digest is None, group.dataset or ""))


def _table(runs: Sequence[Run], stages: Mapping[str, str], sort: str) -> pd.DataFrame:
    params = pd.DataFrame([run.data.params for run in runs]).drop(columns=[*UNTOLD], errors="ignore")
    differing = [name for name in params if len(set(params[name].fillna("-"))) > 1]
    names = list(dict.fromkeys([*METRICS, sort]))
    metrics = pd.DataFrame([run.data.metrics for run in runs], columns=names, dtype=float)
    metrics["duration"] = [(run.info.end_time or np.nan) - run.info.start_time for run in runs]
    metrics["duration"] /= 1000
    table = pd.concat([params[differing].fillna("-"), metrics], axis="columns")
    table.insert(0, "name", [run.info.run_name for run in runs])
    table["stage"] = [stages.get(run.info.run_id, "") for run in runs]
    table["status"] = [run.info.status for run in runs]
    table["started"] = pd.to_datetime([run.info.start_time for run in runs], unit="ms").floor("s")
    table.index = pd.Index([run.info.run_id for run in runs], name="run_id")
    ranked = table[sort].where(table["status"] == "FINISHED")
    best = ranked.min() if lower_is_better(sort) else ranked.max()
    table.insert(0, "best", ranked == best)
    return table.loc[ranked.sort_values(ascending=lower_is_better(sort), kind="stable").index]  # NaN comes last


def text(group: Group, width: int | None) -> str:
    """Return the group for people; in blocks of at most ``width`` characters where given."""
    shown = group.table.reset_index()
    shown["best"] = shown["best"].map({True: "*", False: ""})
    for name in shown.columns:
        if pd.api.types.is_float_dtype(shown[name]):
            form = "{:.1f}" if name == "duration" or name.endswith("seconds") else "{:.4f}"
            shown[name] = [form.format(value) if np.isfinite(value) else "-" for value in shown[name]]
    shown = shown[[*shown.columns[1:], "run_id"]].rename(columns={"best": ""})
    return f"{group.title}\n{shown.to_string(index=False, line_width=width)}"


def pareto(cost: Sequence[float], value: Sequence[float], *, lower: bool) -> list[int]:
    """Return the places of the points that no other beats in both, in the order of their cost.

    ``lower`` says whether a low value is a good one; a low cost always is.
    """
    sign = -1 if lower else 1
    front: list[int] = []
    for place in sorted(range(len(cost)), key=lambda i: (cost[i], -sign * value[i])):
        if not front or sign * value[place] > sign * value[front[-1]]:
            front.append(place)
    return front
