"""The scripts as a user runs them: in a process of their own, on real digits and a real store."""

import hashlib
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from conftest import ROOT, Pipeline, Result, free_port, git, run_script, served
from mlflow import MlflowClient
from sklearn.metrics import accuracy_score, f1_score, log_loss

from pipeline import provenance


def client(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def artifacts(folder: Path, run_id: str, path: str | None = None) -> set[str]:
    return {Path(item.path).name for item in client(folder).list_artifacts(run_id, path)}


def statuses(folder: Path) -> list[str]:
    store = client(folder)
    return [run.info.status for e in store.search_experiments() for run in store.search_runs([e.experiment_id])]


# --- the pipeline, once, on digits ------------------------------------------------------------------------------


def test_training_prints_one_line_of_json_with_what_it_made(pipeline: Pipeline) -> None:
    assert pipeline.trained.code == 0
    result = pipeline.trained.json
    assert list(result) == [
        "run_id",
        "model_name",
        "model_version",
        "model_uri",
        "dataset",
        "test_accuracy",
        "test_loss",
        "training_seconds",
        "tracking_uri",
    ]
    assert (result["model_name"], result["model_version"]) == ("digits-classifier", 1)
    assert result["test_accuracy"] > 0.95


def test_training_logs_parameters_metrics_per_epoch_and_final_metrics(pipeline: Pipeline) -> None:
    run = client(pipeline.folder).get_run(pipeline.run_id)
    assert run.info.status == "FINISHED"
    params = run.data.params
    expected = {"dataset": "digits", "model": "cnn", "batch_size": "256", "lr": "0.01", "weight_decay": "0.05"}
    expected |= {"seed": "0", "optimizer": "AdamW", "betas": "(0.9, 0.999)", "test_size": "360", "train_size": "1257"}
    assert expected.items() <= params.items()
    assert len(params["test_digest"]) == 64
    assert int(params["model_parameters"]) > 1000
    for metric in (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "images_per_second",
    ):
        history = client(pipeline.folder).get_metric_history(pipeline.run_id, metric)
        assert [point.step for point in history] == list(range(1, int(params["epochs"]) + 1)), metric
    final = {"test_loss", "test_accuracy", "test_precision", "test_recall", "test_f1", "training_seconds"}
    assert final <= set(run.data.metrics)
    assert run.data.metrics["test_accuracy"] == pipeline.trained.json["test_accuracy"]


def test_training_logs_reports_and_inputs(pipeline: Pipeline) -> None:
    assert artifacts(pipeline.folder, pipeline.run_id) >= {
        "confusion_matrix.png",
        "classification_report.txt",
        "classification_report.json",
        "training_curves.png",
        "model_summary.txt",
    }
    inputs = client(pipeline.folder).get_run(pipeline.run_id).inputs
    assert inputs is not None
    contexts = {entry.tags[0].value: entry.dataset.name for entry in inputs.dataset_inputs}
    assert contexts == {"training": "digits-training", "testing": "digits-testing"}


def test_stderr_has_plain_lines_where_it_is_no_terminal(pipeline: Pipeline) -> None:
    lines = pipeline.trained.stderr.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert epochs[0].startswith("epoch 1: loss ")
    assert "\r" not in pipeline.trained.stderr and "Warning" not in pipeline.trained.stderr
    assert len(lines) == len(epochs) + 2, pipeline.trained.stderr  # the run's id before, what is next after


def test_evaluation_agrees_with_training(pipeline: Pipeline) -> None:
    trained, evaluated = pipeline.trained.json, pipeline.evaluated.json
    assert list(evaluated) == [
        "run_id",
        "model_uri",
        "dataset",
        "samples",
        "test_accuracy",
        "test_loss",
        "test_f1",
        "images_per_second",
        "checklist",
        "output_dir",
    ]
    assert (evaluated["samples"], evaluated["test_accuracy"]) == (360, trained["test_accuracy"])
    assert evaluated["test_loss"] == pytest.approx(trained["test_loss"], rel=1e-3)


def test_every_figure_of_the_evaluation_follows_from_the_predictions(pipeline: Pipeline) -> None:
    folder = pipeline.folder / pipeline.evaluated.json["output_dir"]
    table = pd.read_csv(folder / "predictions.csv")
    record = json.loads((folder / "evaluation.json").read_text())
    probabilities = table.iloc[:, 3:].to_numpy()
    assert list(table.columns) == ["index", "label", "prediction", *map(str, range(10))]
    assert (probabilities.argmax(1) == table.prediction).all()
    assert record["samples"] == len(table) == 360
    assert record["accuracy"] == accuracy_score(table.label, table.prediction)
    assert record["macro"]["f1"] == pytest.approx(f1_score(table.label, table.prediction, average="macro"))
    assert record["loss"] == pytest.approx(log_loss(table.label, probabilities / probabilities.sum(1, keepdims=True)))
    interval = record["accuracy_interval"]
    assert interval["low"] < record["accuracy"] <= interval["high"]
    assert set(record["classes"]) == set(map(str, range(10)))
    assert record["images_per_second"] > 0


def test_evaluation_goes_back_into_the_run_where_asked(pipeline: Pipeline) -> None:
    files = {
        "classification_report.json",
        "confusion_matrix.png",
        "misclassified_examples.png",
        "predictions.csv",
        "evaluation.json",
        "checklist.md",
        "checklist.json",
        "confusions.png",
        "reliability.png",
    }
    assert artifacts(pipeline.folder, pipeline.run_id, "evaluation") == files
    assert {path.name for path in (pipeline.folder / pipeline.evaluated.json["output_dir"]).iterdir()} == files
    metrics = client(pipeline.folder).get_run(pipeline.run_id).data.metrics
    assert metrics["evaluation_accuracy"] == pipeline.evaluated.json["test_accuracy"]
    assert client(pipeline.folder).get_run(pipeline.run_id).info.status == "FINISHED"


def test_evaluation_changes_nothing_in_the_store_where_not_asked(pipeline: Pipeline, tmp_path: Path) -> None:
    def content() -> list[tuple[str, bytes]]:
        files = [pipeline.folder / "mlflow.db", *(pipeline.folder / "mlruns").rglob("*")]
        return sorted((str(path), path.read_bytes()) for path in files if path.is_file())

    before = content()
    uri = "models:/digits-classifier@champion"
    result = run_script(pipeline.folder, "evaluate.py", "--model-uri", uri, "--output-dir", tmp_path / "out")
    assert result.json["run_id"] == pipeline.run_id
    assert content() == before
    assert (tmp_path / "out" / "evaluation.json").exists()


def test_evaluation_imports_nothing_that_trains(pipeline: Pipeline, tmp_path: Path) -> None:
    """With the rooms that train taken away, evaluate.py still works: the model comes from MLflow as a graph."""
    shutil.copy(ROOT / "evaluate.py", tmp_path)
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("model.py", "training.py"))
    out = tmp_path / "out"
    result = run_script(pipeline.folder, "evaluate.py", "--run-id", pipeline.run_id, "--output-dir", out, root=tmp_path)
    assert result.json["test_accuracy"] == pipeline.trained.json["test_accuracy"]


