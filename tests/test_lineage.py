import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Pipeline, call, run_script
from mlflow import MlflowClient
from prov.model import ProvActivity, ProvDerivation, ProvDocument, ProvEntity, ProvRecord

import lineage

NAME = "digits-classifier"
QUESTIONS = ("what", "who", "when", "where", "how", "why")

FOREIGN = """
import mlflow, numpy
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
model = LogisticRegression().fit(numpy.eye(2), [0, 1])
with mlflow.start_run():
    mlflow.log_param("model", "regression")
    mlflow.log_param("train_size", "80%")
    mlflow.sklearn.log_model(model, name="model", registered_model_name="foreign",
                             signature=infer_signature(numpy.eye(2)), pip_requirements=["scikit-learn"])
"""


def answers(folder: Path, *options: object) -> dict[str, Any]:
    result = call(lineage.main, *options, "--json", folder=folder)
    assert result.code == 0, result
    return result.json


def test_a_promoted_model_leaves_no_question_unanswered(pipeline: Pipeline) -> None:
    result = run_script(pipeline.folder, "lineage.py", "--model", NAME, "--version", 1)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 140
    assert [line.split()[0].lower() for line in lines if line[:1].isupper() and line[:4].isupper()] == list(QUESTIONS)
    assert "UNANSWERED" not in result.stdout
    assert lines[-1] == "No question is unanswered."
    steps = [line.strip().removeprefix("-> ").partition(":")[0] for line in lines[-7:-2]]
    assert steps == ["data", "training", "model", "evaluation", "decision"]


def test_the_answers_are_those_that_were_recorded(pipeline: Pipeline) -> None:
    about = answers(pipeline.folder, "--model", NAME, "--version", 1)
    assert about["unanswered"] == []
    run = MlflowClient(f"sqlite:///{pipeline.folder}/mlflow.db").get_run(pipeline.run_id)
    assert about["what"]["weights, SHA-256"] == run.data.tags["result.weights_sha256"]
    file = f"{run.data.tags['result.model_sha256']} (the run, its evaluation, the decision)"
    assert about["what"]["file, SHA-256"] == file
    assert about["what"]["test images"] == f"360, SHA-256 {run.data.params['test_digest']}"
    assert about["what"]["data from"].startswith("https://archive.ics.uci.edu/")
    assert about["what"]["model"] == f"{NAME} version 1, Production, alias champion"
    assert about["who"] == dict.fromkeys(("trained", "evaluated", "decided"), run.data.tags["invocation.user"])
    assert run.data.tags["code.commit"] in about["how"]["code"]
    assert about["how"]["command"] == "pytorch_demo.py --dataset digits --run-name 'lr 0.01'"
    assert "epochs 20" in about["how"]["parameters"]
    accuracy = pipeline.evaluated.json["test_accuracy"]
    assert about["why"]["evaluation"].startswith(f"{accuracy:.2%} of 360 test images of digits")
    assert about["why"]["decision"] == "promoted: every check passed"
    assert about["why"]["compared with"] == "nothing was in Production"
    assert about["checklist"] == pipeline.evaluated.json["checklist"]
    assert [each["decision"] for each in about["decisions"]] == ["promoted"]


def test_every_way_to_name_the_model_leads_to_it(pipeline: Pipeline) -> None:
    ways = ((), ("--model", f"{NAME}@champion"), ("--model-name", NAME, "--version", "@champion"), ("--version", 1))
    first, *others = (answers(pipeline.folder, *way) for way in (*ways, ("--run-id", pipeline.run_id)))
    assert first["version"] == 1
    assert others == [first] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--version 7", "there is no version 7 of a model 'digits-classifier'"),
        ("--version @nobody", "no version of 'digits-classifier' has the alias 'nobody'"),
        ("--model other", "there is no registered model 'other'; this store has digits-classifier"),
        ("--run-id 8f1c", "there is no run '8f1c' in this store"),
        ("--version 0", "--version '0' is neither a number nor an alias"),
        ("--model a@b --version 1", "names an alias; leave out --version"),
        ("--prov missing/../../x/y.json --version 9", "there is no version 9"),
        ("--prov /proc/x.json", "cannot write to /proc"),
    ],
)
def test_what_is_not_there_is_named(options: str, message: str, pipeline: Pipeline) -> None:
    assert message in call(lineage.main, *options.split(), folder=pipeline.folder).error


