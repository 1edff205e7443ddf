import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.context import host_name, user_name
from pipeline.errors import UserError
from pipeline.promotion import decisions, effects
from pipeline.promotion.decision_tags import PendingDecision, write_decision, write_pending
from pipeline.promotion.decisions import (
    Decision,
    apply_decision,
    complete_unfinished_decisions,
    find_decision_in_force,
    force_unlock,
    list_decisions,
    record_candidate_decision,
    record_rollback,
)
from pipeline.promotion.lock import promotion_lock, read_tickets, remove_ticket
from pipeline.promotion.present import read_history
from pipeline.promotion.tag_values import warn_unreadable
from pipeline.tracking import artifacts, registry, runs, tags
from support.promotions import (
    MODEL_SHA256,
    NAME,
    build_candidate_decision,
    check_agreement,
    create_foreign_lock,
    decide,
    describe_dead_process,
    list_kinds,
    read_decision_runs,
    record_decision,
    register_version,
)
from support.stores import read_aliases, read_stages

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(autouse=True)
def first_version(store: object) -> None:
    """Register version 1."""
    warn_unreadable.cache_clear()
    register_version()


def read_statuses() -> list[str]:
    return [run.info.status for run in read_decision_runs()]


def read_pending() -> str | None:
    return tags.read_model_tags(NAME).get("decision.pending")


# --- what a decision changes ----------------------------------------------------------------------------------------


def test_promotion_moves_the_alias_and_the_stages() -> None:
    decide(1)
    register_version()
    decide(2)
    assert read_stages() == {1: "Archived", 2: "Production"}
    assert read_aliases() == {"champion": 2}


def test_promotion_of_an_older_version_leaves_the_challenger() -> None:
    register_version()
    decide(1)
    assert read_aliases() == {"champion": 1, "challenger": 2}


def test_refusal_moves_nothing() -> None:
    register_version()
    decide(1)
    decide(2, passes=False)
    assert read_stages() == {1: "Production", 2: "Staging"}
    assert read_aliases() == {"champion": 1, "challenger": 2}


def test_version_says_why_it_was_refused() -> None:
    refused = decide(1, passes=False)
    version = registry.get_version(NAME, 1)
    first, reason, link = str(version.description).split("\n\n")
    assert first.startswith("Refused on 20")
    assert reason == "because"
    assert refused.decision_run_id in link
    assert version.tags["gate.decision"] == "refused"
    assert "is below 0.99" in version.tags["gate.checks"]
    assert version.tags["gate.time"].startswith("20")
    assert version.tags["gate.model_sha256"] == MODEL_SHA256


@pytest.mark.parametrize(("passes", "kind"), [(True, "unchanged"), (False, "refused")])
def test_second_decision_leaves_the_champion_as_it_is(passes: bool, kind: str) -> None:
    decide(1)
    before = registry.get_version(NAME, 1)
    second = decide(1, passes=passes)
    after = registry.get_version(NAME, 1)
    assert (after.description, after.current_stage, after.aliases) == (
        before.description,
        before.current_stage,
        before.aliases,
    )
    assert set(after.tags.items()) - set(before.tags.items()) == {("decision.2", after.tags["decision.2"])}
    assert (second.kind, second.applied, list_kinds()) == (kind, True, ["promoted", kind])


def test_refusal_of_the_champion_keeps_its_digest() -> None:
    """Its file was exchanged, so the gate judged another model."""
    decide(1)
    candidate = build_candidate_decision(1, 1, passes=False)
    exchanged = replace(candidate, candidate=replace(candidate.candidate, model_sha256="e" * 64))
    with promotion_lock(NAME) as lock:
        apply_decision(NAME, record_candidate_decision(lock, exchanged, "because"))
    version = registry.get_version(NAME, 1)
    assert version.tags["gate.model_sha256"] == MODEL_SHA256
    in_force = find_decision_in_force(version)
    assert in_force is not None
    assert in_force.model_sha256 == MODEL_SHA256


