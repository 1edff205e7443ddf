import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import PREDICTIONS_FILE, RECORD_FILE, EvaluationRecord
from support.evaluations import record_evaluation

CLASSES = ("cat", "dog")
IMAGES = 100
CORRECT = 90


@pytest.fixture
def evaluation() -> Evaluation:
    """Return a model that is right on the first 90 of 100 cats and dogs."""
    labels = np.arange(IMAGES) % 2
    predictions = np.where(np.arange(IMAGES) < CORRECT, labels, 1 - labels)
    return Evaluation(CLASSES, labels, np.eye(2)[predictions] * 0.8 + 0.1)


def build(evaluation: Evaluation) -> EvaluationRecord:
    images = torch.zeros(len(evaluation.labels), 1, 28, 28, dtype=torch.uint8)
    test = Dataset("pets", images, torch.from_numpy(evaluation.labels), evaluation.classes, "")
    return record_evaluation(evaluation, test)


@pytest.fixture
def folder(tmp_path: Path, evaluation: Evaluation) -> Path:
    """Return a directory with the record that evaluate.py writes."""
    build(evaluation).write(tmp_path)
    return tmp_path


def read(folder: Path) -> EvaluationRecord:
    return EvaluationRecord.read(folder, "run x")


def edit_record(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change ``evaluation.json``."""
    file = folder / RECORD_FILE
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def edit_predictions(folder: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change ``predictions.csv``, and its hash in ``evaluation.json``."""
    file = folder / PREDICTIONS_FILE
    table = pd.read_csv(file, index_col=0)
    edit(table).to_csv(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    edit_record(folder, lambda content: content.update(predictions_sha256=digest))


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_record_reads_as_it_was_written(folder: Path, evaluation: Evaluation) -> None:
    record = read(folder)
    assert (record.model_id, record.parameters, record.dataset) == ("m-1", 7, "pets")
    assert (record.samples, record.accuracy, record.loss) == (IMAGES, 0.9, evaluation.loss)
    assert record.classes["cat"].f1 == evaluation.class_f1[0]
    assert np.array_equal(record.evaluation.labels, evaluation.labels)
    assert np.allclose(record.evaluation.probabilities, evaluation.probabilities)


def test_record_file_keeps_its_documented_keys(folder: Path, evaluation: Evaluation) -> None:
    content = json.loads((folder / RECORD_FILE).read_text())
    low, high = evaluation.interval
    assert content["accuracy_interval"] == {"confidence": 0.95, "low": low, "high": high}
    assert set(content["classes"]["cat"]) == {"precision", "recall", "f1-score", "support"}
    assert set(content["macro"]) == {"precision", "recall", "f1"}
    assert {"python", "torch", "mlflow"} <= set(content["versions"])
    assert "evaluation" not in content


def test_predictions_have_a_row_for_each_image(folder: Path) -> None:
    lines = (folder / PREDICTIONS_FILE).read_text().splitlines()
    assert lines[0] == "index,label,prediction,cat,dog"
    assert lines[1] == "0,0,0,0.9,0.1"
    assert len(lines) == IMAGES + 1


def test_a_record_knows_when_it_was_made(folder: Path) -> None:
    assert read(folder).evaluated_at.tzinfo is not None


def test_a_class_may_be_named_label(tmp_path: Path, evaluation: Evaluation) -> None:
    classes = ("label", "prediction")
    build(Evaluation(classes, evaluation.labels, evaluation.probabilities)).write(tmp_path)
    assert read(tmp_path).evaluation.classes == classes


def test_certain_mistakes_can_be_recorded(tmp_path: Path) -> None:
    evaluation = Evaluation(CLASSES, np.array([0, 1]), np.eye(2)[[0, 0]])
    build(evaluation).write(tmp_path)
    assert read(tmp_path).loss == pytest.approx(evaluation.loss)


def list_logits() -> list[Tensor]:
    """Return logits of untrained, usual and broken models, float32 [100, 10]."""
    random = torch.Generator().manual_seed(0)
    logits = [torch.zeros(IMAGES, 10)]
    for scale in (1e-12, 1e-8, 1e-4, 1.0, 100.0, 745.0, 1e4, 1e37):
        logits.append(torch.randn(IMAGES, 10, generator=random) * scale)
    return logits


@pytest.mark.parametrize("logits", list_logits(), ids=lambda logits: f"{logits.abs().max():.0e}")
def test_record_of_a_bad_model_is_read_back(tmp_path: Path, logits: Tensor) -> None:
    evaluation = Evaluation.from_logits(logits, torch.arange(IMAGES) % 10, tuple("0123456789"))
    build(evaluation).write(tmp_path)
    record = read(tmp_path)
    assert record.loss == evaluation.loss
    assert np.array_equal(record.evaluation.probabilities, evaluation.probabilities)


def test_largest_loss_is_read_back(tmp_path: Path) -> None:
    logits = torch.tensor([[1e4, -1e4]] * 100)
    evaluation = Evaluation.from_logits(logits, torch.ones(100, dtype=torch.int64), CLASSES)
    build(evaluation).write(tmp_path)
    assert read(tmp_path).loss == evaluation.loss > 700


def test_many_classes_are_read_back(tmp_path: Path) -> None:
    classes = tuple(str(index) for index in range(1000))
    evaluation = Evaluation.from_logits(torch.zeros(100, 1000), torch.arange(100), classes)
    build(evaluation).write(tmp_path)
    edit_predictions(tmp_path, lambda table: table.map(lambda value: float(f"{value:.9g}") if value % 1 else value))
    assert read(tmp_path).accuracy == evaluation.accuracy


def test_overlap_is_recorded(tmp_path: Path, evaluation: Evaluation) -> None:
    record = build(evaluation)
    assert record.overlap is None
    record.model_copy(update={"overlap": 3}).write(tmp_path)
    assert read(tmp_path).overlap == 3


def test_record_without_an_overlap_is_read(folder: Path) -> None:
    edit_record(folder, lambda content: content.pop("overlap"))
    assert read(folder).overlap is None


def test_unknown_keys_are_ignored(folder: Path) -> None:
    edit_record(folder, lambda content: content.update(weather="fine"))
    assert read(folder).accuracy == 0.9


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("accuracy", 0.91, "evaluation.json of run x says accuracy 0.91, its predictions give 0.9: it was altered"),
        ("loss", 0.1, "says loss 0.1, its predictions give"),
        ("samples", 99, "says samples 99"),
        ("accuracy_interval", {"confidence": 0.95, "low": 0.89, "high": 0.91}, "says lower end of the interval 0.89"),
        ("macro", {"precision": 1.0, "recall": 1.0, "f1": 1.0}, "says macro precision 1.0"),
        ("confusions", [], "has confusions that its predictions do not give: it was altered"),
    ],
)
def test_a_figure_that_does_not_follow_is_refused(folder: Path, key: str, value: object, message: str) -> None:
    edit_record(folder, lambda content: content.update({key: value}))
    with pytest.raises(UserError, match=message):
        read(folder)


