"""predict.py on digits, asked of the model in Production."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import predict
from pipeline.data.datasets import load_test_split
from support.pipelines import PipelineRun
from support.scripts import Result, call_main


@pytest.fixture
def labels() -> list[int]:
    labels: list[int] = load_test_split("digits", Path()).labels.tolist()
    return labels


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return the test images of digits as files."""
    folder = tmp_path / "digits"
    folder.mkdir()
    files = []
    for index, image in enumerate(load_test_split("digits", Path()).images):
        files.append(folder / f"{index:05d}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    return files


def ask(run: PipelineRun, *arguments: object) -> Result:
    return call_main(predict.main, *arguments, folder=run.folder)


def list_values(result: Result, key: str) -> list[Any]:
    """Return a value of each image in the answer."""
    return [image[key] for image in result.json["images"]]


# --- answers --------------------------------------------------------------------------------------------------------


def test_model_in_production_answers(digits_pipeline: PipelineRun, files: list[Path]) -> None:
    result = ask(digits_pipeline, *files[:3])
    assert result.code == 0
    answer = result.json
    assert len(answer.pop("images")) == 3
    assert answer == {
        "model_name": "digits-classifier",
        "model_version": 1,
        "model_uri": "models:/digits-classifier/1",
        "model_sha256": digits_pipeline.promoted.json["candidate"]["model_sha256"],
        "signer": "",
        "run_id": digits_pipeline.run_id,
        "failed": 0,
    }


def test_accuracy_is_that_of_the_evaluation(digits_pipeline: PipelineRun, files: list[Path], labels: list[int]) -> None:
    result = ask(digits_pipeline, *files)
    assert list_values(result, "file") == [str(file) for file in files]
    is_correct = np.array(list_values(result, "prediction")) == labels
    assert is_correct.mean() == pytest.approx(digits_pipeline.evaluated.json["test_accuracy"])


def test_answer_has_the_three_most_probable(digits_pipeline: PipelineRun, files: list[Path], labels: list[int]) -> None:
    (image,) = ask(digits_pipeline, files[0]).json["images"]
    first, second, third = image["top"]
    assert image["class_name"] == first["class_name"] == str(labels[0])
    assert image["probability"] == first["probability"]
    assert first["probability"] >= second["probability"] >= third["probability"]
    assert image["model_version"] == 1


def test_log_has_a_line_for_each_picture(digits_pipeline: PipelineRun, files: list[Path], labels: list[int]) -> None:
    lines = ask(digits_pipeline, *files[:3]).stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{files[0]}: {labels[0]} ({labels[0]} ")


def test_model_is_named_in_several_ways(digits_pipeline: PipelineRun, files: list[Path]) -> None:
    ways: list[tuple[str, str]] = [
        ("--run-id", digits_pipeline.run_id),
        ("--model-uri", "models:/digits-classifier@champion"),
        ("--model-uri", "models:/digits-classifier/1"),
        ("--model-uri", digits_pipeline.model_uri),
        ("--model-name", "digits-classifier"),
    ]
    expected = list_values(ask(digits_pipeline, *files[:3]), "top")
    versions = []
    for option, value in ways:
        result = ask(digits_pipeline, *files[:3], option, value)
        versions.append(result.json["model_version"])
        assert list_values(result, "top") == expected
    assert versions == [1, 1, 1, None, 1]


def test_unsure_answer_has_no_prediction(digits_pipeline: PipelineRun, files: list[Path]) -> None:
    sure = ask(digits_pipeline, *files)
    result = ask(digits_pipeline, *files, "--min-confidence", 0.99)
    is_sure = [probability >= 0.99 for probability in list_values(sure, "probability")]
    for key in ("prediction", "class_name"):
        values = list_values(sure, key)
        expected = [value if kept else None for value, kept in zip(values, is_sure, strict=True)]
        assert list_values(result, key) == expected
    assert list_values(result, "top") == list_values(sure, "top")
    assert 0 < sum(is_sure) < len(files)
    assert result.stderr.count(": not sure (") == is_sure.count(False)


# --- pictures that cannot be used -----------------------------------------------------------------------------------


def test_bad_picture_does_not_stop_the_rest(
    digits_pipeline: PipelineRun, files: list[Path], labels: list[int], tmp_path: Path
) -> None:
    text, blank, missing = (tmp_path / name for name in ("text.png", "blank.png", "missing.jpg"))
    text.write_text("no picture")
    Image.new("L", (200, 200), 255).save(blank)
    result = ask(digits_pipeline, text, files[0], tmp_path, blank, missing, files[1])
    assert (result.code, result.json["failed"]) == (2, 4)
    images = result.json["images"]
    assert ["error" in image for image in images] == [True, False, True, True, True, False]
    assert [images[1]["prediction"], images[5]["prediction"]] == labels[:2]
    assert "only" in images[3]["error"]
    assert "No such file" in images[4]["error"]
    assert f"{text}: error: it is not a picture in PNG, JPEG, BMP, GIF, TIFF, WEBP" in result.stderr


def test_bad_picture_alone_is_answered(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    result = ask(digits_pipeline, tmp_path / "text.png")
    assert (result.code, result.json["failed"], len(result.json["images"])) == (2, 1, 1)


# --- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_saved(digits_pipeline: PipelineRun, files: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    ask(digits_pipeline, *files[:2], text, files[0], "--save", tmp_path / "saved")
    first, second, third = sorted((tmp_path / "saved").iterdir())
    assert [first.name, second.name, third.name] == ["0-00000.png", "1-00001.png", "3-00000.png"]
    assert first.read_bytes() == third.read_bytes() != second.read_bytes()
    assert Image.open(first).size == (900, 320)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_empty_store_is_an_error(store: Path, files: list[Path]) -> None:
    assert "this store has none: train one first" in call_main(predict.main, files[0]).error


def test_unknown_model_is_an_error(digits_pipeline: PipelineRun, files: list[Path]) -> None:
    error = ask(digits_pipeline, files[0], "--model-name", "nobody").error
    assert error.startswith("error: there is no registered model 'nobody'; this store has digits-classifier")


def test_missing_champion_is_an_error(
    digits_pipeline: PipelineRun, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digits_pipeline.folder / "before.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{before}")
    error = call_main(predict.main, files[0]).error
    assert error.startswith("error: no version of 'digits-classifier' is in Production; promote one")
