import json
from dataclasses import replace

from pipeline.provenance.lineage_text import format_lineage, lineage_as_dict
from support.lineages import MODEL_URI, RUN_ID, build_decision, build_lineage

QUESTIONS = ["WHAT", "WHO", "WHEN", "WHERE", "HOW", "WHY"]


def test_text_has_the_six_questions() -> None:
    lines = format_lineage(build_lineage()).splitlines()
    assert lines[0] == "digits-classifier version 1"
    headings = [line.split()[0] for line in lines if line.split() and line.split()[0] in QUESTIONS]
    assert headings == QUESTIONS
    assert len(lines) < 60


def test_lines_of_facts_are_wrapped() -> None:
    text = format_lineage(build_lineage(), width=90)
    facts, _, _ = text.partition("\n\ndata: ")
    assert max(len(line) for line in facts.splitlines()) <= 90


def test_gap_names_its_source() -> None:
    text = format_lineage(build_lineage())
    assert "data from         UNANSWERED (an input with a URL)" in text
    assert text.splitlines()[-1] == "Unanswered: what: data from"


def test_graph_leads_from_data_to_decisions() -> None:
    lineage = replace(build_lineage(), decisions=[build_decision("refused"), build_decision()])
    graph = format_lineage(lineage).splitlines()[-8:-2]
    assert graph[0] == "data: digits, 1,257 training images"
    assert graph[1].startswith(f"   -> training: run {RUN_ID}, 2026-01-01")
    assert graph[2] == "      -> model: digits-classifier version 1, Production, alias champion"
    assert graph[3].startswith("         -> evaluation: 75.00% of 4 test images")
    assert graph[4] == "            -> decision: 2026-01-02 00:00:00 UTC refused by boss"
    assert graph[5] == "            -> decision: 2026-01-02 00:00:00 UTC promoted by boss"


def test_graph_shows_steps_that_are_missing() -> None:
    lineage = replace(build_lineage(), decisions=[], evaluation=None)
    graph = format_lineage(lineage).splitlines()[-7:-2]
    assert graph[-2:] == ["         -> evaluation: (unanswered)", "            -> decision: (unanswered)"]


def test_json_has_answers_and_records() -> None:
    lineage = build_lineage()
    result = lineage_as_dict(lineage)
    assert (result["model_name"], result["version"]) == ("digits-classifier", 1)
    assert (result["run_id"], result["model_uri"]) == (RUN_ID, MODEL_URI)
    assert result["who"]["decided"] == "boss"
    assert result["unanswered"] == ["what: data from"]
    assert result["evaluation"]["accuracy"] == 0.75
    assert result["checklist"] == {"goal": "good", "cost": "watch"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_json_names_the_run_of_each_decision() -> None:
    (decision,) = lineage_as_dict(build_lineage())["decisions"]
    assert decision == {
        "time": "2026-01-02 00:00:00 UTC",
        "decision": "promoted",
        "user": "boss",
        "reason": "every check passed",
        "decision_run_id": "d3c1",
    }


def test_json_of_an_unregistered_model_has_nulls() -> None:
    lineage = replace(build_lineage(), version=None, evaluation=None, decisions=[])
    result = lineage_as_dict(lineage)
    assert (result["model_name"], result["version"], result["evaluation"]) == (None, None, None)
    assert result["why"]["decision"] is None
