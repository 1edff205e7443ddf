"""predict.py on real pictures, its answers beside those of `mlflow models serve`, and one's own images all the way."""

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA_DIR, Pipeline, call, free_port, listens, running_server
from mlflow import MlflowClient
from photographs import photograph
from PIL import Image
from scipy.special import softmax

import compare
import evaluate
import lineage
import predict
import prepare_data
import promote
import pytorch_demo
from pipeline import cleaning, data

NAMES = ("accuracy", "macro avg", "label", "prediction", "index", "a/b", "$x$", "ü", "8 ", "zero|nine")


@pytest.fixture
def digits(tmp_path: Path) -> tuple[list[Path], np.ndarray]:
    """Write the test images of digits as files; return them and the labels."""
    test = data.load_test("digits", Path())
    return save(tmp_path / "digits", [pixels[0].numpy() for pixels in test.images]), test.labels.numpy()


def save(folder: Path, pictures: list[np.ndarray]) -> list[Path]:
    """Write pictures as PNG files."""
    folder.mkdir()
    files = [folder / f"{number:05d}.png" for number in range(len(pictures))]
    for file, pixels in zip(files, pictures, strict=True):
        Image.fromarray(pixels).save(file)
    return files


def test_the_model_in_production_is_asked(pipeline: Pipeline, digits: tuple[list[Path], np.ndarray]) -> None:
    files, labels = digits
    result = call(predict.main, *files, folder=pipeline.folder)
    assert result.code == 0
    about = {name: result.json[name] for name in ("model_name", "model_version", "model_uri", "run_id", "failed")}
    assert about == {
        "model_name": "digits-classifier",
        "model_version": 1,
        "model_uri": "models:/digits-classifier/1",
        "run_id": pipeline.run_id,
        "failed": 0,
    }
    images = result.json["images"]
    assert [each["file"] for each in images] == [str(file) for file in files]
    guesses = np.array([each["prediction"] for each in images])
    assert (guesses == labels).mean() == pytest.approx(pipeline.evaluated.json["test_accuracy"])
    first = images[0]
    assert first["class_name"] == first["top"][0]["class_name"] == str(labels[0])
    assert first["probability"] == first["top"][0]["probability"] >= first["top"][1]["probability"]
    assert (len(first["top"]), first["model_version"]) == (3, 1)
    assert result.stderr.splitlines()[0].startswith(f"{files[0]}: {labels[0]} ({labels[0]} ")


def test_the_same_model_is_found_by_run_by_address_and_by_name(
    pipeline: Pipeline, digits: tuple[list[Path], np.ndarray]
) -> None:
    files = digits[0][:3]
    answers = [
        call(predict.main, *files, *options, folder=pipeline.folder).json
        for options in (
            (),
            ("--run-id", pipeline.run_id),
            ("--model-uri", "models:/digits-classifier@champion"),
            ("--model-uri", "models:/digits-classifier/1"),
            ("--model-uri", pipeline.trained.json["model_uri"]),
            ("--model-name", "digits-classifier"),
        )
    ]
    assert [answer["model_version"] for answer in answers] == [1, 1, 1, 1, None, 1]
    for answer in answers:
        top = [each["top"] for each in answer["images"]]
        assert top == [each["top"] for each in answers[0]["images"]]