def roll_back(target: Decision) -> Decision:
    with promotion_lock(NAME) as lock:
        return apply_decision(NAME, record_rollback(lock, target, registry.alias_version(NAME), "it was better"))


def test_rollback_restores_an_earlier_version() -> None:
    register_version()
    target = decide(1)
    decide(2)
    restored = roll_back(target)
    check_agreement(1)
    verdict = artifacts.read_json_artifact(restored.decision_run_id, "verdict.json")
    assert (verdict["promoted_by"], verdict["model_sha256"]) == (target.decision_run_id, MODEL_SHA256)
    assert registry.get_version(NAME, 1).tags["gate.checks"] == "none, by rollback"
    assert list_decisions(NAME)[-1] == restored


def test_rollback_carries_what_its_target_was_judged_on() -> None:
    register_version()
    target = decide(1)
    decide(2)
    restored = roll_back(target)
    assert (restored.model_sha256, restored.accuracy) == (MODEL_SHA256, 0.9)
    assert (restored.dataset, restored.dataset_digest) == ("digits", "d" * 64)


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_decision_has_a_run_with_its_files() -> None:
    decision_run_id = decide(1).decision_run_id
    run = runs.get_run(decision_run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "version 1 promoted")
    assert run.data.metrics == {"min_accuracy": 0.9}
    assert artifacts.list_artifact_paths(decision_run_id) == {"verdict.json", "verdict.md"}
    assert run.data.tags["mlflow.note.content"].startswith("# digits-classifier version 1: promoted")
    assert run.data.tags["mlflow.source.name"] == "promote.py"


def test_run_has_tags_for_people() -> None:
    run_tags = runs.get_run(decide(1).decision_run_id).data.tags
    assert (run_tags["decision.kind"], run_tags["decision.number"], run_tags["decision.version"]) == (
        "promoted",
        "1",
        "1",
    )
    assert (run_tags["decision.reason"], run_tags["decision.accuracy"]) == ("because", "0.9")
    assert "min_accuracy: 0.9" in run_tags["decision.checks"]


def test_verdict_for_programs_has_the_complete_record() -> None:
    verdict = artifacts.read_json_artifact(decide(1).decision_run_id, "verdict.json")
    expected = json.loads(json.dumps(build_candidate_decision(1, None).as_dict()))
    assert verdict.items() >= expected.items()
    assert (verdict["reason"], verdict["dataset"]) == ("because", "digits")
    assert (verdict["user"], verdict["host"], verdict["job_url"]) == (user_name(), host_name(), None)
    assert verdict["policy"]["rules"]["min_accuracy"] == 0.5
    assert verdict["policy"]["text"] == "[digits]\n"


def test_a_decision_reads_as_it_was_made() -> None:
    made = decide(1)
    (decision,) = list_decisions(NAME)
    assert decision == made
    assert (decision.number, decision.kind, decision.applied) == (1, "promoted", True)
    assert (decision.version, decision.previous_version) == (1, None)
    assert (decision.reason, decision.accuracy, decision.model_sha256) == ("because", 0.9, MODEL_SHA256)
    assert (decision.user, decision.host, decision.job_url) == (user_name(), host_name(), None)
    assert (decision.dataset, decision.dataset_digest, decision.signer) == ("digits", "d" * 64, "")
    assert abs(decision.time - datetime.now(UTC)) < timedelta(minutes=5)


def test_decisions_are_numbered_in_their_order() -> None:
    decide(1)
    for number in (2, 3):
        register_version()
        decide(number)
    decisions = list_decisions(NAME)
    assert [decision.number for decision in decisions] == [1, 2, 3]
    assert [decision.version for decision in decisions] == [1, 2, 3]
    assert [decision.previous_version for decision in decisions] == [None, 1, 2]


def test_secrets_in_a_reason_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "correct horse")
    decide(1, reason="the token is correct horse")
    (decision,) = list_decisions(NAME)
    assert decision.reason == "the token is ***"
    assert "correct horse" not in str(registry.get_version(NAME, 1).description)


