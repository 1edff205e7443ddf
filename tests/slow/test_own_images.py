"""Own images from the folder to the answer, label checks on MNIST, and the model served by MLflow."""

import json
import os
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from scipy.special import softmax

import compare
import evaluate
import lineage
import predict
import prepare_data
import promote
import pytorch_demo
from pipeline.cleaning import label_issues
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.splits import Dataset
from support.own_images import (
    ImageFolder,
    call_prepare,
    count_images,
    list_reported,
    read_report,
    write_class_folders,
    write_images_with_faults,
)
from support.photographs import photograph_digit
from support.pipelines import PipelineRun, build_once
from support.scripts import Result, call_main
from support.servers import find_free_port, is_listening, run_server


def save_pictures(folder: Path, pictures: np.ndarray) -> list[Path]:
    """Write pictures as PNG files."""
    folder.mkdir()
    files = [folder / f"{index:05d}.png" for index in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file)
    return files


# --- 3,000 images of MNIST with every problem -----------------------------------------------------------------------


@dataclass(frozen=True)
class CleaningRun:
    """A folder with every problem, what prepare_data.py wrote, and its result."""

    raw: ImageFolder
    output: Path
    result: Result


@pytest.fixture(scope="module")
def mnist_run(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> CleaningRun:
    def build(folder: Path) -> tuple[ImageFolder, Result]:
        test = load_test_split("mnist", real_data).subset(slice(3_000))
        pixels, labels = test.images[:, 0].numpy(), test.labels.tolist()
        raw = write_images_with_faults(folder / "photos", pixels, labels, train_size=2_500, wrong_labels=30)
        return raw, call_prepare(raw.folder, folder / "cleaned")

    folder, (raw, result) = build_once(tmp_path_factory, "mnist_cleaning", build)
    return CleaningRun(raw, folder / "cleaned", result)


def test_every_fault_is_found_in_mnist(mnist_run: CleaningRun) -> None:
    for problem, names in mnist_run.raw.faults.items():
        assert set(list_reported(mnist_run.output, problem)) == names
    assert count_images(mnist_run.output) == mnist_run.raw.count_good()


def test_most_wrong_labels_are_found(mnist_run: CleaningRun) -> None:
    issues = read_report(mnist_run.output)["findings"]["label_issue"]["images"]
    true_labels = mnist_run.raw.true_labels
    assert len(true_labels) == 30
    details = {issue["file"]: issue["detail"] for issue in issues if issue["file"] in true_labels}
    assert len(details) >= 24
    assert len(issues) - len(details) <= 90  # 3% of the images
    is_true_class = [detail.startswith(f"looks like '{true_labels[name]}' (") for name, detail in details.items()]
    assert np.mean(is_true_class) >= 0.8


def test_most_suspicious_labels_come_first(mnist_run: CleaningRun) -> None:
    first = list_reported(mnist_run.output, "label_issue")[:10]
    assert len(mnist_run.raw.true_labels.keys() & first) >= 8


def test_near_copies_are_found_in_mnist(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])
    test = load_test_split("mnist", real_data)
    raw = write_class_folders(tmp_path / "photos", test.images[:, 0].numpy(), test.labels[:400].tolist())
    copies = {}
    for index, name in enumerate(sorted(raw.good)[::40]):
        changed = raw.good[name].copy()
        changed[27, 27] ^= index % 2  # half of them are changed by JPEG only
        copy = name.replace(".png", ".bmp" if index % 2 else ".jpg")
        Image.fromarray(changed).save(raw.folder / copy, quality=90)
        copies[copy] = name
    result = call_prepare(raw.folder, tmp_path / "cleaned")
    assert sum(result.json[split] for split in ("train", "validation", "test")) == 400 + len(copies)
    listed = read_report(tmp_path / "cleaned")["findings"]["near_duplicate"]["images"]
    pairs = [{finding["file"], finding["detail"].removeprefix("like ")} for finding in listed]
    for copy, name in copies.items():
        assert {copy, name} in pairs
    assert len(pairs) <= len(copies) + 4  # MNIST itself has hardly any


# --- photographs ----------------------------------------------------------------------------------------------------


def measure_accuracy(run: PipelineRun, files: list[Path], labels: torch.Tensor) -> float:
    """Return the share of files that predict.py answers correctly."""
    images = call_main(predict.main, *files, folder=run.folder).json["images"]
    predictions = torch.tensor([image["prediction"] for image in images])
    return float((predictions == labels).double().mean())


def test_photographs_are_read_as_well(mnist_pipeline: PipelineRun, real_data: Path, tmp_path: Path) -> None:
    test = load_test_split("mnist", real_data).subset(slice(400))
    digits = test.images[:, 0].numpy()
    scans = save_pictures(tmp_path / "scans", digits)
    random = np.random.default_rng(0)
    photos = []
    for index, digit in enumerate(digits):
        photos.append(tmp_path / f"{index:05d}.jpg")
        photos[-1].write_bytes(photograph_digit(digit, random))
    accuracy = measure_accuracy(mnist_pipeline, photos, test.labels)
    assert accuracy >= 0.97
    assert accuracy >= measure_accuracy(mnist_pipeline, scans, test.labels) - 0.015


