from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Pipeline, call, run_script
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

import compare
from pipeline import comparison, plots, tracking

A, B = "a" * 64, "b" * 64


def add(
    name: str, accuracy: float | None, status: str | None = "FINISHED", digest: str | None = A, **params: Any
) -> str:
    """Add a run to the store; ``status`` None leaves it running."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name("pytorch-demo")
    number = experiment.experiment_id if experiment else client.create_experiment("pytorch-demo")
    run_id: str = client.create_run(number, run_name=name).info.run_id
    known = {"dataset": "mnist", "seed": 0, **params} | ({"test_digest": digest} if digest else {})
    values = {"validation_accuracy": accuracy, "test_accuracy": accuracy, "training_seconds": 10 * (accuracy or 0)}
    metrics = [Metric(key, value, 0, 1) for key, value in values.items() if accuracy is not None and value is not None]
    if accuracy is not None:
        metrics += [Metric("validation_loss", 1 - accuracy + 0.1 / step, 0, step) for step in (1, 2, 3)]
    client.log_batch(run_id, metrics=metrics, params=[Param(key, str(value)) for key, value in known.items()])
    if status:
        client.set_terminated(run_id, status)
    return run_id


@pytest.fixture
def some(store: Path) -> Path:
    """Make a store with runs of every kind; return its directory."""
    add("slow", 0.98, lr=0.001, model="cnn")
    add("fast", 0.99, lr=0.01, model="cnn")
    add("failed", 0.999, "FAILED", lr=1, model="cnn")
    add("going", 0.9999, None, lr=0.1, model="cnn")
    add("dead", None, "KILLED", lr=0.1, model="cnn")
    add("other", 0.5, digest=B, lr=0.01, dataset="fashion-mnist")
    add("foreign", 0.7, digest=None)
    return store


def written(folder: Path, *options: object) -> pd.DataFrame:
    """Return what compare.py writes."""
    result = call(compare.main, *options, "--csv", folder / "compare.csv", folder=folder)
    assert (result.code, result.stderr) == (0, ""), result
    return pd.read_csv(folder / "compare.csv", index_col="name", keep_default_na=False, na_values=[""])


def test_runs_are_ranked_among_those_on_the_same_test_images_and_the_best_finished_one_is_marked(some: Path) -> None:
    table = written(some)
    assert list(table.index) == ["other", "fast", "slow", "dead", "going", "failed", "foreign"]
    assert list(table.index[table["best"]]) == ["other", "fast", "foreign"]
    assert dict(table["status"]) == {
        "other": "FINISHED",
        "fast": "FINISHED",
        "slow": "FINISHED",
        "dead": "KILLED",
        "going": "RUNNING",
        "failed": "FAILED",
        "foreign": "FINISHED",
    }
    assert table.loc["fast", "validation_accuracy"] == 0.99
    assert pd.isna(table.loc["dead", "validation_accuracy"]) and pd.isna(table.loc["going", "duration"])


def test_the_table_has_a_block_for_each_test_set_and_only_parameters_that_differ(some: Path) -> None:
    blocks = call(compare.main, folder=some).stdout.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        f"fashion-mnist, 1 run on the test images with SHA-256 {B[:12]}...",
        f"mnist, 5 runs on the test images with SHA-256 {A[:12]}...",
        "1 run without a record of its test images",
    ]
    header, first, second, *_ = blocks[1].splitlines()[1:]
    assert header.split()[:2] == ["name", "lr"] and "seed" not in header and "model" not in header
    assert first.split()[:4] == ["*", "fast", "0.01", "0.9900"] and second.split()[:3] == ["slow", "0.001", "0.9800"]


@pytest.mark.parametrize(
    ("options", "order"),
    [
        (("--dataset", "mnist", "--sort", "training_seconds"), ["slow", "fast", "foreign"]),
        (("--dataset", "mnist", "--sort", "validation_loss"), ["fast", "slow", "foreign"]),
        (("--last", 2), ["other", "foreign"]),
        (("--dataset", "fashion-mnist"), ["other"]),
    ],
)
def test_runs_can_be_chosen_and_sorted(options: tuple[object, ...], order: list[str], some: Path) -> None:
    table = written(some, *options)
    assert [name for name in table.index if table["status"][name] == "FINISHED"] == order


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sort nonsense", "no run has the metric 'nonsense' to sort by; there are duration, test_accuracy"),
        ("--plot compare.xyz", "'compare.xyz' does not end in .png, .svg or .pdf"),
        ("--csv /proc/x.csv", "cannot write to /proc"),
        ("--last 0", "'0' is not a whole number of at least 1"),
    ],
)
def test_bad_options_are_one_line(options: str, message: str, some: Path) -> None:
    result = call(compare.main, *options.split(), folder=some)
    assert result.code == 2
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("--experiment", "nobody's"), ("--dataset", "o'clock")])
def test_no_runs_are_no_error(options: tuple[str, ...], store: Path) -> None:
    MlflowClient().create_experiment("pytorch-demo")
    result = call(compare.main, *options, "--plot", "x.png", "--csv", "x.csv", folder=store)
    assert result.code == 0
    assert result.stdout.startswith("no runs ") and "pytorch-demo, Default" in result.stdout
    assert not list(store.glob("x.*"))


def test_the_picture_has_curves_and_the_pareto_front_of_each_group(some: Path) -> None:
    runs = tracking.runs_on("pytorch-demo", None, 20)
    groups = comparison.groups(runs, {}, "validation_accuracy")
    curves = {run.info.run_id: tracking.curves(run.info.run_id, ["validation_loss"])["validation_loss"] for run in runs}
    figure = plots.comparison(groups, curves, "validation_accuracy")
    assert len(figure.axes) == 2 * 3
    left, right = figure.axes[2:4]
    assert [line.get_label() for line in left.lines] == list(groups[1].table["name"])
    assert left.lines[0].get_ydata() == pytest.approx([0.11, 0.06, 0.01 + 0.1 / 3])
    assert np.asarray(right.lines[0].get_xdata()).tolist() == [9.8, 9.9, 9.99, 9.999]  # each dearer, each better
    assert run_script(some, "compare.py", "--plot", "new/compare.png").code == 0
    assert imread(some / "new" / "compare.png").ndim == 3


def test_stages_come_from_the_registry(pipeline: Pipeline) -> None:
    table = written(pipeline.folder)
    assert list(table["stage"]) == ["digits-classifier 1 Production"]
    assert list(table["test_accuracy"]) == [pipeline.trained.json["test_accuracy"]]
    assert table["duration"].item() > table["training_seconds"].item() > 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.booleans())
def test_the_pareto_front_is_what_no_other_point_beats(points: list[tuple[int, int]], lower: bool) -> None:
    sign = -1 if lower else 1
    front = {points[i] for i in comparison.pareto(*zip(*points, strict=True), lower=lower)}
    for cost, value in points:
        beaten = any(c <= cost and sign * v >= sign * value and (c, v) != (cost, value) for c, v in points)
        assert beaten != ((cost, value) in front)
