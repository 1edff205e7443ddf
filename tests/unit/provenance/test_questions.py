from collections.abc import Mapping
from dataclasses import fields, replace

import pytest

from pipeline.promotion.decisions import REFUSED
from pipeline.provenance.lineage import Lineage
from pipeline.provenance.questions import answer_questions, list_unanswered
from pipeline.training.config import TrainingConfig
from support.lineages import MODEL_SHA256, PARAMS, RUN_ID, TAGS, build_decision, build_lineage, build_run

EMPTY = Lineage(
    run=None,
    version=None,
    model_uri=None,
    model_sha256=None,
    evaluation=None,
    no_evaluation="run 8f1c was deleted",
    checklist=[],
    decisions=[],
    verdict={},
)


def read_answers(lineage: Lineage, question: str) -> dict[str, str | None]:
    return {name: fact.value for name, fact in answer_questions(lineage)[question].items()}


def change_run(tags: Mapping[str, str | None] | None = None, params: Mapping[str, str] | None = None) -> Lineage:
    """Return the lineage with these tags and parameters of the run changed; None removes a tag."""
    new_tags = {name: value for name, value in {**TAGS, **(tags or {})}.items() if value is not None}
    return replace(build_lineage(), run=build_run({**PARAMS, **(params or {})}, new_tags))


# --- the six questions -----------------------------------------------------------------------------------------------


def test_what_names_model_network_and_data() -> None:
    assert read_answers(build_lineage(), "what") == {
        "model": "digits-classifier version 1, Production, alias champion",
        "files, SHA-256": f"{MODEL_SHA256} (the run, its evaluation, the decision)",
        "weights, SHA-256": "5" * 64,
        "network": "cnn, 41,594 parameters",
        "data": "digits",
        "data from": None,
        "train images": f"1,257, SHA-256 {'1' * 64}",
        "validation images": f"180, SHA-256 {'2' * 64}",
        "test images": f"360, SHA-256 {'3' * 64}",
    }


def test_who_names_three_people() -> None:
    lineage = build_lineage()
    assert lineage.evaluation is not None
    assert read_answers(lineage, "who") == {
        "trained": "me",
        "evaluated": lineage.evaluation.user,
        "decided": "boss",
    }


def test_when_has_four_times() -> None:
    answers = read_answers(build_lineage(), "when")
    assert answers["trained"] == "2026-01-01 00:00:00 UTC to 2026-01-01 00:00:02 UTC, 2.5 s, FINISHED"
    assert answers["registered"] == "2026-01-01 00:00:03 UTC"
    assert str(answers["evaluated"]).endswith(" UTC")
    assert answers["decided"] == "2026-01-02 00:00:00 UTC"


def test_where_names_hosts_machine_and_device() -> None:
    lineage = build_lineage()
    assert lineage.evaluation is not None
    assert read_answers(lineage, "where") == {
        "trained": "laptop, no CI job",
        "machine": "Linux, EPYC",
        "device": "cpu, 2 threads, deterministic algorithms enforced: off",
        "evaluated": f"{lineage.evaluation.host}, no CI job",
        "decided": "server, https://ci.example.org/7",
    }


def test_how_names_code_command_and_environment() -> None:
    answers = read_answers(build_lineage(), "how")
    assert answers["code"] == "commit c0ffee, unchanged, branch main, remote none"
    assert answers["command"] == "pytorch_demo.py --dataset digits"
    assert answers["environment"] == f"Python 3.11.7, packages in provenance/packages.txt, SHA-256 {'4' * 64}"


def test_every_field_of_the_configuration_is_shown() -> None:
    lineage = build_lineage()
    parameters = str(read_answers(lineage, "how")["parameters"])
    assert parameters.startswith("epochs 3, lr 0.01, augment affine erase, limit None")
    assert parameters.endswith("seed 7, keep last, from_run None, weights_sha256 None, optimizer AdamW")
    elsewhere = {"dataset", "model", "device"}  # in the answers to what and where
    for field in fields(TrainingConfig):
        assert f"{field.name} " in parameters or field.name in elsewhere, field.name


def test_why_gives_evaluation_checklist_and_decision() -> None:
    answers = read_answers(build_lineage(), "why")
    assert str(answers["evaluation"]).startswith("75.00% of 4 test images of digits, 95% interval 30.06% to 95.44%")
    assert answers["checklist"] == "goal good, cost watch"
    assert answers["decision"] == "promoted: every check passed"
    assert answers["compared with"] == "nothing was in Production"


# --- special facts ---------------------------------------------------------------------------------------------------