def test_long_reason_is_complete_in_the_report_only() -> None:
    decision = decide(1, reason="x" * 6000)
    assert list_decisions(NAME)[0].reason == "x" * 2000
    assert len(str(registry.get_version(NAME, 1).description)) < 5000  # MySQL refuses more
    assert artifacts.read_json_artifact(decision.decision_run_id, "verdict.json")["reason"] == "x" * 6000


def test_reason_that_cannot_be_written_is_made_readable() -> None:
    decide(1, reason="a\0b\udc80c")
    assert list_decisions(NAME)[0].reason == "a?b?c"


def test_signature_is_a_file_of_the_report(tmp_path: Path) -> None:
    with promotion_lock(NAME) as lock:
        candidate = build_candidate_decision(1, None)
        recorded = record_candidate_decision(lock, candidate, "because", signature=b"signed", signer="ada's key")
        apply_decision(NAME, recorded)
    version = registry.get_version(NAME, 1)
    run_id = version.tags["gate.signature_run_id"]
    assert run_id == recorded.decision_run_id
    assert artifacts.download_artifact(run_id, "model.sig", tmp_path).read_bytes() == b"signed"
    assert list_decisions(NAME)[0].signer == "ada's key"
    assert artifacts.read_json_artifact(run_id, "verdict.json")["signer"] == "ada's key"


def test_later_decision_without_signature_keeps_the_first() -> None:
    with promotion_lock(NAME) as lock:
        candidate = build_candidate_decision(1, None)
        signed = record_candidate_decision(lock, candidate, "because", signature=b"signed", signer="ada's key")
        apply_decision(NAME, signed)
    register_version()
    decide(1)
    decide(2)
    restored = roll_back(signed)
    assert registry.get_version(NAME, 1).tags["gate.signature_run_id"] == signed.decision_run_id
    assert restored.signer == "ada's key"


# --- what is not a decision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [True, False])
def test_decision_without_the_lock_leaves_nothing(passes: bool) -> None:
    with promotion_lock(NAME) as lock:
        remove_ticket(NAME, lock.ticket)
        with pytest.raises(UserError, match="nothing has moved"):
            record_decision(lock, 1, passes=passes)
    check_nothing_is_left()


def check_nothing_is_left() -> None:
    assert read_aliases() == {"challenger": 1}
    assert read_decision_runs() == []
    assert (list_kinds(), read_pending(), read_tickets(NAME)) == ([], None, [])
    names = registry.get_version(NAME, 1).tags
    assert [name for name in names if name.startswith(("decision.", "gate."))] == []


@pytest.mark.parametrize("step", ["log_text", "write_pending", "write_decision"])
def test_interrupt_before_the_decision_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts if step == "log_text" else decisions, step, fail)
    with pytest.raises(KeyboardInterrupt):
        decide(1)
    check_nothing_is_left()


def test_alias_moved_by_a_person_meanwhile_stays() -> None:
    register_version()
    register_version()
    decide(1)
    candidate = build_candidate_decision(2, 1)
    MlflowClient().set_registered_model_alias(NAME, "champion", "3")
    with promotion_lock(NAME) as lock, pytest.raises(UserError, match="a person has moved the alias champion"):
        record_candidate_decision(lock, candidate, "because")
    assert (read_aliases()["champion"], list_kinds(), read_pending()) == (3, ["promoted"], None)


def test_account_that_may_not_remove_tags_leaves_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's permission EDIT sets a tag of a version, but does not remove one."""
    monkeypatch.setattr(tags, "delete_version_tag", lambda *_: False)
    with promotion_lock(NAME) as lock:
        remove_ticket(NAME, lock.ticket)
        with pytest.raises(UserError):
            record_decision(lock, 1)
    assert (list_kinds(), read_pending()) == ([], None)
    assert decide(1).number == 2


# --- what dead processes left ---------------------------------------------------------------------------------------


def leave_decision(version: int) -> Decision:
    """Record a decision as a process that dies before it moves the alias."""
    with promotion_lock(NAME) as lock:
        return record_decision(lock, version)


