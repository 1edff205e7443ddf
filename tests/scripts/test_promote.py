"""promote.py on a small store: what it prints, what it moves, what it refuses to do."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

import evaluate
import lineage
import predict
import promote
from pipeline.promotion import decisions, evidence, policy
from pipeline.promotion.champion import ChampionEvidence
from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.promotion.lock import read_tickets
from pipeline.promotion.tag_values import warn_unreadable
from pipeline.tracking import registry
from support.pipelines import PipelineRun
from support.promotions import (
    NAME,
    check_agreement,
    create_foreign_lock,
    describe_dead_process,
    list_kinds,
    read_decision_runs,
)
from support.scripts import ROOT, Result, call_main, run_script
from support.servers import find_free_port
from support.stores import delete_version_but_not_its_alias, move_alias, read_aliases, register_once_more

CHECKS = [
    "min_accuracy",
    "min_accuracy_lower_end",
    "min_class_recall",
    "max_loss",
    "max_generalisation_gap",
    "min_test_images",
    "max_test_overlap",
]
Promote = Callable[..., Result]


@pytest.fixture
def promote_here(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> Promote:
    """Return a function that calls promote.py on the store in which version 1 is in Production."""
    uri = f"sqlite:///{digits_pipeline.folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(digits_pipeline.folder)
    mlflow.set_tracking_uri(uri)
    warn_unreadable.cache_clear()
    return lambda *options: call_main(promote.main, *options)


@pytest.fixture
def second_version(promote_here: Promote, digits_pipeline: PipelineRun) -> int:
    """Register the model once more, as version 2."""
    return register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)


def read_registry() -> list[dict[str, object]]:
    """Return every version, without the tags and the time of its last change."""
    versions = [dict(version) for version in MlflowClient().search_model_versions()]
    for version in versions:
        del version["tags"], version["last_updated_timestamp"]
    return versions


# --- promote and refuse ---------------------------------------------------------------------------------------------


def test_promotion_prints_the_decision(digits_pipeline: PipelineRun) -> None:
    promoted = digits_pipeline.promoted
    assert (promoted.code, promoted.json["model_name"]) == (0, NAME)
    assert (promoted.json["version"], promoted.json["decision"]) == (1, "promoted")
    assert (promoted.json["previous_version"], promoted.json["champion"]) == (None, None)
    assert promoted.json["reason"] == "every check passed"
    assert [check["name"] for check in promoted.json["checks"]] == CHECKS
    assert len(promoted.stderr.splitlines()) == len(CHECKS)


def test_checks_use_the_recorded_evaluation(digits_pipeline: PipelineRun) -> None:
    accuracy = digits_pipeline.evaluated.json["test_accuracy"]
    check = digits_pipeline.promoted.json["checks"][0]
    assert (check["value"], check["threshold"], check["passed"]) == (accuracy, 0.95, True)
    assert digits_pipeline.promoted.json["candidate"]["accuracy"] == accuracy


def test_promotion_moves_version_and_alias(digits_pipeline: PipelineRun, promote_here: Promote) -> None:
    check_agreement(1)
    version = registry.get_version(NAME, 1)
    assert version.aliases == ["champion"]
    assert version.tags["gate.decision"] == "promoted"
    assert "min_accuracy: 0.9" in version.tags["gate.checks"]
    assert digits_pipeline.promoted.json["decision_run_id"] in str(version.description)


def test_second_promotion_changes_nothing(promote_here: Promote) -> None:
    before = read_registry()
    again = promote_here("--model-name", NAME, "--version", 1)
    assert (again.code, again.json["decision"]) == (0, "unchanged")
    assert read_registry() == before


def test_higher_floor_refuses_and_moves_nothing(digits_pipeline: PipelineRun, promote_here: Promote) -> None:
    before = read_registry()
    refused = promote_here("--run-id", digits_pipeline.run_id, "--min-accuracy", 0.9999)
    assert (refused.code, refused.json["decision"]) == (1, "refused")
    assert "is below 0.9999" in refused.stderr
    assert read_registry() == before


def test_refused_version_stays_in_staging(promote_here: Promote, second_version: int) -> None:
    refused = promote_here("--model-name", NAME, "--version", second_version, "--min-accuracy", 0.9999)
    assert refused.code == 1
    version = registry.get_version(NAME, second_version)
    assert (version.current_stage, version.aliases) == ("Staging", ["challenger"])
    assert version.tags["gate.decision"] == "refused"
    assert "is below 0.9999" in version.tags["gate.checks"]
    check_agreement(1)


def test_dry_run_writes_nothing(promote_here: Promote, second_version: int) -> None:
    before = read_registry()
    dry = promote_here("--model-name", NAME, "--version", second_version, "--dry-run")
    assert (dry.code, dry.json["decision"], dry.json["decision_run_id"]) == (0, "promoted", None)
    assert "version 2: would be promoted; min_accuracy" in dry.stderr
    assert read_registry() == before
    assert list_kinds() == ["promoted"]


def test_reason_of_a_person_is_recorded(promote_here: Promote, second_version: int) -> None:
    promoted = promote_here("--model-name", NAME, "--version", second_version, "--reason", "newer data")
    assert promoted.json["reason"] == "newer data"
    assert "newer data" in str(registry.get_version(NAME, second_version).description)


def test_candidate_is_compared_with_the_champion(promote_here: Promote, second_version: int) -> None:
    promoted = promote_here("--model-name", NAME, "--version", second_version)
    comparison = promoted.json["comparison"]
    assert (comparison["only_candidate"], comparison["only_champion"], comparison["p"]) == (0, 0, 1)
    assert promoted.json["champion"]["version"] == 1
    assert [check["name"] for check in promoted.json["checks"]] == [*CHECKS, "regression", "max_parameters_ratio"]


def test_champion_that_cannot_be_compared_needs_a_reason(
    promote_here: Promote, second_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = EvaluatedVersion(1, "8f1c", None, None)
    broken = ChampionEvidence(version, ("version 1 is broken",), requires_reason="version 1 is broken")
    monkeypatch.setattr(evidence, "gather_champion_evidence", lambda *_: broken)
    candidate = ("--model-name", NAME, "--version", second_version)
    assert "version 1 is broken; say with --reason why" in promote_here(*candidate).error
    assert "version 1 is broken; say with --reason why" in promote_here(*candidate, "--dry-run").error
    check_agreement(1)
    assert promote_here(*candidate, "--min-accuracy", 0.9999).code == 1  # it needs no reason to be refused
    promoted = promote_here(*candidate, "--reason", "its files are gone")
    assert (promoted.code, promoted.json["notices"]) == (0, ["version 1 is broken"])
    assert promoted.stderr.startswith("warning: version 1 is broken\n")
    check_agreement(2)


def test_champion_that_changes_meanwhile_is_compared_anew(
    promote_here: Promote, second_version: int, digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another promotion comes between the evaluation and the lock."""
    complete = decisions.complete_unfinished_decisions

    def promote_another_first(model_name: str) -> None:
        complete(model_name)
        MlflowClient().set_registered_model_alias(NAME, "champion", "2")
        registry.sync_stages(NAME)

    third = register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    monkeypatch.setattr(decisions, "complete_unfinished_decisions", promote_another_first)
    promoted = promote_here("--model-name", NAME, "--version", third, "--reason", "it was set by hand")
    assert promoted.json["previous_version"] == second_version
    check_agreement(third)