def test_promotion_moves_the_version_to_production(pipeline: Pipeline) -> None:
    assert pipeline.promoted.code == 0
    accuracy = pipeline.evaluated.json["test_accuracy"]
    checks = pipeline.promoted.json["checks"]
    assert list(pipeline.promoted.json) == [
        "model_name",
        "version",
        "decision",
        "checks",
        "previous_version",
        "comparison",
        "candidate",
        "champion",
        "reason",
        "decision_run_id",
    ]
    assert [pipeline.promoted.json[key] for key in ("version", "decision", "champion")] == [1, "promoted", None]
    assert (checks[0]["value"], checks[0]["threshold"], checks[0]["passed"]) == (accuracy, 0.95, True)
    names = ["min_accuracy", "min_accuracy_lower_end", "min_class_recall", "max_loss", "max_generalisation_gap"]
    assert [check["name"] for check in checks] == names
    version = client(pipeline.folder).get_model_version("digits-classifier", "1")
    assert (version.current_stage, version.aliases) == ("Production", ["champion"])
    assert version.tags["gate.decision"] == "promoted"
    assert f"{accuracy:.4f}" in version.tags["gate.checks"]
    assert version.tags["gate.time"].startswith("20")
    assert pipeline.promoted.json["decision_run_id"] in str(version.description)


def registry_of(folder: Path) -> list[dict[str, object]]:
    return [dict(version) for version in client(folder).search_model_versions()]


