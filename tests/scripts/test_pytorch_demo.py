"""pytorch_demo.py on digits: what it prints, logs, refuses, and how its run ends."""

import shutil
from pathlib import Path

import mlflow
import pytest

import pytorch_demo
from pipeline.provenance.record import compute_weights_sha256
from pipeline.tracking.manifest import build_manifest
from support.pipelines import PipelineRun
from support.scripts import call_main
from support.servers import find_free_port
from support.stores import open_store, read_run_statuses

EPOCH_METRICS = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "images_per_second",
)


def artifact_names(folder: Path, run_id: str, path: str | None = None) -> set[str]:
    return {Path(item.path).name for item in open_store(folder).list_artifacts(run_id, path)}


# --- what a training leaves -----------------------------------------------------------------------------------------


def test_result_is_one_line_of_json(digits_pipeline: PipelineRun) -> None:
    result = digits_pipeline.trained.json
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


def test_parameters_are_configuration_and_sizes(digits_pipeline: PipelineRun) -> None:
    run = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id)
    assert run.info.status == "FINISHED"
    params = run.data.params
    expected = {"dataset": "digits", "model": "cnn", "batch_size": "256", "lr": "0.01", "weight_decay": "0.05"}
    assert expected.items() <= params.items()
    assert (params["seed"], params["limit"], params["augment"]) == ("0", "None", "affine")
    assert (params["train_size"], params["validation_size"], params["test_size"]) == ("1257", "180", "360")
    assert params["optimizer"]
    assert len(params["test_digest"]) == 64
    assert int(params["model_parameters"]) > 1000


def test_parameters_hold_no_noise(digits_pipeline: PipelineRun) -> None:
    params = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).data.params
    noise = {"amsgrad", "betas", "capturable", "differentiable", "foreach", "maximize"}
    noise |= {"data_dir", "experiment", "register", "reproduce", "run_name", "system_metrics"}
    assert not noise & params.keys()


def test_metrics_are_logged_for_each_epoch(digits_pipeline: PipelineRun) -> None:
    client = open_store(digits_pipeline.folder)
    epochs = int(client.get_run(digits_pipeline.run_id).data.params["epochs"])
    for metric in EPOCH_METRICS:
        history = client.get_metric_history(digits_pipeline.run_id, metric)
        assert [point.step for point in history] == list(range(1, epochs + 1)), metric


def test_final_metrics_are_those_printed(digits_pipeline: PipelineRun) -> None:
    metrics = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).data.metrics
    final = {"test_loss", "test_accuracy", "test_precision", "test_recall", "test_f1", "training_seconds"}
    assert final <= set(metrics)
    assert metrics["test_accuracy"] == digits_pipeline.trained.json["test_accuracy"]


def test_reports_are_logged_as_artifacts(digits_pipeline: PipelineRun) -> None:
    assert artifact_names(digits_pipeline.folder, digits_pipeline.run_id) >= {
        "confusion_matrix.png",
        "classification_report.txt",
        "classification_report.json",
        "training_curves.png",
        "model_summary.txt",
    }


def test_data_sets_are_logged_as_inputs(digits_pipeline: PipelineRun) -> None:
    inputs = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).inputs
    assert inputs is not None
    contexts = {entry.tags[0].value: entry.dataset.name for entry in inputs.dataset_inputs}
    assert contexts == {"training": "digits-training", "testing": "digits-testing"}


def test_stderr_without_terminal_has_plain_lines(digits_pipeline: PipelineRun) -> None:
    stderr = digits_pipeline.trained.stderr
    lines = stderr.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert epochs[0].startswith("epoch 1: loss ")
    assert "\r" not in stderr
    assert "Warning" not in stderr
    assert len(lines) == len(epochs) + 2, stderr  # the run's id at first, the next command at the end


