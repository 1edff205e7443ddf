"""evaluate.py on digits: what it prints, writes, logs and refuses."""

import json
import re
import shlex
import shutil
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import mlflow
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

import evaluate
import pytorch_demo
from pipeline.data import datasets
from pipeline.data.datasets import load_test_split
from pipeline.data.forms import MNIST_FORM
from pipeline.tracking.loading import load_model
from pipeline.tracking.models import find_model_uri, log_model, save_model
from pipeline.tracking.registry import ModelReference
from pipeline.tracking.runs import log_params, start_run
from support.evaluations import REPORT_FILES
from support.pipelines import PipelineRun
from support.scripts import ROOT, Result, call_main, run_script
from support.servers import find_free_port
from support.stores import open_store

QUESTIONS = ["goal", "generalisation", "balance", "errors", "cost"]


def reports_folder(pipeline: PipelineRun) -> Path:
    return pipeline.folder / str(pipeline.evaluated.json["output_dir"])


def read_answers(folder: Path, result: Result) -> dict[str, dict[str, Any]]:
    """Return the answers of the checklist by question."""
    assert result.code == 0, result
    answers = json.loads((folder / result.json["output_dir"] / "checklist.json").read_text())
    return {answer["question"]: answer for answer in answers}


# --- what it prints and writes --------------------------------------------------------------------------------------


def test_result_is_one_line_of_json(digits_pipeline: PipelineRun) -> None:
    assert list(digits_pipeline.evaluated.json) == [
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


def test_metrics_agree_with_training(digits_pipeline: PipelineRun) -> None:
    trained = digits_pipeline.trained.json
    evaluated = digits_pipeline.evaluated.json
    assert evaluated["samples"] == 360
    assert evaluated["test_accuracy"] == trained["test_accuracy"]
    assert evaluated["test_loss"] == pytest.approx(trained["test_loss"], rel=1e-3)


def test_stderr_has_interval_and_verdicts(digits_pipeline: PipelineRun) -> None:
    accuracy, *verdicts = digits_pipeline.evaluated.stderr.splitlines()
    assert accuracy.startswith("accuracy ")
    assert "95% interval" in accuracy
    assert [line.split(":")[0] for line in verdicts] == QUESTIONS


def test_reports_are_complete(digits_pipeline: PipelineRun) -> None:
    files = list(reports_folder(digits_pipeline).iterdir())
    assert {file.name for file in files} >= REPORT_FILES
    assert min(file.stat().st_size for file in files) > 500


def test_record_follows_from_predictions(digits_pipeline: PipelineRun) -> None:
    folder = reports_folder(digits_pipeline)
    table = pd.read_csv(folder / "predictions.csv")
    record = json.loads((folder / "evaluation.json").read_text())
    probabilities = table.iloc[:, 3:].to_numpy()
    assert list(table.columns) == ["index", "label", "prediction", *"0123456789"]
    assert (probabilities.argmax(1) == table["prediction"]).all()
    assert record["samples"] == len(table) == 360
    assert record["accuracy"] == accuracy_score(table["label"], table["prediction"])
    assert record["macro"]["f1"] == pytest.approx(f1_score(table["label"], table["prediction"], average="macro"))
    normalized = probabilities / probabilities.sum(1, keepdims=True)
    assert record["loss"] == pytest.approx(log_loss(table["label"], normalized))


def test_record_names_model_data_and_speed(digits_pipeline: PipelineRun) -> None:
    record = json.loads((reports_folder(digits_pipeline) / "evaluation.json").read_text())
    params = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).data.params
    assert record["model_uri"] == digits_pipeline.model_uri
    assert record["dataset"] == "digits"
    assert record["dataset_digest"] == params["test_digest"]
    assert record["parameters"] == int(params["model_parameters"])
    assert record["images_per_second"] > 0


def test_record_counts_images_that_were_trained_on(digits_pipeline: PipelineRun) -> None:
    record = json.loads((reports_folder(digits_pipeline) / "evaluation.json").read_text())
    assert record["overlap"] == 0


def test_images_that_were_trained_on_are_a_warning(
    digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = datasets.load_splits("digits", Path("data"))
    images = torch.cat([splits.test.images[:10], splits.train.images[:7], splits.validation.images[:3]])
    labels = torch.cat([splits.test.labels[:10], splits.train.labels[:7], splits.validation.labels[:3]])
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: replace(splits.test, images=images, labels=labels))
    result = call_main(evaluate.main, "--run-id", digits_pipeline.run_id, folder=digits_pipeline.folder)
    warning = f"warning: 10 of 20 test images are also training images of run {digits_pipeline.run_id}; "
    assert result.stderr.startswith(warning)
    record = json.loads((reports_folder(digits_pipeline) / "evaluation.json").read_text())
    assert record["overlap"] == 10