def test_promoting_again_changes_nothing(pipeline: Pipeline) -> None:
    before = registry_of(pipeline.folder)
    again = run_script(pipeline.folder, "promote.py", "--model-name", "digits-classifier", "--version", 1)
    assert (again.code, again.json["decision"]) == (0, "unchanged")
    assert registry_of(pipeline.folder) == before


def test_a_stricter_gate_refuses_says_why_and_moves_nothing(pipeline: Pipeline) -> None:
    before = registry_of(pipeline.folder)
    refused = run_script(pipeline.folder, "promote.py", "--run-id", pipeline.run_id, "--min-accuracy", "0.9999")
    assert (refused.code, refused.json["decision"]) == (1, "refused")
    assert "is below 0.9999" in refused.stderr
    assert registry_of(pipeline.folder) == before


# --- one more store, changed by the tests below, in their order of cost ---------------------------------------------


@dataclass(frozen=True)
class Weak:
    """A store with a weak model, recorded, and what promote.py said before it was."""

    folder: Path
    run_id: str
    unrecorded: Result


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Weak:
    folder = tmp_path_factory.mktemp("weak")
    options = ("--dataset", "digits", "--epochs", 1, "--limit", 200)
    run_id = run_script(folder, "pytorch_demo.py", *options).json["run_id"]
    unrecorded = run_script(folder, "promote.py", "--run-id", run_id)
    assert run_script(folder, "evaluate.py", "--run-id", run_id, "--log-mlflow").code == 0
    return Weak(folder, run_id, unrecorded)


def test_promotion_without_a_recorded_evaluation_names_the_command_to_run(weak: Weak) -> None:
    assert f"run: python evaluate.py --run-id {weak.run_id} --log-mlflow" in weak.unrecorded.error


def test_a_weak_model_is_refused_with_reasons_as_tags_and_stays_in_staging(weak: Weak) -> None:
    dry = run_script(weak.folder, "promote.py", "--run-id", weak.run_id, "--dry-run")
    assert (dry.code, dry.json["decision"]) == (1, "refused")
    assert client(weak.folder).get_model_version("digits-classifier", "1").tags == {}
    assert client(weak.folder).get_experiment_by_name("digits-classifier-promotions") is None
    assert run_script(weak.folder, "promote.py", "--run-id", weak.run_id).code == 1
    version = client(weak.folder).get_model_version("digits-classifier", "1")
    assert (version.current_stage, version.aliases) == ("Staging", ["challenger"])
    assert version.tags["gate.decision"] == "refused"
    assert "is below 0.95" in version.tags["gate.checks"]


def test_a_malformed_or_missing_policy_is_named_with_its_line(weak: Weak, tmp_path: Path) -> None:
    shutil.copy(ROOT / "promote.py", tmp_path)
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    for policy, message in ((None, "gates.toml (No such file"), ("[digits]\nmin_accuracy = 95\n", "line 2: min_acc")):
        if policy:
            (tmp_path / "gates.toml").write_text(policy)
        assert message in run_script(weak.folder, "promote.py", "--run-id", weak.run_id, root=tmp_path).error


def test_a_replaced_model_file_is_refused(weak: Weak) -> None:
    (file,) = (weak.folder / "mlruns").rglob("model.pt2")
    before = file.read_bytes()
    file.write_bytes(before + b"\0")
    error = run_script(weak.folder, "promote.py", "--run-id", weak.run_id, "--min-accuracy", 0).error
    file.write_bytes(before)
    assert "belongs to another model" in error


# --- how a training ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_leaves_its_run_killed(tmp_path: Path, number: signal.Signals, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "pytorch_demo.py"), "--dataset", "digits", "--epochs", "100000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    while not process.stderr.readline().startswith("epoch 2"):
        assert process.poll() is None
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (128 + number, "")
    assert stderr.splitlines()[-1] == "stopped"
    assert statuses(tmp_path) == ["KILLED"]