def test_origin_is_recorded_as_tags(digits_pipeline: PipelineRun) -> None:
    tags = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).data.tags
    assert tags["invocation.command"] == "pytorch_demo.py --dataset digits --run-name 'lr 0.01'"
    assert {"code.commit", "environment.cpu", "environment.threads", "environment.packages_sha256"} <= tags.keys()
    files = artifact_names(digits_pipeline.folder, digits_pipeline.run_id, "provenance")
    assert files - {"source.patch"} == {"packages.txt", "train_digests.npy"}


def test_hashes_are_those_of_weights_and_files(digits_pipeline: PipelineRun) -> None:
    tags = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).data.tags
    (file,) = (digits_pipeline.folder / "mlruns").rglob("model.pt2")
    state = mlflow.pytorch.load_model(str(file.parent.parent)).state_dict()
    assert tags["result.model_sha256"] == build_manifest(file.parent.parent, "the model").sha256
    assert tags["result.weights_sha256"] == compute_weights_sha256(state)


# --- other endings --------------------------------------------------------------------------------------------------


def test_without_register_no_version_appears(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    options = ("--dataset", "digits", "--epochs", 1, "--no-register")
    result = call_main(pytorch_demo.main, *options, folder=tmp_path)
    assert (result.json["model_name"], result.json["model_version"]) == (None, None)
    assert not open_store(tmp_path).search_registered_models()


def test_diverging_training_leaves_its_run_failed(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    options = ("--dataset", "digits", "--model", "mlp", "--lr", "1000")
    result = call_main(pytorch_demo.main, *options, folder=tmp_path)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("error: training diverged")
    assert read_run_statuses(tmp_path) == ["FAILED"]
    assert not open_store(tmp_path).search_model_versions()


def test_figure_that_cannot_be_drawn_costs_only_itself(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no font")

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setattr("pipeline.reports.plots.plot_confusion_matrix", fail)
    result = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", 1, folder=tmp_path)
    assert result.code == 0
    assert "warning: cannot draw confusion_matrix.png" in result.stderr
    assert "training_curves.png" in artifact_names(tmp_path, result.json["run_id"])
    assert read_run_statuses(tmp_path) == ["FINISHED"]


def test_leftover_run_id_is_refused(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", digits_pipeline.run_id)
    result = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", 1, folder=digits_pipeline.folder)
    assert f"MLFLOW_RUN_ID names run {digits_pipeline.run_id}, which is FINISHED; unset it" in result.error


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dataset cifar", "'cifar' is none of mnist, fashion-mnist, "),
        ("--batch-size 0", "'0' is not a whole number of at least 1"),
        ("--epochs 0", "'0' is not a whole number of at least 1"),
        ("--lr nan", "'nan' is not a number above 0"),
        ("--lr 0", "'0' is not a number above 0"),
        ("--epoch 3", "unrecognized arguments: --epoch"),
        ("--reproduce x --seed 1", "--seed does not go with --reproduce"),
        ("--reproduce x --model-name y", "--model-name does not go with --reproduce"),
        ("--reproduce x", "there is no run 'x'"),
        ("--dataset digits --model-name a/b", "cannot name a registered model"),
        ("--dataset digits --model-name a?b", "its character 2 is '?'; leave out"),
        (f"--dataset digits --experiment {'x' * 257}", "cannot name an experiment: it has 257 characters"),
        ("--dataset digits --run-name a\x01b", "cannot name a run: its character 2 is '\\x01'"),
        ("--dataset mnist --data-dir nowhere", "could not be downloaded"),
    ],
)
def test_bad_input_is_one_line(
    options: str, message: str, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for name in ("http_proxy", "https_proxy"):  # a proxy that does not exist: no network, on any machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    error = call_main(pytorch_demo.main, *options.split(), folder=tmp_path).error
    assert message in error
    assert read_run_statuses(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


def test_unreachable_server_is_named_without_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
    monkeypatch.chdir(tmp_path)
    error = call_main(pytorch_demo.main, "--dataset", "digits").error
    assert f"nothing answers at http://{address}" in error
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []
