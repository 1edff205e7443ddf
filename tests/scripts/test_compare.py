"""compare.py on runs of every kind."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.image import imread
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

import compare
from support.lost_runs import OTHER_MACHINE, create_running_run, make_runs_read_only, minutes_ago, read_status
from support.pipelines import PipelineRun
from support.promotions import describe_dead_process
from support.scripts import call_main
from support.stores import add_experiments

DIGITS, FASHION = "a" * 64, "b" * 64  # digests of test images


def add_run(
    name: str, accuracy: float | None, status: str = "FINISHED", digest: str | None = DIGITS, **params: Any
) -> None:
    """Add a run to the current store; without an accuracy it has no metrics."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name("pytorch-demo")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("pytorch-demo")
    run_id = client.create_run(experiment_id, run_name=name).info.run_id
    params = {"dataset": "digits", "seed": 0, **params}
    if digest:
        params["test_digest"] = digest
    metrics = []
    if accuracy is not None:
        values = {"validation_accuracy": accuracy, "test_accuracy": accuracy, "training_seconds": 10 * accuracy}
        metrics += [Metric(key, value, 0, 1) for key, value in values.items()]
        metrics += [Metric("validation_loss", 1 - accuracy + 0.1 / step, 0, step) for step in (1, 2, 3)]
    client.log_batch(run_id, metrics=metrics, params=[Param(key, str(value)) for key, value in params.items()])
    if status != "RUNNING":
        client.set_terminated(run_id, status)


@pytest.fixture
def runs(store: Path) -> Path:
    """Make a store with runs of every kind; return its directory."""
    add_run("slow", 0.98, lr=0.001, model="cnn")
    add_run("fast", 0.99, lr=0.01, model="cnn")
    add_run("failed", 0.999, "FAILED", lr=1, model="cnn")
    add_run("running", 0.9999, "RUNNING", lr=0.1, model="cnn")
    add_run("killed", None, "KILLED", lr=0.1, model="cnn")
    add_run("clothes", 0.5, digest=FASHION, lr=0.01, dataset="fashion-mnist")
    add_run("unknown", 0.7, digest=None)
    return store


def write_table(folder: Path, *options: object) -> pd.DataFrame:
    """Return what compare.py writes with --csv, by name of the run."""
    result = call_main(compare.main, *options, "--csv", folder / "compare.csv", folder=folder)
    assert (result.code, result.stderr) == (0, ""), result
    return pd.read_csv(folder / "compare.csv", index_col="name", keep_default_na=False, na_values=[""])


# --- the tables -----------------------------------------------------------------------------------------------------


def test_best_run_of_each_test_set_is_marked(runs: Path) -> None:
    table = write_table(runs)
    assert list(table.index) == ["fast", "slow", "killed", "running", "failed", "clothes", "unknown"]
    assert list(table.index[table["best"]]) == ["fast", "clothes", "unknown"]


def test_unfinished_runs_are_in_the_table(runs: Path) -> None:
    table = write_table(runs)
    assert table["status"][["fast", "failed", "running", "killed"]].tolist() == [
        "FINISHED",
        "FAILED",
        "RUNNING",
        "KILLED",
    ]
    assert pd.isna(table.loc["killed", "validation_accuracy"])
    assert pd.isna(table.loc["running", "duration"])


def test_each_test_set_has_a_block(runs: Path) -> None:
    blocks = call_main(compare.main, folder=runs).stdout.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        f"digits, 5 runs on the test images with SHA-256 {DIGITS[:12]}...",
        f"fashion-mnist, 1 run on the test images with SHA-256 {FASHION[:12]}...",
        "1 run without a record of its test images",
    ]


def test_block_shows_parameters_that_differ(runs: Path) -> None:
    block = call_main(compare.main, folder=runs).stdout.split("\n\n")[0]
    _, header, first, second, *_ = block.splitlines()
    assert header.split()[:2] == ["name", "lr"]
    assert not {"seed", "model"} & set(header.split())
    assert first.split()[:4] == ["*", "fast", "0.01", "0.9900"]
    assert second.split()[:3] == ["slow", "0.001", "0.9800"]