def test_a_diverging_training_leaves_its_run_failed(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    result = run_script(tmp_path, "pytorch_demo.py", "--dataset", "digits", "--model", "mlp", "--lr", "1e30")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("error: training diverged")
    assert statuses(tmp_path) == ["FAILED"]
    assert not client(tmp_path).search_model_versions()


def test_a_terminal_gets_a_progress_bar_per_epoch(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    command = [sys.executable, str(ROOT / "pytorch_demo.py"), "--dataset", "digits", "--epochs", "2", "--no-register"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # Linux: the other end was closed
            break
    stdout, _ = process.communicate(timeout=60)
    result = json.loads(stdout)
    assert process.returncode == 0
    assert (result["model_name"], result["model_version"]) == (None, None)
    assert not client(tmp_path).search_registered_models()
    text = shown.decode()
    assert "epoch 2/2: 100%" in text
    assert "loss 0." in text and "accuracy 0." in text


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pytorch_demo.py --dataset cifar", "'cifar' is none of mnist, fashion-mnist, digits, nor a directory"),
        ("pytorch_demo.py --batch-size 0", "'0' is not a whole number of at least 1"),
        ("pytorch_demo.py --epochs 0", "'0' is not a whole number of at least 1"),
        ("pytorch_demo.py --lr nan", "'nan' is not a number above 0"),
        ("pytorch_demo.py --lr 0", "'0' is not a number above 0"),
        ("pytorch_demo.py --epoch 3", "unrecognized arguments: --epoch"),
        ("pytorch_demo.py --reproduce x --seed 1", "--seed does not go with --reproduce"),
        ("pytorch_demo.py --reproduce x", "there is no run 'x'"),
        ("pytorch_demo.py --dataset digits --model-name a/b", "cannot name a registered model"),
        ("pytorch_demo.py --dataset mnist --data-dir nowhere", "could not be downloaded"),
        ("evaluate.py", "one of the arguments --run-id --model-uri is required"),
        ("promote.py --version 3", "--version needs --model-name"),
        ("promote.py --run-id x --min-accuracy 98", "'98' is not a number of at least 0 and at most 1"),
        ("promote.py --model-name nobody --version 3", "no version 3 of a model 'nobody'"),
        ("promote.py", "one of the arguments --run-id --version --history --rollback is required"),
        ("promote.py --rollback", "--rollback needs --reason"),
        ("promote.py --rollback --reason x", "this store has none: train one first"),
        ("promote.py --history --at yesterday", "'yesterday' is not a time such as"),
        ("promote.py --history --model-name nobody", "no registered model 'nobody'"),
        ("promote.py --history --dry-run", "--dry-run does not go with"),
        ("promote.py --run-id x --to 3", "--to does not go with"),
        ("evaluate.py --run-id ../../etc/passwd", "there is no run '../../etc/passwd'"),
        ("evaluate.py --model-uri models:/nobody@champion", "cannot get models:/nobody@champion"),
    ],
)
def test_bad_input_is_one_line_and_code_2_and_leaves_nothing(
    command: str, message: str, tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    # a proxy that is not there: no network, on any machine
    offline = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    assert message in run_script(tmp_path, *command.split(), env=offline).error
    assert statuses(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


def test_an_output_directory_that_cannot_be_written_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    error = run_script(pipeline.folder, "evaluate.py", "--run-id", pipeline.run_id, "--output-dir", out).error
    assert f"cannot write to {out}" in error


@pytest.mark.parametrize(
    "script", ["pytorch_demo.py --dataset digits", "evaluate.py --run-id x", "promote.py --run-id x"]
)
def test_a_tracking_server_that_is_not_there_is_named_without_its_password(script: str, tmp_path: Path) -> None:
    port = free_port()
    uri = f"http://me:secret@127.0.0.1:{port}"
    start = time.monotonic()
    error = run_script(tmp_path, *script.split(), env={"MLFLOW_TRACKING_URI": uri}).error
    assert time.monotonic() - start < 15 + 30  # 15 seconds after the imports, which a busy machine makes slow
    assert f"nothing answers at http://127.0.0.1:{port}" in error
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []


# --- against a server and on the full data -------------------------------------------------------------------------


def test_the_pipeline_works_against_a_server_over_http(tmp_path: Path, empty_store: Path) -> None:
    server_dir, work = tmp_path / "server", tmp_path / "work"
    server_dir.mkdir()
    work.mkdir()
    shutil.copy(empty_store, server_dir / "mlflow.db")
    with served(server_dir) as uri:
        store = {"MLFLOW_TRACKING_URI": uri}
        trained = run_script(work, "pytorch_demo.py", "--dataset", "digits", env=store)
        run_id = trained.json["run_id"]
        evaluated = run_script(work, "evaluate.py", "--run-id", run_id, "--log-mlflow", env=store)
        promoted = run_script(work, "promote.py", "--run-id", run_id, env=store)
        assert trained.json["tracking_uri"] == store["MLFLOW_TRACKING_URI"]
        assert evaluated.json["test_accuracy"] == trained.json["test_accuracy"]
        assert promoted.json["decision"] == "promoted"
        assert [path.name for path in work.iterdir()] == ["evaluation"]  # all else is on the server


def test_fashion_mnist_reaches_production(real_data: Path, tmp_path: Path) -> None:
    data = ("--data-dir", real_data)
    options = (
        "--dataset fashion-mnist --model cnn --lr 0.01 --augment flip --epochs 6"  # the residual net takes minutes
    )
    trained = run_script(tmp_path, "pytorch_demo.py", *options.split(), *data)
    run_id = trained.json["run_id"]
    evaluated = run_script(tmp_path, "evaluate.py", "--run-id", run_id, "--batch-size", 64, "--log-mlflow", *data)
    promoted = run_script(tmp_path, "promote.py", "--run-id", run_id)
    assert evaluated.json["samples"] == 10_000
    assert evaluated.json["test_accuracy"] == trained.json["test_accuracy"] >= 0.90
    assert (promoted.json["decision"], promoted.json["model_name"]) == ("promoted", "fashion-mnist-classifier")


def test_two_processes_with_the_same_seed_train_the_same_weights(pipeline: Pipeline, tmp_path: Path) -> None:
    again = run_script(tmp_path, "pytorch_demo.py", "--dataset", "digits")
    weights = []
    for folder, result in ((pipeline.folder, pipeline.trained), (tmp_path, again)):
        (file,) = (folder / "mlruns").rglob("model.pt2")
        weights.append({k: v for k, v in mlflow.pytorch.load_model(str(file.parent.parent)).state_dict().items()})
        assert result.code == 0
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


# --- the same model again -------------------------------------------------------------------------------------------


def test_training_records_where_it_comes_from(pipeline: Pipeline) -> None:
    tags = client(pipeline.folder).get_run(pipeline.run_id).data.tags
    assert tags["invocation.command"] == "pytorch_demo.py --dataset digits --run-name 'lr 0.01'"
    assert {"code.commit", "environment.cpu", "environment.threads", "environment.packages_sha256"} <= tags.keys()
    assert artifacts(pipeline.folder, pipeline.run_id, "provenance") - {"source.patch"} == {"packages.txt"}
    (file,) = (pipeline.folder / "mlruns").rglob("model.pt2")
    assert tags["result.model_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    state = mlflow.pytorch.load_model(str(file.parent.parent)).state_dict()
    assert tags["result.weights_sha256"] == provenance.weights_sha256(state)


def test_system_metrics_are_logged_where_asked_for(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    fast = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1", "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1"}
    options = ("--dataset", "digits", "--epochs", 40, "--no-register", "--system-metrics")
    result = run_script(tmp_path, "pytorch_demo.py", *options, env=fast)
    metrics = client(tmp_path).get_run(result.json["run_id"]).data.metrics
    assert any(name.startswith("system/cpu") for name in metrics), result.stderr


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_a_training_can_be_reproduced_bit_for_bit(
    dataset: str, network: str, pipeline: Pipeline, request: pytest.FixtureRequest
) -> None:
    run_id, where = pipeline.run_id, tuple[object, ...]()
    if dataset == "mnist":
        where = ("--data-dir", request.getfixturevalue("real_data"))
    if (dataset, network) != ("digits", "cnn"):
        options = f"--dataset {dataset} --model {network} --epochs 1 --limit 4000 --seed 5 --lr 0.002".split()
        run_id = run_script(pipeline.folder, "pytorch_demo.py", *options, *where).json["run_id"]
    versions = len(client(pipeline.folder).search_model_versions())
    again = run_script(pipeline.folder, "pytorch_demo.py", "--reproduce", run_id, *where)
    assert (again.code, again.json["identical"], again.json["reproduces"]) == (0, True, run_id), again.stderr
    assert "identical" in again.stderr.splitlines() and "warning" not in again.stderr
    found = client(pipeline.folder).get_run(again.json["run_id"])
    assert found.data.tags["reproduces"] == run_id
    assert len(client(pipeline.folder).search_model_versions()) == versions


def change(folder: Path, table: str, key: str, value: str) -> None:
    """Change what a store says of its runs, which MLflow itself does not allow."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute(f"UPDATE {table} SET value = ? WHERE key = ?", (value, key))
    database.close()


def test_a_training_that_comes_out_differently_says_how_and_what_differs(pipeline: Pipeline) -> None:
    change(pipeline.folder, "params", "seed", "1")
    change(pipeline.folder, "tags", "code.commit", "c0ffee")
    change(pipeline.folder, "tags", "environment.threads", "64")
    again = run_script(pipeline.folder, "pytorch_demo.py", "--reproduce", pipeline.run_id)
    assert (again.code, again.json["identical"]) == (1, False)
    assert f"warning: this is not the code of run {pipeline.run_id}: commit c0ffee" in again.stderr
    assert again.json["largest_difference"] > 0 and again.json["weight"]
    assert "test_loss" in again.json["metrics"] and "training_seconds" not in again.json["metrics"]
    assert again.json["circumstances"]["environment.threads"] == ["64", "1"]
    assert again.json["circumstances"]["code.commit"][0] == "c0ffee"


def test_a_training_is_not_reproduced_on_other_data_or_from_half_a_record(pipeline: Pipeline) -> None:
    call = ("pytorch_demo.py", "--reproduce", pipeline.run_id)
    change(pipeline.folder, "params", "train_digest", "f00d")
    assert "the data are not those of run" in run_script(pipeline.folder, *call).error
    with sqlite3.connect(pipeline.folder / "mlflow.db") as database:
        database.execute("DELETE FROM params WHERE key = 'lr'")
    database.close()
    assert "does not say its lr" in run_script(pipeline.folder, *call).error


# --- run from Git -----------------------------------------------------------------------------------------------------


def test_the_patch_of_a_dirty_training_gives_back_the_code_that_ran(checkout: Path, tmp_path: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "pytorch_demo.py").write_text((checkout / "pytorch_demo.py").read_text() + "# changed\r\n")
    (checkout / "new.py").write_text("x = 1\n")
    (checkout / "evaluate.py").unlink()
    options = ("--dataset", "digits", "--epochs", 1, "--no-register")
    trained = run_script(tmp_path, "pytorch_demo.py", *options, root=checkout)
    tags = client(tmp_path).get_run(trained.json["run_id"]).data.tags
    assert (tags["code.commit"], tags["code.dirty"], tags["code.patch"]) == (commit, "true", "complete")

    patch = client(tmp_path).download_artifacts(trained.json["run_id"], "provenance/source.patch", str(tmp_path))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", tags["code.remote"], str(clone))
    git(clone, "checkout", "--quiet", tags["code.commit"])
    git(clone, "apply", patch)

    def files(folder: Path) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file() and not {".git", "__pycache__"} & set(path.parts)]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    assert files(clone) == files(checkout)
    assert "new.py" in files(clone) and "evaluate.py" not in files(clone)


def test_mlflow_run_trains_evaluates_and_promotes_from_a_clone(
    checkout: Path, tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"  # as in an activated environment

    def mlflow_run(*options: str) -> None:
        command = ["mlflow", "run", f"file://{checkout}", "--env-manager", "local", *options]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    mlflow_run("--experiment-name", "pytorch-demo", "-P", "dataset=digits", "-P", "epochs=12", "-P", "lr=1e-2")
    store = client(tmp_path)
    experiment = store.get_experiment_by_name("pytorch-demo")
    assert experiment is not None
    (run,) = store.search_runs([experiment.experiment_id])
    commit = git(checkout, "rev-parse", "HEAD")
    assert run.info.status == "FINISHED"
    assert run.data.tags["code.commit"] == run.data.tags["mlflow.source.git.commit"] == commit
    assert run.data.tags["code.dirty"] == "false"
    assert (run.data.params["dataset"], run.data.params["epochs"], run.data.params["lr"]) == ("digits", "12", "1e-2")
    assert run.data.metrics["test_accuracy"] > 0.9
    assert len(store.get_metric_history(run.info.run_id, "train_loss")) == 12

    mlflow_run("-e", "evaluate", "-P", f"run-id={run.info.run_id}")
    mlflow_run("-e", "promote", "-P", f"run-id={run.info.run_id}")
    assert store.get_model_version("digits-classifier", "1").current_stage == "Production"
    assert run_script(tmp_path, "lineage.py", "--json").json["unanswered"] == []