# --- history and rollback -------------------------------------------------------------------------------------------


def read_history(promote_here: Promote, *options: object) -> list[tuple[int | None, str, bool]]:
    """Return version, decision, and whether it is in Production now, of each row."""
    rows = promote_here("--history", "--json", *options).json["history"]
    return [(row["version"], row["decision"], row["until"] is None) for row in rows]


def test_history_for_programs_has_every_period(promote_here: Promote, digits_pipeline: PipelineRun) -> None:
    result = promote_here("--history", "--json").json
    assert set(result) == {"model_name", "history"}
    (row,) = result["history"]
    assert (row["version"], row["until"], row["decision"]) == (1, None, "promoted")
    assert row["decision_run_id"] == digits_pipeline.promoted.json["decision_run_id"]
    assert row["accuracy"] == digits_pipeline.evaluated.json["test_accuracy"]


def test_history_at_a_time(promote_here: Promote, second_version: int) -> None:
    between = datetime.now(UTC).isoformat()
    promote_here("--model-name", NAME, "--version", second_version)
    assert read_history(promote_here) == [(1, "promoted", False), (2, "promoted", True)]
    assert read_history(promote_here, "--at", between) == [(1, "promoted", False)]
    assert read_history(promote_here, "--at", "2001-01-01") == []
    assert "nothing was in Production at 2001-01-01" in promote_here("--history", "--at", "2001-01-01").stdout