@pytest.mark.parametrize(
    ("options", "order"),
    [
        (("--dataset", "digits", "--sort", "training_seconds"), ["slow", "fast", "unknown"]),
        (("--dataset", "digits", "--sort", "validation_loss"), ["fast", "slow", "unknown"]),
        (("--last", 2), ["clothes", "unknown"]),
        (("--dataset", "fashion-mnist/"), ["clothes"]),
    ],
)
def test_runs_are_chosen_and_sorted(options: tuple[object, ...], order: list[str], runs: Path) -> None:
    table = write_table(runs, *options)
    assert list(table.index[table["status"] == "FINISHED"]) == order


def test_stage_and_metrics_of_a_promoted_run(digits_pipeline: PipelineRun) -> None:
    (row,) = write_table(digits_pipeline.folder).to_dict("records")
    assert row["stage"] == "digits-classifier 1 Production"
    assert row["test_accuracy"] == digits_pipeline.trained.json["test_accuracy"]
    assert row["duration"] > row["training_seconds"] > 0


# --- lost runs ------------------------------------------------------------------------------------------------------


def test_lost_run_is_ended_and_named(store: Path) -> None:
    run_id = create_running_run(describe_dead_process())
    result = call_main(compare.main, "--sort", "duration", folder=store)
    assert (result.code, read_status(run_id)) == (0, "KILLED")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"run {run_id} said RUNNING")
    assert " KILLED " in result.stdout
    assert call_main(compare.main, "--sort", "duration", folder=store).stderr == ""


def test_silent_run_of_another_machine_is_marked(store: Path) -> None:
    run_id = create_running_run(OTHER_MACHINE, started=minutes_ago(90))
    result = call_main(compare.main, "--sort", "duration", folder=store)
    assert (result.code, result.stderr) == (0, "")
    assert " lost? " in result.stdout
    assert read_status(run_id) == "RUNNING"


def test_store_that_refuses_is_compared_all_the_same(store: Path) -> None:
    create_running_run(describe_dead_process())
    make_runs_read_only(store)
    result = call_main(compare.main, "--sort", "duration", folder=store)
    assert result.code == 0
    assert result.stderr.startswith("warning: run ")
    assert " lost? " in result.stdout


# --- the figure -----------------------------------------------------------------------------------------------------


def test_figure_is_written_into_a_new_directory(runs: Path) -> None:
    result = call_main(compare.main, "--plot", "new/compare.png", folder=runs)
    assert result.code == 0, result
    assert imread(runs / "new" / "compare.png").ndim == 3


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sort nonsense", "no run has the metric 'nonsense' to sort by; there are duration, test_accuracy"),
        ("--plot compare.xyz", "'compare.xyz' does not end in .png, .svg or .pdf"),
        ("--csv /proc/x.csv", "cannot write to /proc"),
        ("--last 0", "'0' is not a whole number of at least 1"),
    ],
)
def test_bad_options_are_one_line(options: str, message: str, runs: Path) -> None:
    result = call_main(compare.main, *options.split(), folder=runs)
    assert result.code == 2
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("--experiment", "nobody's"), ("--dataset", "o'clock")])
def test_no_runs_are_no_error(options: tuple[str, ...], store: Path) -> None:
    MlflowClient().create_experiment("pytorch-demo")
    result = call_main(compare.main, *options, "--plot", "x.png", "--csv", "x.csv", folder=store)
    assert result.code == 0
    assert result.stdout.startswith("no runs ")
    assert "pytorch-demo, Default" in result.stdout
    assert not list(store.glob("x.*"))


def test_line_names_the_newest_of_many_experiments(store: Path) -> None:
    add_experiments(store / "mlflow.db", 30)
    result = call_main(compare.main, "--experiment", "absent")
    assert result.code == 0
    assert "experiments Default, experiment 29, experiment 28, " in result.stdout
    assert "experiment 11 and 11 more" in result.stdout
