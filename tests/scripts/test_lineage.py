"""lineage.py on a promoted model of digits, and on models of which less is known."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from prov.model import ProvDocument, ProvEntity

import lineage
import pytorch_demo
from support.pipelines import PipelineRun
from support.scripts import call_main

NAME = "digits-classifier"
WAYS_TO_NAME = (
    (),
    ("--model", f"{NAME}@champion"),
    ("--model-name", NAME, "--version", "@champion"),
    ("--version", 1),
)


def open_store(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def read_lineage(folder: Path, *options: object) -> dict[str, Any]:
    """Return what lineage.py prints with --json."""
    result = call_main(lineage.main, *options, "--json", folder=folder)
    assert result.code == 0, result
    return result.json


# --- a model in Production -------------------------------------------------------------------------------------------


def test_promoted_model_has_no_gap(digits_pipeline: PipelineRun) -> None:
    result = call_main(lineage.main, "--model", NAME, "--version", 1, folder=digits_pipeline.folder)
    assert (result.code, result.stderr) == (0, "")
    assert "UNANSWERED" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[-1] == "No question is unanswered."
    assert len(lines) < 60
    assert max(len(line) for line in lines) <= 140


def test_data_model_and_code_are_those_recorded(digits_pipeline: PipelineRun) -> None:
    answers = read_lineage(digits_pipeline.folder)
    run = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id)
    what, how = answers["what"], answers["how"]
    assert what["weights, SHA-256"] == run.data.tags["result.weights_sha256"]
    model_sha256 = run.data.tags["result.model_sha256"]
    assert what["files, SHA-256"] == f"{model_sha256} (the run, its evaluation, the decision)"
    assert what["test images"] == f"360, SHA-256 {run.data.params['test_digest']}"
    assert what["data from"].startswith("https://archive.ics.uci.edu/")
    assert what["model"] == f"{NAME} version 1, Production, alias champion"
    assert run.data.tags["code.commit"] in how["code"]
    assert how["command"] == "pytorch_demo.py --dataset digits --run-name 'lr 0.01'"
    assert "epochs 40" in how["parameters"]


def test_people_are_those_recorded(digits_pipeline: PipelineRun) -> None:
    answers = read_lineage(digits_pipeline.folder)
    tags = open_store(digits_pipeline.folder).get_run(digits_pipeline.run_id).data.tags
    user = tags["invocation.user"]
    assert answers["who"] == {"trained": user, "evaluated": user, "decided": user}


def test_reasons_are_those_recorded(digits_pipeline: PipelineRun) -> None:
    answers = read_lineage(digits_pipeline.folder)
    accuracy = digits_pipeline.evaluated.json["test_accuracy"]
    why = answers["why"]
    assert why["evaluation"].startswith(f"{accuracy:.2%} of 360 test images of digits")
    assert why["decision"] == "promoted: every check passed"
    assert why["compared with"] == "nothing was in Production"
    assert answers["checklist"] == digits_pipeline.evaluated.json["checklist"]
    (decision,) = answers["decisions"]
    assert decision["decision"] == "promoted"
    assert decision["decision_run_id"] == digits_pipeline.promoted.json["decision_run_id"]


def test_every_way_to_name_the_model_works(digits_pipeline: PipelineRun) -> None:
    expected = read_lineage(digits_pipeline.folder, "--run-id", digits_pipeline.run_id)
    assert expected["version"] == 1
    for options in WAYS_TO_NAME:
        assert read_lineage(digits_pipeline.folder, *options) == expected, options


def test_prov_file_says_the_same(digits_pipeline: PipelineRun) -> None:
    file = digits_pipeline.folder / "new" / "lineage.json"
    answers = read_lineage(digits_pipeline.folder, "--prov", file)
    assert json.loads(file.read_text())["prefix"]["mlflow"] == "urn:mlflow:"
    hashes = set()
    for record in ProvDocument.deserialize(str(file)).get_records(ProvEntity):
        hashes |= record.get_attribute("demo:weights_sha256")
    assert hashes == {answers["what"]["weights, SHA-256"]}


# --- less is known ---------------------------------------------------------------------------------------------------


def test_run_without_version_has_its_answers(digits_pipeline: PipelineRun) -> None:
    folder = digits_pipeline.folder
    options = ("--dataset", "digits", "--epochs", 1, "--no-register")
    run_id = call_main(pytorch_demo.main, *options, folder=folder).json["run_id"]
    answers = read_lineage(folder, "--run-id", run_id)
    assert (answers["model_name"], answers["version"]) == (None, None)
    assert answers["how"]["command"] == "pytorch_demo.py --dataset digits --epochs 1 --no-register"
    missing = {entry.partition(": ")[2] for entry in answers["unanswered"]}
    assert missing == {
        "evaluated",
        "decided",
        "registered",
        "evaluation",
        "checklist",
        "decision",
        "compared with",
    }


def test_changed_file_is_detected(digits_pipeline: PipelineRun) -> None:
    (file,) = (digits_pipeline.folder / "mlruns").rglob("model.pt2")
    file.write_bytes(file.read_bytes() + b"x")
    answers = read_lineage(digits_pipeline.folder)
    assert answers["what"]["files, SHA-256"].endswith("; NOT what the run and the decision recorded")
    assert answers["why"]["evaluation"] is None  # it is about another file
    assert answers["why"]["decision"] == "promoted: every check passed"


def test_deleted_run_is_named(digits_pipeline: PipelineRun) -> None:
    open_store(digits_pipeline.folder).delete_run(digits_pipeline.run_id)
    answers = read_lineage(digits_pipeline.folder)
    assert answers["run_id"] is None
    assert {"who: trained", "how: code", "what: data"} < set(answers["unanswered"])
    text = call_main(lineage.main, folder=digits_pipeline.folder).stdout
    assert f"run {digits_pipeline.run_id} was deleted" in text


def test_model_of_another_script_is_known_in_parts(store: Path) -> None:
    client = open_store(store)
    experiment_id = client.create_experiment("other")
    run_id = client.create_run(experiment_id).info.run_id
    client.log_param(run_id, "model", "regression")
    client.log_param(run_id, "train_size", "80%")
    client.set_tag(run_id, "mlflow.user", "somebody")
    client.set_terminated(run_id)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", f"runs:/{run_id}/model", run_id)

    answers = read_lineage(store, "--model", "foreign", "--version", 1)
    answered = set()
    for question in ("what", "who", "when", "where", "how", "why"):
        answered |= {f"{question}: {name}" for name, value in answers[question].items() if value}
    assert answered == {"what: model", "who: trained", "when: trained", "when: registered"}

    text = call_main(lineage.main, "--model", "foreign", "--version", 1, folder=store).stdout
    for source in ("tag result.weights_sha256", "parameter dataset", "tag code.commit"):
        assert f"UNANSWERED ({source})" in text, source
    assert "promote.py: nothing was decided" in text
    assert "is not the address of a logged model" in text


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--version 7", "there is no version 7 of a model 'digits-classifier'"),
        ("--version @nobody", "no version of 'digits-classifier' has the alias 'nobody'"),
        ("--model other", "there is no registered model 'other'; this store has digits-classifier"),
        ("--run-id 8f1c", "there is no run '8f1c' in this store"),
        ("--version 0", "--version '0' is neither a number nor an alias"),
        ("--version @", "--version '@' is neither a number nor an alias"),
        ("--model a@b --version 1", "names an alias; leave out --version"),
        ("--version 1 --run-id 8f1c", "not allowed with argument"),
        ("--prov missing/../../x/y.json --version 9", "there is no version 9"),
        ("--prov /proc/x.json", "cannot write to /proc"),
    ],
)
def test_bad_input_is_one_line(options: str, message: str, digits_pipeline: PipelineRun) -> None:
    assert message in call_main(lineage.main, *options.split(), folder=digits_pipeline.folder).error