@pytest.mark.parametrize("score", ["precision", "recall", "f1-score", "support"])
def test_an_altered_class_score_is_refused(folder: Path, score: str) -> None:
    edit_record(folder, lambda content: content["classes"]["cat"].update({score: 1.0}))
    name = score.removesuffix("-score")
    with pytest.raises(UserError, match=f"says {name} of class 'cat' 1.0"):
        read(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accuracy", math.nan),
        ("accuracy", None),
        ("accuracy", "0.9"),
        ("accuracy", True),
        ("accuracy", 1.1),
        ("loss", math.inf),
        ("loss", -1),
        ("samples", 100.5),
        ("parameters", -1),
        ("overlap", -1),
        ("overlap", 0.5),
        ("images_per_second", 0),
        ("model_sha256", "abc"),
        ("dataset_digest", 7),
        ("dataset", None),
        ("macro", {}),
        ("classes", []),
        ("time", "yesterday"),
    ],
)
def test_a_value_of_another_type_is_refused(folder: Path, key: str, value: object) -> None:
    edit_record(folder, lambda content: content.update({key: value}))
    with pytest.raises(UserError, match="of run x"):
        read(folder)


def test_a_missing_key_is_named(folder: Path) -> None:
    edit_record(folder, lambda content: content.pop("dataset_digest"))
    with pytest.raises(UserError, match=r"evaluation.json of run x is damaged \(dataset_digest: Field required\)"):
        read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "7", "null", "{}"])