def test_a_file_that_is_no_picture_has_its_own_entry_and_does_not_stop_the_rest(
    pipeline: Pipeline, digits: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    files, labels = digits
    text, blank = tmp_path / "text.png", tmp_path / "blank.png"
    text.write_text("no picture")
    Image.new("L", (200, 200), 255).save(blank)
    asked = (text, files[0], tmp_path, blank, tmp_path / "absent.jpg", files[1])
    result = call(predict.main, *asked, folder=pipeline.folder)
    assert (result.code, result.json["failed"]) == (2, 4)
    entries = result.json["images"]
    assert ["error" in each for each in entries] == [True, False, True, True, True, False]
    assert [entries[place]["prediction"] for place in (1, 5)] == labels[:2].tolist()
    assert f"{text}: error: it is no PNG, JPEG, BMP, GIF, TIFF or WEBP" in result.stderr
    assert "only" in entries[3]["error"] and "No such file" in entries[4]["error"]
    nothing = call(predict.main, text, folder=pipeline.folder)
    assert (nothing.code, nothing.json["failed"], len(nothing.json["images"])) == (2, 1, 1)


def test_below_the_confidence_asked_for_it_is_not_sure(
    pipeline: Pipeline, digits: tuple[list[Path], np.ndarray]
) -> None:
    files, _ = digits
    every = call(predict.main, *files, folder=pipeline.folder).json["images"]
    result = call(predict.main, *files, "--min-confidence", 0.99, folder=pipeline.folder)
    for before, after in zip(every, result.json["images"], strict=True):
        sure = before["probability"] >= 0.99
        assert after["prediction"] == (before["prediction"] if sure else None)
        assert after["class_name"] == (before["class_name"] if sure else None)
        assert after["top"] == before["top"]
    unsure = sum(each["prediction"] is None for each in result.json["images"])
    assert 0 < unsure == result.stderr.count(": not sure (") < len(files)


def test_pictures_are_saved_beside_what_the_model_saw(
    pipeline: Pipeline, digits: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    asked = (*digits[0][:2], digits[0][0])
    assert call(predict.main, *asked, "--save", tmp_path / "saved", folder=pipeline.folder).code == 0
    saved = sorted((tmp_path / "saved").iterdir())
    assert [file.name for file in saved] == ["0-00000.png", "1-00001.png", "2-00000.png"]
    assert saved[0].read_bytes() == saved[2].read_bytes() != saved[1].read_bytes()
    assert Image.open(saved[0]).size == (900, 320)


def test_what_cannot_be_asked_is_one_line(
    pipeline: Pipeline, store: Path, digits: tuple[list[Path], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = digits[0][0]
    assert "this store has none: train one first" in call(predict.main, picture).error
    absent = call(predict.main, picture, "--model-name", "nobody", folder=pipeline.folder)
    assert absent.error.startswith("error: there is no registered model 'nobody'; this store has digits-classifier")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{pipeline.folder}/before.db")
    error = call(predict.main, picture).error
    assert error.startswith("error: no version of 'digits-classifier' is in Production; promote one")


def test_photographed_digits_are_read_as_well_as_clean_ones(mnist: Pipeline, tmp_path: Path) -> None:
    test = data.load_test("mnist", DATA_DIR)
    random = np.random.default_rng(0)
    chosen = [test.images[index, 0].numpy() for index in range(400)]
    clean = save(tmp_path / "clean", chosen)
    photos = []
    for number, pixels in enumerate(chosen):
        photos.append(tmp_path / f"{number:05d}.jpg")
        photos[-1].write_bytes(photograph(pixels, random))
    right = []
    for files in (clean, photos):
        answers = call(predict.main, *files, folder=mnist.folder).json["images"]
        right.append(np.mean([each["prediction"] == label for each, label in zip(answers, test.labels, strict=False)]))
    assert right[1] >= 0.97
    assert right[1] >= right[0] - 0.015


def test_mlflow_models_serve_gives_the_same_answers(pipeline: Pipeline, digits: tuple[list[Path], np.ndarray]) -> None:
    files = digits[0][:100]
    asked = call(predict.main, *files, folder=pipeline.folder).json["images"]
    port = free_port()
    uri = "models:/digits-classifier@champion"
    command = ["-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "--port", str(port)]
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{pipeline.folder}/mlflow.db"}
    pixels = np.stack([np.array(Image.open(file)) for file in files])[:, None]
    with running_server([sys.executable, *command], pipeline.folder, lambda: listens(port), env):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": pixels.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            logits = np.array(json.load(answer)["predictions"])
    assert logits.shape == (100, 10)
    assert logits.argmax(1).tolist() == [each["prediction"] for each in asked]
    served = softmax(logits.astype(np.float64), 1).max(1)
    assert served == pytest.approx(np.array([each["probability"] for each in asked]), abs=1e-6)


def test_ones_own_images_go_all_the_way_whatever_the_classes_are_called(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "label_issues", lambda *_: [])  # takes a while, and is tested elsewhere
    splits = data.load("digits", Path())
    arrays: dict[str, Any] = {}
    for part, split in (("train", splits.train), ("test", splits.test)):
        arrays[f"X_{part}"] = split.images[:, 0].numpy()
        arrays[f"y_{part}"] = np.array(NAMES)[split.labels.numpy()]
    np.savez(tmp_path / "raw.npz", **arrays)
    cleaned = call(prepare_data.main, tmp_path / "raw.npz", "--output", "my digits")
    assert (cleaned.code, cleaned.json["classes"], cleaned.json["test"]) == (0, 10, 360), cleaned
    trained = call(pytorch_demo.main, "--dataset", "my digits")
    assert trained.code == 0, trained
    run_id = trained.json["run_id"]
    assert trained.json["model_name"] == "my digits-classifier"
    run = MlflowClient().get_run(run_id)
    assert run.data.params["dataset"] == "my digits"
    assert run.data.tags["data.cleaning_report_sha256"] == cleaned.json["report_sha256"]
    assert {each.path for each in MlflowClient().list_artifacts(run_id, "provenance")} > {
        "provenance/cleaning_report.json"
    }
    evaluated = call(evaluate.main, "--run-id", run_id, "--log-mlflow")
    assert evaluated.json["test_accuracy"] == trained.json["test_accuracy"] > 0.9
    record = json.loads((Path("evaluation") / run_id / "evaluation.json").read_text())
    assert sorted(record["classes"]) == sorted(NAMES)
    assert sum(each["support"] for each in record["classes"].values()) == 360
    assert 'gates.toml has no table ["my digits"]; add it' in call(promote.main, "--run-id", run_id).error
    promoted = call(promote.main, "--run-id", run_id, "--min-accuracy", 0.9)
    assert promoted.json["decision"] == "promoted", promoted
    story = call(lineage.main)
    assert cleaned.json["report_sha256"] in story.stdout
    assert len(call(compare.main, "--dataset", "my digits/").stdout.splitlines()) == 3
    files = save(tmp_path / "pictures", [pixels[0].numpy() for pixels in splits.test.images])
    asked = call(predict.main, *files).json["images"]
    expected = [NAMES[label] for label in splits.test.labels]
    right = np.mean([each["class_name"] == name for each, name in zip(asked, expected, strict=True)])
    assert right == pytest.approx(evaluated.json["test_accuracy"])
    again = call(pytorch_demo.main, "--reproduce", run_id)
    assert again.json["identical"] is True