def leave_move(version: int, monkeypatch: pytest.MonkeyPatch) -> Decision:
    """Record a decision and move the alias, as a process that dies then."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    recorded = leave_decision(version)
    with monkeypatch.context() as patches:
        patches.setattr(effects, "write_decision", die)
        with pytest.raises(KeyboardInterrupt):
            apply_decision(NAME, recorded)
    return recorded


def test_decision_that_moved_nothing_is_withdrawn(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    leave_decision(1)
    complete_unfinished_decisions(NAME)
    assert read_aliases() == {"challenger": 1}
    assert (list_kinds(), read_pending(), read_statuses()) == ([], None, ["KILLED"])
    assert "decision.1" not in registry.get_version(NAME, 1).tags
    assert caplog.messages == ["an earlier promote.py died before it moved version 1 of digits-classifier"]


def test_decision_that_moved_the_alias_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = leave_move(1, monkeypatch)
    assert list_decisions(NAME) == [replace(recorded, applied=True)]  # before anybody has completed it
    complete_unfinished_decisions(NAME)
    check_agreement(1)
    assert (read_pending(), read_statuses()) == (None, ["FINISHED"])
    assert list_decisions(NAME) == [replace(recorded, applied=True)]
    version = registry.get_version(NAME, 1)
    assert (version.tags["gate.decision"], version.tags["gate.model_sha256"]) == ("promoted", MODEL_SHA256)
    assert find_decision_in_force(version) is not None


def test_completing_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_move(1, monkeypatch)
    complete_unfinished_decisions(NAME)
    before = dict(registry.get_version(NAME, 1)), tags.read_model_tags(NAME)
    complete_unfinished_decisions(NAME)
    assert (dict(registry.get_version(NAME, 1)), tags.read_model_tags(NAME)) == before


def test_decision_is_completed_without_its_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs.delete_run(leave_move(1, monkeypatch).decision_run_id)
    complete_unfinished_decisions(NAME)
    check_agreement(1)
    assert list_kinds() == ["promoted"]
    assert "stays as it is" in caplog.text
    assert str(registry.get_version(NAME, 1).description).endswith("because")


def test_alias_that_a_person_moved_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    register_version()
    register_version()
    decide(1)
    leave_move(2, monkeypatch)
    MlflowClient().set_registered_model_alias(NAME, "champion", "3")
    complete_unfinished_decisions(NAME)
    check_agreement(3)
    assert list_kinds() == ["promoted"]


def test_applied_decision_counts_although_a_person_moved_on() -> None:
    """A process died between the last two writes; then a person moved the alias."""
    register_version()
    decide(1)
    write_pending(NAME, PendingDecision(version=1, number=1))
    MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    complete_unfinished_decisions(NAME)
    check_agreement(2)
    assert (list_kinds(), read_pending()) == (["promoted"], None)


def test_stages_follow_an_alias_that_a_person_moved() -> None:
    register_version()
    decide(1)
    MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    complete_unfinished_decisions(NAME)
    assert read_stages() == {1: "Archived", 2: "Production"}


@pytest.mark.parametrize(
    "value", ["garbage", '{"version": 1, "number": 7}', '{"version": 99, "number": 1}'], ids=lambda value: value[:20]
)
def test_pending_decision_that_does_not_exist_is_forgotten(value: str) -> None:
    decide(1)
    tags.set_model_tag(NAME, "decision.pending", value)
    complete_unfinished_decisions(NAME)
    assert (read_pending(), list_kinds()) == (None, ["promoted"])
    check_agreement(1)


def test_decision_that_somebody_wrote_moves_nothing() -> None:
    """An account that may edit the model writes that version 2 is to be promoted."""
    register_version()
    first = decide(1)
    run_id = runs.create_run(runs.get_or_create_experiment(f"{NAME}-promotions"), {})
    forged = replace(first, number=9, version=2, previous_version=1, applied=False, decision_run_id=run_id)
    write_decision(NAME, forged)
    write_pending(NAME, PendingDecision(version=2, number=9))
    complete_unfinished_decisions(NAME)
    check_agreement(1)
    assert list_kinds() == ["promoted"]
    assert runs.get_run(run_id).info.status == "RUNNING"  # it is the report of nothing


def test_runs_that_no_decision_names_are_ignored() -> None:
    """A stranger has created the experiment first, with an open run that has the tags of a decision."""
    facts = {"kind": "promoted", "version": "1", "number": "7", "previous_version": "", "time": "2026-01-02T03:04:05"}
    run_tags = {f"decision.{name}": text for name, text in facts.items()}
    run_id = runs.create_run(runs.get_or_create_experiment(f"{NAME}-promotions"), run_tags)
    complete_unfinished_decisions(NAME)
    assert (read_aliases(), list_kinds()) == ({"challenger": 1}, [])
    assert runs.get_run(run_id).info.status == "RUNNING"
    assert decide(1).number == 1


# --- unlock ---------------------------------------------------------------------------------------------------------


def unlock() -> Decision:
    decision, _ = force_unlock(NAME, "the laptop was stolen")
    return decision


def test_unlock_removes_the_lock_and_is_recorded() -> None:
    create_foreign_lock()
    decision = unlock()
    assert read_tickets(NAME) == []
    assert list_decisions(NAME) == [decision]
    assert (decision.kind, decision.version, decision.model_sha256) == ("unlocked", None, "")
    assert (decision.reason, decision.user) == ("the laptop was stolen", user_name())
    assert read_statuses() == ["FINISHED"]


def test_unlock_records_whose_lock_it_was() -> None:
    holder = create_foreign_lock()
    decision_run_id = unlock().decision_run_id
    owner = "ada on laptop (process 4242, since 2026-11-17T12:00:00.000+00:00)"
    assert str(holder) == owner
    verdict = artifacts.read_json_artifact(decision_run_id, "verdict.json")
    assert verdict["lock_owner"] == owner
    run = runs.get_run(decision_run_id)
    assert run.info.run_name == "lock unlocked"
    assert f"The lock was that of {owner}" in run.data.tags["mlflow.note.content"]


def test_unlock_leaves_those_that_wait() -> None:
    create_foreign_lock(number=1)
    waiting = create_foreign_lock(number=2, user="bob")
    unlock()
    assert read_tickets(NAME) == [waiting]


@pytest.mark.parametrize("number", [0, 1])
def test_unlock_prefers_a_process_that_may_live(number: int) -> None:
    create_foreign_lock(number=2)
    dead = create_foreign_lock(number=number, process=describe_dead_process(), user="bob")
    unlock()
    assert read_tickets(NAME) == [dead]
    unlock()
    assert read_tickets(NAME) == []


def test_unlock_without_a_lock_is_an_error() -> None:
    with pytest.raises(UserError, match="digits-classifier is not locked"):
        force_unlock(NAME, "because")
    assert read_decision_runs() == []


def test_lock_released_before_the_unlock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = create_foreign_lock()
    log_text = artifacts.log_text

    def release_first(*arguments: str) -> None:
        remove_ticket(NAME, holder)
        log_text(*arguments)

    monkeypatch.setattr(artifacts, "log_text", release_first)
    with pytest.raises(UserError, match="has unlocked digits-classifier just now"):
        force_unlock(NAME, "because")
    check_nothing_is_left()


def test_unlock_is_not_part_of_the_history() -> None:
    decide(1)
    create_foreign_lock()
    unlock()
    assert [period.version for period in read_history(NAME)] == [1]
    check_agreement(1)


def test_next_decision_judges_anew_after_an_unlock() -> None:
    leave_decision(1)
    create_foreign_lock()
    unlock()
    decide(1)
    assert list_kinds() == ["unlocked", "promoted"]
    assert read_statuses() == ["KILLED", "FINISHED", "FINISHED"]
    check_agreement(1)


def test_dead_process_leaves_its_lock_to_the_next() -> None:
    create_foreign_lock(process=describe_dead_process())
    decide(1)
    check_agreement(1)