def test_rollback_undoes_a_promotion(promote_here: Promote, second_version: int) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    back = promote_here("--rollback", "--reason", "it dreams of sheep")
    assert (back.json["version"], back.json["previous_version"], back.json["decision"]) == (1, 2, "rolled back")
    assert back.json["decision_run_id"]
    check_agreement(1)
    assert read_history(promote_here)[-1] == (1, "rolled back", True)
    assert "no earlier version" in promote_here("--rollback", "--reason", "more").error


def test_rollback_goes_to_a_named_version(promote_here: Promote, second_version: int) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    promote_here("--rollback", "--reason", "a mistake")
    assert promote_here("--rollback", "--to", 2, "--reason", "it was right").code == 0
    check_agreement(2)


def test_rollback_refuses_a_changed_file(promote_here: Promote, second_version: int) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    (file,) = Path("mlruns").rglob("model.pt2")
    file.write_bytes(file.read_bytes() + b"\0")
    assert "is not the model that its registration recorded" in promote_here("--rollback", "--reason", "x").error
    assert list_kinds() == ["promoted", "promoted"]


def test_history_for_people_is_a_table(promote_here: Promote, second_version: int) -> None:
    promote_here("--model-name", NAME, "--version", second_version, "--reason", "it is blue")
    lines = promote_here("--history").stdout.splitlines()
    assert lines[0] == "digits-classifier in Production, times in UTC"
    assert lines[1].split() == ["version", "from", "until", "decision", "decided_by", "reason", "accuracy", "signer"]
    assert len(lines) == 4
    assert "it is blue" in lines[-1]
    assert " now " in lines[-1]


def test_history_says_if_a_person_moved_the_alias(promote_here: Promote, second_version: int) -> None:
    MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    history = promote_here("--history")
    assert history.stderr.startswith("warning: version 2 is in Production because somebody moved the alias champion")
    assert history.stdout.splitlines()[-1].split()[:2] == ["2", "after"]
    assert "moved by hand" in history.stdout
    *_, by_hand = promote_here("--history", "--json").json["history"]
    assert (by_hand["version"], by_hand["decision"], by_hand["decided_by"]) == (2, "moved by hand", None)
    assert by_hand["from"] < by_hand["known_from"]
    assert (by_hand["until"], by_hand["known_until"]) == (None, None)


def test_history_says_if_a_person_removed_the_alias(promote_here: Promote) -> None:
    move_alias(None)
    assert "none after" in promote_here("--history").stdout
    assert read_history(promote_here)[-1] == (None, "removed by hand", True)


def test_history_names_a_deleted_version(
    promote_here: Promote, second_version: int, digits_pipeline: PipelineRun
) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    third = register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    promote_here("--model-name", NAME, "--version", third)
    MlflowClient().delete_model_version(NAME, str(second_version))
    versions = [(version, decision) for version, decision, _ in read_history(promote_here)]
    assert versions == [(1, "promoted"), (2, "not known"), (3, "promoted")]


# --- moves by hand --------------------------------------------------------------------------------------------------


def test_undecided_champion_needs_a_reason(
    promote_here: Promote, second_version: int, digits_pipeline: PipelineRun
) -> None:
    third = register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    move_alias(second_version)
    refused = promote_here("--model-name", NAME, "--version", third)
    assert refused.code == 2
    assert "error: version 2 was put in Production by hand" in refused.stderr
    judged = promote_here("--model-name", NAME, "--version", second_version)
    assert (judged.json["decision"], judged.json["champion"]["version"]) == ("unchanged", 1)
    promoted = promote_here("--model-name", NAME, "--version", third)
    assert (promoted.code, promoted.json["notices"]) == (0, [])


def test_rollback_that_changes_nothing_is_refused(promote_here: Promote, second_version: int) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    move_alias(1)
    refused = promote_here("--rollback", "--to", 1, "--reason", "x")
    assert refused.code == 2
    assert "error: version 1 of digits-classifier is in Production already" in refused.stderr
    back = promote_here("--rollback", "--to", 2, "--reason", "x")
    assert (back.code, back.json["previous_version"]) == (0, 1)
    check_agreement(2)