def test_unknown_training_images_are_a_warning(digits_pipeline: PipelineRun) -> None:
    (file,) = digits_pipeline.folder.rglob("train_digests.npy")
    file.unlink()
    result = call_main(evaluate.main, "--run-id", digits_pipeline.run_id, folder=digits_pipeline.folder)
    assert result.stderr.startswith(f"warning: run {digits_pipeline.run_id} does not record which images it trained on")
    record = json.loads((reports_folder(digits_pipeline) / "evaluation.json").read_text())
    assert record["overlap"] is None


def test_checklist_answers_five_questions(digits_pipeline: PipelineRun) -> None:
    result = digits_pipeline.evaluated
    answers = read_answers(digits_pipeline.folder, result)
    assert list(answers) == QUESTIONS
    assert result.json["checklist"] == {question: answer["verdict"] for question, answer in answers.items()}
    text = (reports_folder(digits_pipeline) / "checklist.md").read_text()
    assert text.startswith(f"# digits: run {digits_pipeline.run_id}\n")


# --- what it logs ---------------------------------------------------------------------------------------------------


def test_reports_are_logged_to_the_run(digits_pipeline: PipelineRun) -> None:
    client = open_store(digits_pipeline.folder)
    logged = client.list_artifacts(digits_pipeline.run_id, "evaluation")
    assert {Path(item.path).name for item in logged} >= REPORT_FILES
    run = client.get_run(digits_pipeline.run_id)
    assert run.data.metrics["evaluation_accuracy"] == digits_pipeline.evaluated.json["test_accuracy"]
    assert run.info.status == "FINISHED"


def test_evaluations_within_a_second_are_different_points(digits_pipeline: PipelineRun) -> None:
    for _ in range(2):
        options = ("--run-id", digits_pipeline.run_id, "--log-mlflow")
        assert call_main(evaluate.main, *options, folder=digits_pipeline.folder).code == 0
    history = open_store(digits_pipeline.folder).get_metric_history(digits_pipeline.run_id, "evaluation_accuracy")
    assert len(history) == 3