def test_a_damaged_record_is_refused(folder: Path, text: str) -> None:
    (folder / RECORD_FILE).write_text(text)
    with pytest.raises(UserError, match=r"evaluation.json of run x is damaged"):
        read(folder)


@pytest.mark.parametrize("file", [RECORD_FILE, PREDICTIONS_FILE])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"{file} of run x cannot be read"):
        read(folder)


def test_predictions_of_another_record_are_refused(folder: Path) -> None:
    with (folder / PREDICTIONS_FILE).open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"predictions.csv of run x is not the one that evaluation.json was written"):
        read(folder)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", 2),
        ("label", -1),
        ("label", 0.5),
        ("label", "cat"),
        ("prediction", "cat"),
        ("prediction", 9),
        ("cat", "high"),
        ("cat", math.nan),
        ("cat", 1.5),
        ("cat", -0.5),
    ],
)
def test_a_table_with_other_values_is_refused(folder: Path, column: str, value: object) -> None:
    edit_predictions(folder, lambda table: table.assign(**{column: value}))
    with pytest.raises(UserError, match=r"predictions.csv of run x"):
        read(folder)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.8), (0.2, 0.9), (0.0, 0.0)])
def test_probabilities_have_to_sum_to_one(folder: Path, low: float, high: float) -> None:
    edit_predictions(folder, lambda table: table.replace({0.1: low, 0.9: high}))
    with pytest.raises(UserError, match=rf"the probabilities of image 0 sum to {low + high:.9g}, not to 1"):
        read(folder)


def test_a_table_of_other_classes_is_refused(folder: Path) -> None:
    edit_predictions(folder, lambda table: table.assign(owl=0.0))
    with pytest.raises(UserError, match=r"not a table of labels, .* 5 columns for 2 classes"):
        read(folder)


def test_an_empty_table_is_refused(folder: Path) -> None:
    edit_predictions(folder, lambda table: table.head(0))
    with pytest.raises(UserError, match="not a table of labels"):
        read(folder)


def test_a_prediction_that_is_not_most_probable_is_refused(folder: Path) -> None:
    edit_predictions(folder, lambda table: table.assign(prediction=table["label"]))
    with pytest.raises(UserError, match="not the most probable class: it was altered"):
        read(folder)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[" * 10_000, '{"classes": 7}', '{"classes": {"\\ud800": {}}}', "9" * 5000]
)
def test_hostile_json_is_damage(folder: Path, text: str) -> None:
    (folder / RECORD_FILE).write_text(text)
    with pytest.raises(UserError, match=r"evaluation.json of run x is damaged \("):
        read(folder)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "9999-12-31", "2026-99-01"])
def test_time_of_no_evaluation_is_refused(folder: Path, time: str) -> None:
    edit_record(folder, lambda content: content.update(time=time))
    with pytest.raises(UserError, match=r"is damaged \(time: "):
        read(folder)


def test_columns_of_other_classes_are_refused(folder: Path) -> None:
    edit_predictions(folder, lambda table: table.rename(columns={"cat": "dog", "dog": "cat"}))
    with pytest.raises(UserError, match="its columns are not the classes, in their order"):
        read(folder)


def test_class_that_begins_as_a_formula_is_text_in_a_spreadsheet(tmp_path: Path, evaluation: Evaluation) -> None:
    classes = ("=cmd|' /C calc'!A0", "@sum")
    build(Evaluation(classes, evaluation.labels, evaluation.probabilities)).write(tmp_path)
    assert (tmp_path / PREDICTIONS_FILE).read_text().startswith("index,label,prediction,'=cmd|' /C calc'!A0,'@sum\n")
    assert read(tmp_path).evaluation.classes == classes