def test_alias_of_a_deleted_version_blocks_nothing(
    promote_here: Promote, second_version: int, digits_pipeline: PipelineRun
) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    delete_version_but_not_its_alias(digits_pipeline.folder, second_version)
    third = register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    promoted = promote_here("--model-name", NAME, "--version", third)
    assert (promoted.json["previous_version"], promoted.json["champion"]["version"]) == (None, 1)
    assert promoted.stderr.count("which was deleted, so it counts as not set") == 1
    check_agreement(third)


def test_read_of_a_deleted_champion_is_one_line(promote_here: Promote, digits_pipeline: PipelineRun) -> None:
    delete_version_but_not_its_alias(digits_pipeline.folder, 1)
    deleted = "the alias champion of 'digits-classifier' points to version 1, which was deleted"
    assert deleted in call_main(lineage.main).error
    assert deleted in call_main(predict.main, "picture.png").error
    assert deleted in call_main(evaluate.main, "--model-uri", f"models:/{NAME}@champion").error


# --- the lock -------------------------------------------------------------------------------------------------------


def test_promotion_waits_no_longer_than_told(promote_here: Promote) -> None:
    create_foreign_lock()
    error = promote_here("--model-name", NAME, "--version", 1, "--wait", 0).error
    assert "ada on laptop (process 4242, since 2026-11-17" in error
    assert "--unlock --model-name digits-classifier" in error
    assert list_kinds() == ["promoted"]


def test_rollback_waits_no_longer_than_told(promote_here: Promote) -> None:
    create_foreign_lock()
    assert "still decides about" in promote_here("--rollback", "--reason", "x", "--wait", 0).error


def test_dry_run_and_history_need_no_lock(promote_here: Promote) -> None:
    create_foreign_lock()
    assert promote_here("--model-name", NAME, "--version", 1, "--dry-run").code == 0
    assert promote_here("--history").code == 0


def test_unlock_removes_the_lock(promote_here: Promote) -> None:
    create_foreign_lock()
    result = promote_here("--unlock", "--reason", "the laptop was stolen")
    assert (result.code, result.json["decision"], result.json["version"]) == (0, "unlocked", None)
    assert result.json["lock_owner"].startswith("ada on laptop")
    assert read_tickets(NAME) == []
    assert result.json["decision_run_id"] == read_decision_runs()[-1].info.run_id
    assert promote_here("--model-name", NAME, "--version", 1).code == 0


def test_lock_of_a_dead_process_is_no_obstacle(promote_here: Promote) -> None:
    create_foreign_lock(process=describe_dead_process())
    result = promote_here("--model-name", NAME, "--version", 1, "--wait", 0)
    assert result.code == 0
    assert "has ended; its lock of digits-classifier is removed" in result.stderr


def test_unlock_without_a_lock_is_an_error(promote_here: Promote) -> None:
    assert "digits-classifier is not locked" in promote_here("--unlock", "--reason", "x").error


# --- what others write ----------------------------------------------------------------------------------------------


def test_run_that_says_promoted_promotes_nothing(promote_here: Promote, second_version: int) -> None:
    """An open run of the experiment, which anybody may create first, says that a refused version was promoted."""
    refused = promote_here("--model-name", NAME, "--version", second_version, "--min-accuracy", 0.9999)
    client = MlflowClient()
    report = client.get_run(refused.json["decision_run_id"])
    forged_tags = {**report.data.tags, "decision.kind": "promoted", "decision.number": "9"}
    forged = client.create_run(report.info.experiment_id, tags=forged_tags)
    assert promote_here("--model-name", NAME, "--version", 1).json["decision"] == "unchanged"
    check_agreement(1)
    assert read_history(promote_here) == [(1, "promoted", True)]
    assert client.get_run(forged.info.run_id).info.status == "RUNNING"


def test_unreadable_tags_block_nothing(promote_here: Promote, second_version: int) -> None:
    promote_here("--model-name", NAME, "--version", second_version)
    client = MlflowClient()
    for tag in ("decision.77", f"promoting.{'a' * 32}", "decision.pending", "decision.count"):
        client.set_registered_model_tag(NAME, tag, "garbage")
    client.set_model_version_tag(NAME, "1", "decision.78", "{" * 90_000)
    history = promote_here("--history")
    assert history.code == 0
    assert [line.split(" is ")[0] for line in history.stderr.splitlines()] == [
        "warning: the tag 'decision.pending' of digits-classifier",
        "warning: the tag 'decision.77' of digits-classifier",
        "warning: the tag 'decision.78' of digits-classifier version 1",
    ]
    assert promote_here("--rollback", "--reason", "x").code == 0
    assert promote_here("--model-name", NAME, "--version", second_version).json["decision"] == "promoted"
    check_agreement(second_version)


