"""The checklist on runs of one experiment that differ in cost."""

import json
from pathlib import Path
from typing import Any

import evaluate
import pytorch_demo
from support.pipelines import PipelineRun
from support.scripts import call_main


def evaluate_run(folder: Path, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the answers of the checklist by question."""
    result = call_main(evaluate.main, "--run-id", run_id, folder=folder)
    assert result.code == 0, result
    answers = json.loads((folder / result.json["output_dir"] / "checklist.json").read_text())
    return {answer["question"]: answer for answer in answers}


def test_dearer_model_of_equal_accuracy_is_found(digits_pipeline: PipelineRun) -> None:
    """The network of the default run on digits has a thirtieth of a residual network's multiply-adds."""
    folder = digits_pipeline.folder
    options = ("--model", "resnet", "--augment", "none", "--epochs", 8)
    trained = call_main(pytorch_demo.main, "--dataset", "digits", *options, folder=folder)
    answers = evaluate_run(folder, trained.json["run_id"])
    (cheaper,) = answers["cost"]["figures"]["cheaper_runs"]
    assert answers["cost"]["verdict"] == "poor"
    assert cheaper["run_id"] == digits_pipeline.run_id
    assert cheaper["times_cheaper"] > 3
    assert answers["goal"]["figures"]["runs"] == 2
    assert evaluate_run(folder, digits_pipeline.run_id)["cost"]["verdict"] == "good"