# --- serving --------------------------------------------------------------------------------------------------------


def request_logits(port: int, pixels: np.ndarray) -> np.ndarray:
    """Return the logits that MLflow's scoring server gives for uint8 [N, 1, 28, 28]."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"inputs": pixels.tolist()}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return np.array(json.load(response)["predictions"])


def test_served_model_gives_the_same_answers(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    pixels = load_test_split("digits", Path()).images[:100].numpy()
    files = save_pictures(tmp_path / "digits", pixels[:, 0])
    images = call_main(predict.main, *files, folder=digits_pipeline.folder).json["images"]
    port = find_free_port()
    model = ("-m", "models:/digits-classifier@champion")
    options = (*model, "--env-manager", "local", "--port", str(port))
    command = [sys.executable, "-m", "mlflow", "models", "serve", *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    env = {
        **os.environ,
        "PATH": path,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{digits_pipeline.folder}/mlflow.db",
    }
    with run_server(command, digits_pipeline.folder, lambda: is_listening(port), env):
        logits = request_logits(port, pixels)
    assert logits.argmax(1).tolist() == [image["prediction"] for image in images]
    served = softmax(logits.astype(np.float64), axis=1).max(1)
    assert served == pytest.approx(np.array([image["probability"] for image in images]), abs=1e-6)


# --- from the folder to the answer ----------------------------------------------------------------------------------

CLASS_NAMES = ("accuracy", "macro avg", "label", "prediction", "index", "a/b", "$x$", "ü", "8 ", "zero|nine")


def save_digits(file: Path) -> Dataset:
    """Write digits with unusual class names as NumPy arrays; return the test split."""
    splits = load_splits("digits", Path())
    names = np.array(CLASS_NAMES)
    np.savez(
        file,
        X_train=splits.train.images[:, 0].numpy(),
        y_train=names[splits.train.labels.numpy()],
        X_test=splits.test.images[:, 0].numpy(),
        y_test=names[splits.test.labels.numpy()],
    )
    return splits.test


def call_successfully(main: Callable[..., int], *arguments: object) -> Result:
    result = call_main(main, *arguments)
    assert result.code == 0, result
    return result


def check_training(run_id: str, report_sha256: str) -> None:
    """Check that the run knows the data set and its report."""
    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.data.params["dataset"] == "my digits"
    assert run.data.tags["data.cleaning_report_sha256"] == report_sha256
    paths = [artifact.path for artifact in client.list_artifacts(run_id, "provenance")]
    assert "provenance/cleaning_report.json" in paths


def check_record(run_id: str) -> None:
    """Check that the evaluation has all classes by name."""
    record = json.loads(Path("evaluation", run_id, "evaluation.json").read_text(encoding="utf-8"))
    assert sorted(record["classes"]) == sorted(CLASS_NAMES)
    assert sum(scores["support"] for scores in record["classes"].values()) == 360


def test_own_images_go_all_the_way(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])
    test = save_digits(tmp_path / "raw.npz")
    cleaned = call_successfully(prepare_data.main, tmp_path / "raw.npz", "--output", "my digits").json
    assert (cleaned["classes"], cleaned["test"]) == (10, 360)
    trained = call_successfully(pytorch_demo.main, "--dataset", "my digits").json
    assert trained["model_name"] == "my digits-classifier"
    run = ("--run-id", trained["run_id"])
    check_training(trained["run_id"], cleaned["report_sha256"])

    evaluated = call_successfully(evaluate.main, *run, "--log-mlflow").json
    assert evaluated["test_accuracy"] == trained["test_accuracy"] > 0.9
    check_record(trained["run_id"])
    assert 'gates.toml has no table ["my digits"]; add it' in call_main(promote.main, *run).error
    promoted = call_successfully(promote.main, *run, "--min-accuracy", 0.9).json
    assert promoted["decision"] == "promoted"

    assert cleaned["report_sha256"] in call_successfully(lineage.main).stdout
    table = call_successfully(compare.main, "--dataset", "my digits/").stdout
    assert len(table.splitlines()) == 3
    files = save_pictures(tmp_path / "pictures", test.images[:, 0].numpy())
    images = call_successfully(predict.main, *files).json["images"]
    expected = [CLASS_NAMES[label] for label in test.labels]
    is_correct = [image["class_name"] == name for image, name in zip(images, expected, strict=True)]
    assert np.mean(is_correct) == pytest.approx(evaluated["test_accuracy"])
    reproduced = call_successfully(pytorch_demo.main, "--reproduce", trained["run_id"]).json
    assert reproduced["identical"] is True