def test_store_is_unchanged_unless_asked(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    def read_store() -> dict[Path, bytes]:
        files = [digits_pipeline.folder / "mlflow.db", *(digits_pipeline.folder / "mlruns").rglob("*")]
        return {file: file.read_bytes() for file in files if file.is_file()}

    before = read_store()
    options = ("--model-uri", "models:/digits-classifier@champion", "--output-dir", tmp_path / "reports")
    result = call_main(evaluate.main, *options, folder=digits_pipeline.folder)
    assert result.json["run_id"] == digits_pipeline.run_id
    assert (tmp_path / "reports" / "evaluation.json").exists()
    assert read_store() == before


# --- log later ------------------------------------------------------------------------------------------------------


def log_only(pipeline: PipelineRun, *options: object, run_id: str = "") -> Result:
    run = run_id or pipeline.run_id
    return call_main(evaluate.main, "--run-id", run, "--log-only", *options, folder=pipeline.folder)


def stored_evaluation(pipeline: PipelineRun) -> Path:
    """Return the folder in which the store keeps the reports of the run."""
    uri = open_store(pipeline.folder).get_run(pipeline.run_id).info.artifact_uri
    return Path(str(uri).removeprefix("file://")) / "evaluation"


def test_finished_reports_are_logged_without_scoring(digits_pipeline: PipelineRun) -> None:
    stored = stored_evaluation(digits_pipeline)
    shutil.rmtree(stored)
    result = log_only(digits_pipeline)
    assert result.json == digits_pipeline.evaluated.json
    assert result.stderr == digits_pipeline.evaluated.stderr
    assert {file.name: file.read_bytes() for file in stored.iterdir()} == {
        name: (reports_folder(digits_pipeline) / name).read_bytes() for name in REPORT_FILES
    }


def test_repeated_logging_doubles_no_metric(digits_pipeline: PipelineRun) -> None:
    client = open_store(digits_pipeline.folder)
    names = [name for name in client.get_run(digits_pipeline.run_id).data.metrics if name.startswith("evaluation_")]
    assert len(names) == 5
    for _ in range(2):
        assert log_only(digits_pipeline).code == 0
    for name in names:
        assert len(client.get_metric_history(digits_pipeline.run_id, name)) == 1


def test_refusing_store_leaves_reports_and_command(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    stored = stored_evaluation(digits_pipeline)
    shutil.rmtree(stored)
    stored.write_text("a file where the folder of the reports must be")
    output = tmp_path / "my reports"
    options = ("--run-id", digits_pipeline.run_id, "--output-dir", output, "--log-mlflow")
    error = call_main(evaluate.main, *options, folder=digits_pipeline.folder).error
    assert "the store did not take everything: " in error
    assert f"the reports are complete in {output}; " in error
    assert {file.name for file in output.iterdir()} == REPORT_FILES
    stored.unlink()
    command = re.search(r"run: python evaluate\.py (.*)", error)
    assert command
    result = call_main(evaluate.main, *shlex.split(command[1]), folder=digits_pipeline.folder)
    assert result.json["output_dir"] == str(output)
    assert {file.name for file in stored.iterdir()} == REPORT_FILES


def test_signal_leaves_reports_and_command(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("pipeline.reports.evaluation_folder.log_metrics", stop)
    result = log_only(digits_pipeline)
    assert result.code == 143
    run_id = digits_pipeline.run_id
    command = f"python evaluate.py --run-id {run_id} --log-only"
    assert result.stderr == f"stopped; the reports are complete in evaluation/{run_id}; log them with: {command}\n"


def test_foreign_files_are_not_logged(digits_pipeline: PipelineRun) -> None:
    (reports_folder(digits_pipeline) / "private.txt").write_text("")
    assert log_only(digits_pipeline).code == 0
    assert {file.name for file in stored_evaluation(digits_pipeline).iterdir()} == REPORT_FILES


def test_reports_of_another_model_are_refused(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits_pipeline.folder)
    mlflow.set_tracking_uri(f"sqlite:///{digits_pipeline.folder}/mlflow.db")
    model = mlflow.artifacts.download_artifacts(digits_pipeline.model_uri, dst_path="model")
    with start_run("pytorch-demo", None) as run_id:
        uri = log_model(run_id, Path(model)).uri
    folder = reports_folder(digits_pipeline)
    error = log_only(digits_pipeline, "--output-dir", folder, run_id=run_id).error
    assert f"is an evaluation of {digits_pipeline.model_uri}, the model of run {run_id} is {uri}" in error


def test_reports_of_an_altered_file_are_refused(digits_pipeline: PipelineRun) -> None:
    (file,) = (digits_pipeline.folder / "mlruns").rglob("model.pt2")
    file.write_bytes(file.read_bytes() + b"0")
    assert "is not the model that its training recorded" in log_only(digits_pipeline).error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evaluation.json", None, "evaluation.json of evaluation/{run} cannot be read (No such file or directory)"),
        ("predictions.csv", "index", "predictions.csv of evaluation/{run} is not the one that"),
        ("checklist.json", None, "checklist.json of evaluation/{run} cannot be read (No such file or directory)"),
        ("checklist.json", "{", "checklist.json of evaluation/{run} is damaged"),
        ("checklist.json", "[]", "checklist.json of evaluation/{run} does not answer the five questions"),
    ],
)
def test_damaged_reports_are_not_logged(
    digits_pipeline: PipelineRun, name: str, content: str | None, message: str
) -> None:
    shutil.rmtree(stored_evaluation(digits_pipeline))
    file = reports_folder(digits_pipeline) / name
    file.unlink()
    if content is not None:
        file.write_text(content)
    error = log_only(digits_pipeline).error
    assert message.format(run=digits_pipeline.run_id) in error
    assert f"run: python evaluate.py --run-id {digits_pipeline.run_id} --log-mlflow" in error
    assert not stored_evaluation(digits_pipeline).exists()


# --- figures --------------------------------------------------------------------------------------------------------


def test_failing_figure_costs_only_itself(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("no font\nat all")

    monkeypatch.setattr("pipeline.reports.plots.plot_reliability", fail)
    shutil.rmtree(stored_evaluation(digits_pipeline))
    options = ("--run-id", digits_pipeline.run_id, "--log-mlflow")
    result = call_main(evaluate.main, *options, folder=digits_pipeline.folder)
    assert result.json["output_dir"]
    first_line, *_ = result.stderr.splitlines()
    assert first_line == "warning: cannot draw reliability.png (no font at all); everything else is written"
    for folder in (reports_folder(digits_pipeline), stored_evaluation(digits_pipeline)):
        assert {file.name for file in folder.iterdir()} == REPORT_FILES - {"reliability.png"}


# --- independence of training ---------------------------------------------------------------------------------------


def test_model_is_scored_without_training_code(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    shutil.copy(ROOT / "evaluate.py", tmp_path)
    without_training = shutil.ignore_patterns("training", "__pycache__")
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=without_training)
    options = ("--run-id", digits_pipeline.run_id, "--output-dir", tmp_path / "reports")
    result = run_script(digits_pipeline.folder, "evaluate.py", *options, root=tmp_path)
    assert result.code == 0, result
    assert result.json["test_accuracy"] == digits_pipeline.trained.json["test_accuracy"]


# --- planted faults -------------------------------------------------------------------------------------------------


def test_overfitted_run_is_found(store: Path) -> None:
    network = ("--model", "mlp", "--limit", 150, "--epochs", 60)
    no_regularisation = ("--augment", "none", "--label-smoothing", 0, "--weight-decay", 0)
    trained = call_main(pytorch_demo.main, "--dataset", "digits", "--no-register", *network, *no_regularisation)
    result = call_main(evaluate.main, "--run-id", trained.json["run_id"])
    answer = read_answers(store, result)["generalisation"]
    from_epoch = answer["figures"]["overfitting_from_epoch"]
    assert answer["verdict"] == "poor"
    assert 2 < from_epoch < 40
    assert answer["sentences"][0].startswith(f"It overfits from epoch {from_epoch} on")


class NeverFive(torch.nn.Module):
    """A model that predicts everything but a 5."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module.to(memory_format=torch.contiguous_format)  # as save_model wants it
        self.register_buffer("fives", 50.0 * torch.nn.functional.one_hot(torch.tensor(5), 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(images)
        return logits - self.get_buffer("fives")


def test_class_that_is_never_predicted_is_found(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits_pipeline.folder)
    mlflow.set_tracking_uri(f"sqlite:///{digits_pipeline.folder}/mlflow.db")
    model = NeverFive(load_model(ModelReference(find_model_uri(digits_pipeline.run_id), None, None)).module)
    examples = load_test_split("digits", Path("data")).images[:2].float()
    with start_run("pytorch-demo", None) as run_id:
        log_params(run_id, {"dataset": "digits"})
        save_model(model, examples, tuple("0123456789"), MNIST_FORM, Path("never_five"))
        log_model(run_id, Path("never_five"))
    result = call_main(evaluate.main, "--run-id", run_id, folder=digits_pipeline.folder)
    answers = read_answers(digits_pipeline.folder, result)
    assert answers["balance"]["sentences"][0] == "It almost never predicts '5': 0 times for 37 images."
    assert answers["balance"]["verdict"] == answers["goal"]["verdict"] == "poor"
    unknown = ("generalisation", "cost")  # the run records no training
    assert [answers[question]["verdict"] for question in unknown] == ["unknown", "unknown"]


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "one of the arguments --run-id --model-uri is required"),
        ("--run-id x --batch-size 0", "'0' is not a whole number of at least 1"),
        ("--run-id x --log-only --dataset digits", "--dataset does not go with --log-only"),
        ("--run-id x --log-only --data-dir data", "--data-dir does not go with --log-only"),
        ("--run-id x --log-only --batch-size 500", "--batch-size does not go with --log-only"),
        ("--run-id x --log-only --device auto", "--device does not go with --log-only"),
        ("--model-uri models:/m-1 --log-only", "--model-uri does not go with --log-only"),
        ("--run-id x --log-only --log-mlflow", "--log-mlflow: not allowed with argument --log-only"),
        ("--run-id x --log-only", "there is no run 'x'"),
        ("--run-id ../../etc/passwd", "there is no run '../../etc/passwd'"),
        ("--model-uri models:/nobody@champion", "there is no registered model 'nobody'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(options: str, message: str, store: Path) -> None:
    result = call_main(evaluate.main, *options.split())
    assert message in result.error
    assert {path.name for path in store.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize(
    ("classes", "difference"),
    [("1023456789", "label 0 means '0', not '1'"), ("012345678", "label 9, '9', is one too many")],
)
def test_model_of_other_classes_is_refused(
    digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch, classes: str, difference: str
) -> None:
    test = replace(load_test_split("digits", Path("data")), classes=tuple(classes))
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: test)
    error = call_main(evaluate.main, "--run-id", digits_pipeline.run_id, folder=digits_pipeline.folder).error
    assert f"are not those of digits: its {difference}; evaluate it on the data set that it was trained on" in error


def test_run_without_data_set_is_named(digits_pipeline: PipelineRun) -> None:
    database = sqlite3.connect(digits_pipeline.folder / "mlflow.db")
    with database:
        database.execute("DELETE FROM params WHERE key = 'dataset'")
    database.close()
    result = call_main(evaluate.main, "--run-id", digits_pipeline.run_id, folder=digits_pipeline.folder)
    assert f"run {digits_pipeline.run_id} does not record its data set; name one with --dataset" in result.error


def test_unwritable_output_directory_is_named(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "reports"
    options = ("--run-id", digits_pipeline.run_id, "--output-dir", output)
    assert f"cannot write to {output}" in call_main(evaluate.main, *options, folder=digits_pipeline.folder).error


def test_missing_server_is_named_without_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = find_free_port()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    error = call_main(evaluate.main, "--run-id", "x").error
    assert f"nothing answers at http://127.0.0.1:{port}" in error
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []
