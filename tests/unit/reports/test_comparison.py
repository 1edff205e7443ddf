from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from mlflow.entities import Metric, Param, RunData, RunInfo

from pipeline.errors import UserError
from pipeline.reports.comparison import RunGroup, format_group, group_runs, is_lower_better, pareto_front
from pipeline.reports.plots import plot_comparison
from pipeline.tracking.runs import Run

DIGITS, FASHION = "a" * 64, "b" * 64  # digests of test images
START = 1_767_225_600_000  # milliseconds: 2026-01-01 00:00:00 UTC


def build_run(
    name: str, accuracy: float | None, status: str = "FINISHED", digest: str | None = DIGITS, **params: Any
) -> Run:
    """Return a run of 2.5 seconds; its id is its name. Without an accuracy it has no metrics."""
    params = {"dataset": "digits", "seed": 0, **params}
    if digest:
        params["test_digest"] = digest
    metrics = {}
    if accuracy is not None:
        metrics = {"validation_accuracy": accuracy, "validation_loss": 1 - accuracy, "training_seconds": 10 * accuracy}
    data = RunData(
        metrics=[Metric(key, value, START, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in params.items()],
    )
    end = START + 2500 if status != "RUNNING" else None
    info = RunInfo(
        run_id=name,
        experiment_id="1",
        user_id="me",
        status=status,
        start_time=START,
        end_time=end,
        lifecycle_stage="active",
        run_name=name,
    )
    return Run(info, data)


def group_all(*runs: Run, stages: dict[str, str] | None = None, sort: str = "validation_accuracy") -> list[RunGroup]:
    return group_runs(runs, stages or {}, sort)


def build_table(*runs: Run, sort: str = "validation_accuracy") -> pd.DataFrame:
    """Return the table of runs that are all on the same test images."""
    (group,) = group_all(*runs, sort=sort)
    return group.table


# --- groups ---------------------------------------------------------------------------------------------------------


def test_runs_are_grouped_by_test_images() -> None:
    unknown = build_run("unknown", 0.7, digest=None)
    fashion = build_run("fashion", 0.5, digest=FASHION, dataset="fashion-mnist")
    groups = group_all(unknown, fashion, build_run("first", 0.9), build_run("second", 0.8))
    assert [group.title for group in groups] == [
        "digits, 2 runs on the test images with SHA-256 aaaaaaaaaaaa...",
        "fashion-mnist, 1 run on the test images with SHA-256 bbbbbbbbbbbb...",
        "1 run without a record of its test images",
    ]


def test_best_finished_run_is_first_and_marked() -> None:
    table = build_table(
        build_run("failed", 0.999, "FAILED"),
        build_run("running", 0.9999, "RUNNING"),
        build_run("slow", 0.98),
        build_run("killed", None, "KILLED"),
        build_run("fast", 0.99),
    )
    assert list(table.index) == ["fast", "slow", "failed", "running", "killed"]
    assert list(table.index[table["best"]]) == ["fast"]


@pytest.mark.parametrize(
    ("sort", "order"), [("validation_loss", ["fast", "slow"]), ("training_seconds", ["slow", "fast"])]
)
def test_losses_and_seconds_are_sorted_upwards(sort: str, order: list[str]) -> None:
    table = build_table(build_run("slow", 0.98), build_run("fast", 0.99), sort=sort)
    assert list(table.index) == order
    assert table["best"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("validation_loss", True), ("training_seconds", True), ("duration", True), ("test_accuracy", False)],
)
def test_low_losses_and_times_are_better(metric: str, expected: bool) -> None:
    assert is_lower_better(metric) is expected


def test_unknown_metric_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match="no run has the metric 'nonsense' to sort by; there are duration, training_s"):
        group_all(build_run("fast", 0.99), sort="nonsense")


# --- the table ------------------------------------------------------------------------------------------------------


def test_only_parameters_that_differ_are_columns() -> None:
    table = build_table(build_run("first", 0.9, lr=0.1, model="cnn"), build_run("second", 0.8, lr=0.2, model="cnn"))
    assert list(table.columns[:3]) == ["best", "name", "lr"]
    assert not {"model", "seed", "dataset"} & set(table.columns)


def test_parameter_that_a_run_lacks_differs() -> None:
    table = build_table(build_run("first", 0.9, label_smoothing=0.05), build_run("second", 0.8))
    assert table["label_smoothing"].tolist() == ["0.05", "-"]