# --- what it refuses to believe -------------------------------------------------------------------------------------


def test_replaced_model_file_is_refused(promote_here: Promote) -> None:
    (file,) = Path("mlruns").rglob("model.pt2")
    file.write_bytes(file.read_bytes() + b"\0")
    error = promote_here("--model-name", NAME, "--version", 1, "--min-accuracy", 0).error
    assert "is not the model that its registration recorded" in error


def test_altered_record_is_refused(promote_here: Promote) -> None:
    (file,) = Path("mlruns").rglob("evaluation.json")
    record: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "accuracy": 1.0}))
    error = promote_here("--model-name", NAME, "--version", 1).error
    assert "says accuracy 1.0, its predictions give 0.99" in error
    assert "run: python evaluate.py --run-id" in error


def test_missing_record_names_the_command(promote_here: Promote, digits_pipeline: PipelineRun) -> None:
    (file,) = Path("mlruns").rglob("evaluation.json")
    file.unlink()
    error = promote_here("--run-id", digits_pipeline.run_id).error
    assert f"run: python evaluate.py --run-id {digits_pipeline.run_id} --log-mlflow" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "gates.toml (No such file"),
        ("[digits]\nmin_accuracy = 95\n", "gates.toml, table [digits]: min_accuracy = 95 should be"),
    ],
)
def test_bad_policy_is_named(
    promote_here: Promote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    file = tmp_path / "gates.toml"
    monkeypatch.setattr(policy, "POLICY_FILE", file)
    if text is not None:
        file.write_text(text)
    assert message in promote_here("--model-name", NAME, "--version", 1).error
    assert read_aliases()["champion"] == 1


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "one of the arguments --run-id --version --history --rollback --unlock is required"),
        ("--version 3", "--version needs --model-name"),
        ("--run-id x --min-accuracy 98", "'98' is not a number of at least 0 and at most 1"),
        ("--run-id x --new-test-set", "--new-test-set needs --reason, which the record keeps"),
        ("--history --new-test-set", "--new-test-set does not go with"),
        ("--rollback --reason x --new-test-set", "--new-test-set does not go with"),
        ("--run-id x --wait -1", "'-1' is not a number of at least 0"),
        ("--run-id x", "there is no run 'x'"),
        ("--model-name nobody --version 3", "no version 3 of a model 'nobody'"),
        ("--rollback", "--rollback needs --reason"),
        ("--rollback --reason x", "this store has none: train one first"),
        ("--rollback --reason x --json", "--json does not go with"),
        ("--unlock", "--unlock needs --reason"),
        ("--unlock --reason x", "this store has none: train one first"),
        ("--unlock --reason x --wait 0", "--wait does not go with"),
        ("--history --at yesterday", "'yesterday' is not a time such as"),
        ("--history --model-name nobody", "no registered model 'nobody'"),
        ("--history --dry-run", "--dry-run does not go with"),
        ("--history --min-accuracy 0", "--min-accuracy does not go with"),
        ("--history --wait 0", "--wait does not go with"),
        ("--run-id x --to 3", "--to does not go with"),
        ("--run-id x --rollback", "not allowed with argument"),
        ("--history --signing-key x", "--signing-key does not go with"),
        ("--rollback --reason x --sign-keyless", "--sign-keyless does not go with"),
        ("--run-id x --signing-key x --sign-keyless", "not allowed with argument"),
    ],
)
def test_bad_options_are_one_line(store: Path, options: str, message: str) -> None:
    assert message in call_main(promote.main, *options.split()).error
    assert read_decision_runs() == []


def test_script_runs_as_a_process(digits_pipeline: PipelineRun) -> None:
    result = run_script(digits_pipeline.folder, "promote.py", "--model-name", NAME, "--version", 1)
    assert (result.code, result.json["decision"]) == (0, "unchanged")


def test_missing_server_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = find_free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.chdir(tmp_path)
    error = call_main(promote.main, "--run-id", "x").error
    assert f"nothing answers at http://127.0.0.1:{port}" in error
    assert "secret" not in error


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, promote; print([name for name in ('mlflow', 'numpy', 'pydantic') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
