import json
from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from pipeline.context import host_name, user_name
from pipeline.errors import UserError
from pipeline.promotion.decisions import (
    Decision,
    apply_decision,
    complete_unfinished_decisions,
    force_unlock,
    list_decisions,
    record_rollback,
)
from pipeline.promotion.history import production_history
from pipeline.promotion.lock import promotion_lock, read_lock_owner
from pipeline.tracking import artifacts, registry, runs
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


def read_statuses() -> list[str]:
    return [run.info.status for run in read_decision_runs()]


# --- what a decision changes ----------------------------------------------------------------------------------------


def test_promotion_moves_the_alias_and_the_stages() -> None:
    register_version()
    decide(1)
    register_version()
    decide(2)
    assert read_stages() == {1: "Archived", 2: "Production"}
    assert read_aliases() == {"champion": 2}


def test_promotion_of_an_older_version_leaves_the_challenger() -> None:
    register_version()
    register_version()
    decide(1)
    assert read_aliases() == {"champion": 1, "challenger": 2}


def test_refusal_moves_nothing() -> None:
    register_version()
    register_version()
    decide(1)
    decide(2, passes=False)
    assert read_stages() == {1: "Production", 2: "Staging"}
    assert read_aliases() == {"champion": 1, "challenger": 2}


def test_version_says_why_it_was_refused() -> None:
    register_version()
    decision_run_id = decide(1, passes=False)
    version = registry.get_version(NAME, 1)
    first, reason, link = str(version.description).split("\n\n")
    assert first.startswith("Refused on 20")
    assert reason == "because"
    assert decision_run_id in link
    assert version.tags["gate.decision"] == "refused"
    assert "is below 0.99" in version.tags["gate.checks"]
    assert version.tags["gate.time"].startswith("20")


@pytest.mark.parametrize(("passes", "kind"), [(True, "unchanged"), (False, "refused")])
def test_second_decision_leaves_the_champion_as_it_is(passes: bool, kind: str) -> None:
    register_version()
    decide(1)
    before = registry.get_version(NAME, 1)
    decide(1, passes=passes)
    assert dict(registry.get_version(NAME, 1)) == dict(before)
    assert [decision.kind for decision in list_decisions(NAME)] == ["promoted", kind]


def test_rollback_restores_an_earlier_version() -> None:
    register_version()
    register_version()
    decide(1)
    decide(2)
    target = list_decisions(NAME)[0]
    with promotion_lock(NAME) as lock:
        decision_run_id, record = record_rollback(lock, target, "it was better")
        apply_decision(NAME, decision_run_id)
    check_agreement(1)
    assert record["promoted_by"] == target.decision_run_id
    assert registry.get_version(NAME, 1).tags["gate.checks"] == "none, by rollback"


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_decision_is_a_run_with_its_files() -> None:
    register_version()
    decision_run_id = decide(1)
    run = runs.get_run(decision_run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "version 1 promoted")
    assert run.data.metrics == {"min_accuracy": 0.9}
    assert artifacts.list_artifact_paths(decision_run_id) == {"verdict.json", "verdict.md"}
    assert run.data.tags["mlflow.note.content"].startswith("# digits-classifier version 1: promoted")
    assert run.data.tags["mlflow.source.name"] == "promote.py"


def test_verdict_for_programs_has_the_complete_record() -> None:
    register_version()
    verdict = artifacts.read_json_artifact(decide(1), "verdict.json")
    expected = json.loads(json.dumps(build_candidate_decision(1, None).as_dict()))
    assert verdict.items() >= expected.items()
    assert (verdict["reason"], verdict["dataset"]) == ("because", "digits")
    assert (verdict["user"], verdict["host"], verdict["job_url"]) == (user_name(), host_name(), None)
    assert verdict["policy"]["rules"] == {"min_accuracy": 0.5, "alpha": 0.05}
    assert verdict["policy"]["text"] == "[digits]\n"


def test_a_decision_reads_as_it_was_made() -> None:
    register_version()
    decision_run_id = decide(1)
    (decision,) = list_decisions(NAME)
    assert (decision.number, decision.kind) == (1, "promoted")
    assert (decision.version, decision.previous_version) == (1, None)
    assert (decision.reason, decision.accuracy, decision.model_sha256) == ("because", 0.9, MODEL_SHA256)
    assert (decision.user, decision.host, decision.job_url) == (user_name(), host_name(), None)
    assert decision.decision_run_id == decision_run_id
    assert abs(decision.time - datetime.now(UTC)) < timedelta(minutes=5)


def test_decisions_are_numbered_in_their_order() -> None:
    for number in (1, 2, 3):
        register_version()
        decide(number)
    decisions = list_decisions(NAME)
    assert [decision.number for decision in decisions] == [1, 2, 3]
    assert [decision.version for decision in decisions] == [1, 2, 3]
    assert [decision.previous_version for decision in decisions] == [None, 1, 2]


def test_model_without_decisions_has_none() -> None:
    register_version()
    assert list_decisions(NAME) == []