@pytest.mark.parametrize(
    "name",
    [
        "run_name",
        "data_dir",
        "experiment",
        "register",
        "reproduce",
        "system_metrics",
        "model_name",
        "train_digest",
        "validation_size",
        "foreach",
        "betas",
    ],
)
def test_parameters_that_decide_nothing_are_hidden(name: str) -> None:
    old = build_run("old", 0.9, **{name: "x"})
    other = build_run("other", 0.8, **{name: "y"})
    assert name not in build_table(old, other, build_run("new", 0.7))


def test_table_has_stage_status_and_duration() -> None:
    runs = [build_run("running", 0.9, "RUNNING"), build_run("finished", 0.8)]
    (group,) = group_all(*runs, stages={"finished": "digits-classifier 1 Production"})
    assert group.table["stage"].tolist() == ["digits-classifier 1 Production", ""]
    assert group.table["status"].tolist() == ["FINISHED", "lost?"]  # it began months ago
    assert group.table.loc["finished", "duration"] == 2.5
    assert pd.isna(group.table.loc["running", "duration"])


def test_text_has_title_header_and_rounded_metrics() -> None:
    groups = group_all(build_run("slow", 0.98, lr=0.001), build_run("fast", 0.99, lr=0.01))
    title, header, first, second = format_group(groups[0], None).splitlines()
    assert title == groups[0].title
    assert header.split()[:3] == ["name", "lr", "validation_accuracy"]
    assert first.split()[:5] == ["*", "fast", "0.01", "0.9900", "0.0100"]
    assert second.split()[:3] == ["slow", "0.001", "0.9800"]
    assert "2.5" in second.split()


def test_text_has_a_line_for_each_run() -> None:
    (group,) = group_all(build_run("a\n::error::x", 0.9, seed="1"), build_run("\x1b[2J", 0.8, seed="2\r"))
    lines = format_group(group, None).splitlines()
    assert len(lines) == 4  # with title and header
    assert not [line for line in lines if not line.isprintable()]


def test_text_fits_the_terminal() -> None:
    (group,) = group_all(build_run("slow", 0.98), build_run("fast", 0.99))
    lines = format_group(group, 80).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) > 4


# --- the Pareto front -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.booleans())
def test_pareto_front_is_what_no_point_beats(points: list[tuple[int, int]], lower_is_better: bool) -> None:
    costs, values = zip(*points, strict=True)
    front = {points[index] for index in pareto_front(costs, values, lower_is_better=lower_is_better)}
    sign = -1 if lower_is_better else 1
    for cost, value in points:
        rivals = [(c, v) for c, v in points if c <= cost and sign * v >= sign * value]
        is_beaten = set(rivals) != {(cost, value)}
        assert is_beaten != ((cost, value) in front)


# --- the figure -----------------------------------------------------------------------------------------------------


def test_figure_has_two_plots_for_each_group() -> None:
    groups = group_all(build_run("fast", 0.99), build_run("fashion", 0.5, digest=FASHION, dataset="fashion-mnist"))
    losses = {"fast": [0.3, 0.1], "fashion": [0.9]}
    figure = plot_comparison(groups, losses, "validation_accuracy")
    assert len(figure.axes) == 4
    assert [axes.get_title() for axes in figure.axes[::2]] == [group.title for group in groups]


def test_figure_shows_losses_and_pareto_front() -> None:
    groups = group_all(build_run("slow", 0.99), build_run("fast", 0.9), build_run("dominated", 0.95))
    groups[0].table.loc["dominated", "training_seconds"] = 20
    losses = {"slow": [0.4, 0.2], "fast": [0.5, 0.3], "dominated": [0.6]}
    left, right = plot_comparison(groups, losses, "validation_accuracy").axes
    assert [line.get_label() for line in left.lines] == ["slow", "dominated", "fast"]
    assert np.asarray(left.lines[0].get_ydata()).tolist() == [0.4, 0.2]
    front = right.lines[0]
    assert np.asarray(front.get_xdata()).tolist() == [9.0, 9.9]
    assert np.asarray(front.get_ydata()).tolist() == [0.9, 0.99]


def test_run_has_the_same_colour_in_both_plots() -> None:
    groups = group_all(build_run("slow", 0.99), build_run("no metrics", None), build_run("fast", 0.9))
    losses: dict[str, list[float]] = {"slow": [0.4], "no metrics": [], "fast": [0.5]}
    left, right = plot_comparison(groups, losses, "validation_accuracy").axes
    curves = {line.get_label(): to_hex(line.get_color()) for line in left.lines}
    points = [to_hex(line.get_color()) for line in right.lines[1:]]
    assert points == [curves["slow"], curves["fast"]]
