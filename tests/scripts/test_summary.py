"""The job summary of the workflow, without the scripts that it sums up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.datasets import Dataset
from pipeline.evaluation.metrics import Evaluation
from support.evaluations import record_evaluation
from support.scripts import ROOT

CLASSES = ("T-shirt/top", "Ankle boot")
TRAINED = {"run_id": "f00d", "dataset": "clothes", "test_accuracy": 0.9, "test_loss": 0.5, "training_seconds": 1.5}
CHECK = {"name": "min_accuracy", "value": 0.6667, "champion": None, "threshold": 0.5, "passed": True}
PROMOTED = {
    "model_name": "clothes-classifier",
    "version": 4,
    "decision": "promoted",
    "previous_version": 3,
    "checks": [CHECK],
    "reason": "every check passed",
    "notices": ["new test set: clothes"],
    "signer": "key SHA-256 ab12...",
}
FILES = ("train.json", "evaluate.json", "promote.json")


@pytest.fixture
def evaluated(tmp_path: Path) -> dict[str, Any]:
    """Write the reports of a model that has two of three images right; return what evaluate.py prints."""
    labels = torch.tensor([0, 0, 1])
    test = Dataset("clothes", torch.zeros(3, 1, 28, 28, dtype=torch.uint8), labels, CLASSES, "")
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    record = record_evaluation(Evaluation(CLASSES, labels.numpy(), probabilities), test, images_per_second=1234.5)
    record.write(tmp_path)
    answer = {"question": "goal", "verdict": "watch", "sentences": ["It is above the floor.", "Perhaps."]}
    (tmp_path / "checklist.json").write_text(json.dumps([answer]))
    return {"output_dir": str(tmp_path)}


def summarize(folder: Path, *results: dict[str, Any], python: tuple[str, ...] = ()) -> str:
    """Return the summary of what the first scripts printed; the others did not finish."""
    for name, result in zip(FILES, results, strict=False):
        (folder / name).write_text(json.dumps(result))
    command = [sys.executable, *python, str(ROOT / ".github" / "summary.py"), *FILES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_decision_names_both_versions(tmp_path: Path, evaluated: dict[str, Any]) -> None:
    summary = summarize(tmp_path, TRAINED, evaluated, PROMOTED)
    assert "**Promoted.** clothes-classifier version 4 is in Production; before: version 3." in summary
    assert "| min_accuracy | 0.6667 | - | 0.5000 | passed |" in summary
    assert "every check passed" in summary
    assert "**Notice:** new test set: clothes" in summary
    assert "Signed by key SHA-256 ab12..." in summary


def test_missing_signature_is_said(tmp_path: Path, evaluated: dict[str, Any]) -> None:
    assert "Not signed" in summarize(tmp_path, TRAINED, evaluated, PROMOTED | {"signer": ""})


def test_sections_show_the_record(tmp_path: Path, evaluated: dict[str, Any]) -> None:
    lines = summarize(tmp_path, TRAINED, evaluated, PROMOTED).splitlines()
    assert "| accuracy | 0.6667 |" in lines
    assert "| images per second | 1,234 |" in lines
    assert "| goal | **watch** | It is above the floor. Perhaps. |" in lines
    assert "| truth \\ prediction | T-shirt/top | Ankle boot |" in lines
    assert "| **T-shirt/top** | 1 | 1 |" in lines
    assert "| **Ankle boot** | 0 | 1 |" in lines


def test_stopped_evaluation_leaves_training_metrics(tmp_path: Path) -> None:
    summary = summarize(tmp_path, TRAINED)
    assert "**No decision.** evaluate.py did not finish" in summary
    assert "| accuracy | 0.9000 |" in summary


def test_summary_appears_if_nothing_is_installed(tmp_path: Path) -> None:
    summary = summarize(tmp_path, python=("-I", "-S"))  # without the packages of this environment
    assert "**No decision.** pytorch_demo.py did not finish" in summary
