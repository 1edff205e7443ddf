from dataclasses import replace

import pytest

from pipeline.errors import UserError
from pipeline.provenance import lineage as module
from pipeline.provenance.lineage import gather_lineage
from pipeline.tracking import artifacts, loading, models, runs
from pipeline.tracking.runs import Run
from support.lineages import (
    MODEL_SHA256,
    MODEL_URI,
    RUN_ID,
    build_decision,
    build_evaluation_record,
    build_run,
    build_version,
)

FILES: dict[tuple[str, str], object] = {
    (RUN_ID, "evaluation/checklist.json"): [{"question": "goal", "verdict": "good"}],
    ("d3c1", "verdict.json"): {"comparison": None, "decision": "promoted"},
}


def raise_user_error(*arguments: str) -> str:
    raise UserError("it is not there")


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store have a run with a model, its evaluation, and a decision."""
    monkeypatch.setattr(runs, "get_run", lambda run_id: build_run())
    monkeypatch.setattr(models, "find_model_uri", lambda run_id: MODEL_URI)
    monkeypatch.setattr(loading, "compute_identity", lambda uri: "b" * 64)
    monkeypatch.setattr(artifacts, "read_json_artifact", lambda run_id, path: FILES.get((run_id, path)))
    monkeypatch.setattr(loading, "read_model", lambda reference: None)
    monkeypatch.setattr(module, "load_evaluation", lambda run_id, model: build_evaluation_record())
    monkeypatch.setattr(module, "list_decisions", lambda name: [build_decision()])


def test_version_has_everything() -> None:
    lineage = gather_lineage(build_version(), None)
    assert lineage.params["lr"] == "0.01"
    assert lineage.tags["invocation.user"] == "me"
    assert (lineage.model_uri, lineage.model_sha256) == (MODEL_URI, MODEL_SHA256)
    assert lineage.checklist == FILES[RUN_ID, "evaluation/checklist.json"]
    assert lineage.last_decision == build_decision()
    assert lineage.verdict == FILES["d3c1", "verdict.json"]


def test_run_that_is_not_registered_has_no_decisions() -> None:
    lineage = gather_lineage(None, RUN_ID)
    assert lineage.version is None
    assert lineage.model_uri == MODEL_URI
    assert (lineage.decisions, lineage.verdict) == ([], {})


def test_decisions_about_other_versions_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    unlocked = replace(build_decision("unlocked"), version=None)
    monkeypatch.setattr(module, "list_decisions", lambda name: [unlocked, replace(build_decision(), version=2)])
    assert gather_lineage(build_version(), None).last_decision is None


@pytest.mark.parametrize(("run_id", "verdict"), [("", None), ("d3c1", ["somebody else's file"])])
def test_decision_without_its_report_has_no_verdict(
    monkeypatch: pytest.MonkeyPatch, run_id: str, verdict: object
) -> None:
    monkeypatch.setattr(module, "list_decisions", lambda name: [replace(build_decision(), decision_run_id=run_id)])
    monkeypatch.setitem(FILES, ("d3c1", "verdict.json"), verdict)
    lineage = gather_lineage(build_version(), None)
    assert (len(lineage.decisions), lineage.verdict) == (1, {})


def test_missing_evaluation_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_evaluation", raise_user_error)
    lineage = gather_lineage(build_version(), None)
    assert lineage.evaluation is None
    assert lineage.no_evaluation == "it is not there"
    assert lineage.model_sha256 == "b" * 64  # of the file, as it is now


def test_deleted_run_leaves_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "get_run", raise_user_error)
    lineage = gather_lineage(build_version(), None)
    assert lineage.run is None
    assert (lineage.params, lineage.tags, lineage.data_urls) == ({}, {}, None)
    assert lineage.last_decision == build_decision()


def test_run_without_model_has_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_model_uri", raise_user_error)
    lineage = gather_lineage(None, RUN_ID)
    assert isinstance(lineage.run, Run)
    assert (lineage.model_uri, lineage.model_sha256) == (None, None)


def test_file_that_cannot_be_read_has_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_evaluation", raise_user_error)
    monkeypatch.setattr(loading, "compute_identity", raise_user_error)
    assert gather_lineage(build_version(), None).model_sha256 is None