def test_decision_of_an_earlier_release_is_read() -> None:
    """The tags are those that promote.py wrote before it had a lock."""
    register_version()
    facts = {"version": "2", "previous_version": "1", "reason": "because", "accuracy": "0.9", "model_sha256": "f00d"}
    context = {"user": "ada", "host": "laptop", "time": "2026-01-02T03:04:05.678+00:00", "kind": "promoted"}
    tags = {f"decision.{name}": text for name, text in {**facts, **context}.items()}
    tags |= {"decision.number": "7", "decision.owner": "4242 boot pid:[1]", "decision.waiting": "15 s"}
    decision_run_id = runs.create_run(runs.get_or_create_experiment(f"{NAME}-promotions"), tags)
    time = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert list_decisions(NAME) == [
        Decision(7, "promoted", 2, 1, time, "ada", "laptop", None, "because", 0.9, "f00d", decision_run_id)
    ]


# --- what is not a decision -----------------------------------------------------------------------------------------


def test_decision_without_the_lock_moves_nothing() -> None:
    register_version()
    with promotion_lock(NAME) as lock:
        lock.remove()
        with pytest.raises(UserError, match="nothing has moved"):
            record_decision(lock, 1)
    assert read_aliases() == {"challenger": 1}
    assert read_decision_runs() == []


def test_failure_before_the_decision_leaves_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    register_version()
    monkeypatch.setattr(artifacts, "log_text", fail)
    with pytest.raises(KeyboardInterrupt):
        decide(1)
    assert read_decision_runs() == []
    assert read_lock_owner(NAME) is None


# --- what dead processes left ---------------------------------------------------------------------------------------


def leave_decision(version: int) -> str:
    """Record a decision as a process that dies before it applies it; return the run."""
    with promotion_lock(NAME) as lock:
        return record_decision(lock, version)


def test_recorded_decision_is_completed() -> None:
    register_version()
    leave_decision(1)
    assert read_aliases() == {"challenger": 1}
    complete_unfinished_decisions(NAME)
    check_agreement(1)
    assert read_statuses() == ["FINISHED"]
    assert registry.get_version(NAME, 1).tags["gate.decision"] == "promoted"


def test_run_without_a_decision_ends_killed() -> None:
    register_version()
    runs.create_run(runs.get_or_create_experiment(f"{NAME}-promotions"), {"decision.number": "1"})
    complete_unfinished_decisions(NAME)
    assert read_statuses() == ["KILLED"]
    assert list_decisions(NAME) == []


def test_next_number_counts_runs_without_a_decision() -> None:
    register_version()
    runs.create_run(runs.get_or_create_experiment(f"{NAME}-promotions"), {"decision.number": "4"})
    decide(1)
    assert [decision.number for decision in list_decisions(NAME)] == [5]


def test_alias_that_a_person_moved_stays() -> None:
    for _ in range(3):
        register_version()
    decide(1)
    leave_decision(2)
    MlflowClient().set_registered_model_alias(NAME, "champion", "3")
    complete_unfinished_decisions(NAME)
    check_agreement(3)
    assert read_statuses() == ["FINISHED", "FINISHED"]


def test_stages_follow_an_alias_that_a_person_moved() -> None:
    register_version()
    register_version()
    decide(1)
    MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    complete_unfinished_decisions(NAME)
    assert read_stages() == {1: "Archived", 2: "Production"}


# --- unlock ---------------------------------------------------------------------------------------------------------


def unlock() -> str:
    decision_run_id, _ = force_unlock(NAME, "the laptop was stolen")
    apply_decision(NAME, decision_run_id)
    return decision_run_id


def test_unlock_removes_the_lock_and_is_recorded() -> None:
    register_version()
    create_foreign_lock()
    decision_run_id = unlock()
    assert read_lock_owner(NAME) is None
    (decision,) = list_decisions(NAME)
    assert (decision.kind, decision.version, decision.model_sha256) == ("unlocked", None, "")
    assert (decision.reason, decision.user) == ("the laptop was stolen", user_name())
    assert (read_statuses(), decision.decision_run_id) == (["FINISHED"], decision_run_id)


def test_unlock_records_whose_lock_it_was() -> None:
    register_version()
    create_foreign_lock()
    decision_run_id = unlock()
    owner = "ada on laptop (process 4242, since 2026-11-17T12:00:00.000+00:00)"
    verdict = artifacts.read_json_artifact(decision_run_id, "verdict.json")
    assert verdict["lock_owner"] == owner
    run = runs.get_run(decision_run_id)
    assert run.info.run_name == "lock unlocked"
    assert f"The lock was that of {owner}" in run.data.tags["mlflow.note.content"]


def test_unlock_without_a_lock_is_an_error() -> None:
    register_version()
    with pytest.raises(UserError, match="digits-classifier is not locked"):
        force_unlock(NAME, "because")
    assert read_decision_runs() == []


def test_unlock_is_not_part_of_the_history() -> None:
    register_version()
    decide(1)
    create_foreign_lock()
    unlock()
    assert [decision.version for decision, _ in production_history(list_decisions(NAME))] == [1]
    check_agreement(1)


def test_next_decision_completes_what_the_unlocked_process_began() -> None:
    register_version()
    leave_decision(1)
    create_foreign_lock()
    unlock()
    decide(1)
    assert list_kinds(read_decision_runs()) == ["promoted", "unlocked", "unchanged"]
    check_agreement(1)


def test_dead_process_leaves_its_lock_to_the_next() -> None:
    register_version()
    create_foreign_lock(process=describe_dead_process())
    decide(1)
    check_agreement(1)