def test_of_a_model_by_a_foreign_script_what_is_missing_is_named(tmp_path: Path, empty_store: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    env = os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", FOREIGN], cwd=tmp_path, env=env, check=True, capture_output=True)
    about = answers(tmp_path, "--model", "foreign", "--version", 1)
    answered = {f"{question}: {name}" for question in QUESTIONS for name, said in about[question].items() if said}
    assert answered == {"what: model", "who: trained", "when: trained", "when: registered"}
    assert {"what: data", "what: train images", "how: code", "how: command", "why: decision"} < set(about["unanswered"])

    text = call(lineage.main, "--model", "foreign", "--version", 1, folder=tmp_path).stdout
    for missing in ("tags result.weights_sha256", "parameter dataset", "tag code.commit", "nothing was decided"):
        assert f"UNANSWERED ({missing}" in text or missing in text, missing
    assert "evaluate.py: run" in text and "has no recorded evaluation" in text
    assert "-> decision: (unanswered)" in text
    assert text.splitlines()[-1].startswith("Unanswered: what: file, SHA-256; ")


def test_a_run_without_a_registered_model_has_its_own_answers(pipeline: Pipeline) -> None:
    options = ("--dataset", "digits", "--epochs", 1, "--no-register")
    run_id = run_script(pipeline.folder, "pytorch_demo.py", *options).json["run_id"]
    about = answers(pipeline.folder, "--run-id", run_id)
    assert (about["model_name"], about["version"]) == (None, None)
    assert about["how"]["command"] == "pytorch_demo.py --dataset digits --epochs 1 --no-register"
    assert about["unanswered"] == [
        "who: evaluated",
        "who: decided",
        "when: registered",
        "when: evaluated",
        "when: decided",
        "where: evaluated",
        "where: decided",
        "why: evaluation",
        "why: checklist",
        "why: decision",
        "why: compared with",
    ]


def test_a_changed_file_and_a_lost_run_are_seen(pipeline: Pipeline) -> None:
    (file,) = (pipeline.folder / "mlruns").rglob("model.pt2")
    file.write_bytes(file.read_bytes() + b"x")
    about = answers(pipeline.folder)
    assert about["what"]["file, SHA-256"].endswith("; NOT what the run and the decision recorded")
    assert about["why"]["evaluation"] is None  # it is of another file
    assert about["why"]["decision"] == "promoted: every check passed"

    MlflowClient(f"sqlite:///{pipeline.folder}/mlflow.db").delete_run(pipeline.run_id)
    about = answers(pipeline.folder)
    assert about["run_id"] is None
    assert {"who: trained", "how: code", "what: data"} < set(about["unanswered"])
    text = call(lineage.main, folder=pipeline.folder).stdout
    assert f"run {pipeline.run_id} was deleted" in text


def test_prov_json_can_be_read_and_says_the_same(pipeline: Pipeline) -> None:
    file = pipeline.folder / "new" / "lineage.json"
    about = answers(pipeline.folder, "--prov", file)
    document = ProvDocument.deserialize(str(file))
    assert json.loads(file.read_text())["prefix"]["mlflow"] == "urn:mlflow:"

    def found(kind: type[ProvRecord], start: str) -> list[Any]:
        return [each for each in document.get_records(kind) if str(each.identifier or "").startswith(start)]

    def attribute(record: Any, name: str) -> str:
        return str(next(iter(record.get_attribute(name))))

    (model,) = found(ProvEntity, "mlflow:model/")
    assert attribute(model, "demo:weights_sha256") == about["what"]["weights, SHA-256"]
    (training,) = found(ProvActivity, f"mlflow:run/{pipeline.run_id}")
    assert (training.get_endTime() - training.get_startTime()).total_seconds() > 1
    (evaluation,) = found(ProvEntity, "demo:evaluation/")
    assert float(attribute(evaluation, "demo:accuracy")) == pipeline.evaluated.json["test_accuracy"]
    (decision,) = found(ProvEntity, "demo:decision/")
    assert attribute(decision, "demo:decision") == "promoted"
    assert len(found(ProvEntity, "demo:data/")) == 3
    assert len(found(ProvEntity, "demo:code/")) == 1
    assert len(list(document.get_records(ProvDerivation))) == 2  # from training and validation images