def test_file_that_was_replaced_is_named() -> None:
    decision = build_decision(model_sha256="b" * 64)
    lineage = replace(build_lineage(), decisions=[decision])
    file = read_answers(lineage, "what")["files, SHA-256"]
    assert file == f"{MODEL_SHA256}; NOT what the decision recorded"


def test_cleaning_report_is_shown_if_there_is_one() -> None:
    answers = read_answers(change_run({"data.cleaning_report_sha256": "6" * 64}), "what")
    assert answers["cleaning report, SHA-256"] == "6" * 64


def test_gpu_is_named() -> None:
    lineage = change_run({"environment.gpu": "H100", "environment.deterministic_algorithms": "True"})
    device = read_answers(lineage, "where")["device"]
    assert device == "cpu (H100), 2 threads, deterministic algorithms enforced: on"


@pytest.mark.parametrize(
    ("tags", "answer"),
    [
        (
            {"code.dirty": "true", "code.patch": "complete"},
            "commit c0ffee, changed; patch complete, branch main, remote none",
        ),
        ({"code.commit": "unknown: git is not installed", "code.dirty": None}, "unknown: git is not installed"),
        (
            {"code.commit": None, "mlflow.source.git.commit": "decaf"},
            "commit decaf (from MLflow, which does not say whether the files were changed)",
        ),
        ({"code.commit": None}, None),
    ],
    ids=["changed", "no-git", "mlflow", "unknown"],
)
def test_code_is_described_as_far_as_known(tags: dict[str, str | None], answer: str | None) -> None:
    assert read_answers(change_run(tags), "how")["code"] == answer


def test_user_may_come_from_mlflow() -> None:
    lineage = change_run({"invocation.user": None, "mlflow.user": "somebody"})
    assert read_answers(lineage, "who")["trained"] == "somebody"


def test_size_that_is_no_number_is_unanswered() -> None:
    answers = read_answers(change_run(params={"train_size": "80%"}), "what")
    assert answers["train images"] is None


def test_move_by_hand_stands_beside_the_decision() -> None:
    lineage = replace(build_lineage(), decisions=[build_decision(REFUSED)], moved_by_hand="somebody moved it")
    assert read_answers(lineage, "why")["decision"] == "refused: every check passed; somebody moved it"
    undecided = replace(lineage, decisions=[])
    assert read_answers(undecided, "why")["decision"] == "none; somebody moved it"


def test_comparison_names_the_version_that_was_compared() -> None:
    lineage = replace(build_lineage(), verdict={"champion": {"version": 3}, "comparison": {"p": 0.25}})
    compared = read_answers(lineage, "why")["compared with"]
    assert compared == "version 3, the last one in Production by a decision, McNemar p 0.25"


@pytest.mark.parametrize(
    ("comparison", "answer"),
    [
        (None, "version 3"),
        ({"p": 0.0312}, "version 3, McNemar p 0.031"),
        ({"p": None}, "version 3"),
        (["somebody else's file"], "version 3"),
        ({"p": "small"}, "version 3"),
    ],
)
def test_comparison_names_the_other_version(comparison: object, answer: str) -> None:
    decision = build_decision(previous_version=3)
    lineage = replace(build_lineage(), decisions=[decision], verdict={"comparison": comparison})
    assert read_answers(lineage, "why")["compared with"] == answer


# --- what is missing -------------------------------------------------------------------------------------------------


def test_complete_lineage_has_one_gap() -> None:
    assert list_unanswered(answer_questions(build_lineage())) == ["what: data from"]


def test_nothing_is_invented_without_a_run() -> None:
    questions = answer_questions(EMPTY)
    count = sum(len(facts) for facts in questions.values())
    assert len(list_unanswered(questions)) == count


def test_gaps_say_who_would_record_them() -> None:
    questions = answer_questions(EMPTY)
    assert questions["what"]["weights, SHA-256"].source == "tag result.weights_sha256"
    assert questions["where"]["machine"].source == "tags environment.system, environment.cpu"
    assert questions["who"]["evaluated"].source == "evaluate.py: run 8f1c was deleted"
    assert questions["who"]["decided"].source == "pytorch_demo.py: not registered"


def test_registered_model_waits_for_promote() -> None:
    lineage = replace(build_lineage(), decisions=[])
    assert answer_questions(lineage)["why"]["decision"].source == "promote.py: nothing was decided"


def test_name_says_what_is_known() -> None:
    lineage = build_lineage()
    assert lineage.name == "digits-classifier version 1"
    assert replace(lineage, version=None).name == f"the model of run {RUN_ID}"
    assert EMPTY.name == "no model"
