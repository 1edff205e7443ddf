import getpass
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline import UserError, registry, tracking


def new_version(name: str = "digits-classifier") -> int:
    """Register a version without the seconds that a real model takes; the registry does not look inside."""
    with tracking.run("demo", None) as run_id:
        tracking.log_params(run_id, {"dataset": "digits"})
    client = MlflowClient()
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, source_run_id=run_id)
    return registry.register(name, f"models:/{model.model_id}", run_id)


def states(name: str = "digits-classifier") -> dict[int, str | None]:
    versions = MlflowClient().search_model_versions(f"name='{name}'")
    return {int(version.version): version.current_stage for version in versions}


def aliases(name: str = "digits-classifier") -> dict[str, int]:
    return {alias: int(number) for alias, number in MlflowClient().get_registered_model(name).aliases.items()}


def test_a_new_version_is_in_staging_and_the_challenger(store: Path) -> None:
    assert (new_version(), new_version()) == (1, 2)
    assert states() == {1: "Staging", 2: "Staging"}
    assert aliases() == {"challenger": 2}


def decide(kind: str, number: int, previous: int | None, name: str = "digits-classifier") -> str:
    """Decide in a turn and carry it out, as promote.py does; return the run."""
    with registry.turn(name) as run_id:
        what = {"version": number, "previous_version": previous, "reason": "because", "accuracy": 0.9}
        what |= {"model_sha256": "f00d", "checks": "min_accuracy: fine"} | registry.here()
        registry.decide(run_id, kind, what, {"min_accuracy": 0.9}, {"verdict.json": "{}", "verdict.md": "# fine"})
        registry.carry_out(name, run_id)
    return run_id


def test_promotion_moves_the_alias_archives_the_earlier_and_ends_the_challenge(store: Path) -> None:
    name = "digits-classifier"
    new_version()
    assert registry.champion(name) is None
    decide("promoted", 1, None)
    new_version()
    decide("promoted", 2, 1)
    assert states() == {1: "Archived", 2: "Production"}
    assert aliases() == {"champion": 2}
    champion = registry.champion(name)
    assert champion is not None and int(champion.version) == 2


def test_promoting_an_older_version_leaves_the_challenger(store: Path) -> None:
    new_version(), new_version()
    decide("promoted", 1, None)
    assert aliases() == {"champion": 1, "challenger": 2}


def test_a_refusal_moves_nothing_and_says_on_the_version_why(store: Path) -> None:
    new_version(), new_version()
    decide("promoted", 1, None)
    run_id = decide("refused", 2, 1)
    assert (states(), aliases()) == ({1: "Production", 2: "Staging"}, {"champion": 1, "challenger": 2})
    version = registry.get_version("digits-classifier", 2)
    first, reason, link = str(version.description).split("\n\n")
    assert first.startswith("Refused on 20") and reason == "because" and run_id in link
    assert version.tags["gate.decision"] == "refused"
    assert version.tags["gate.checks"] == "min_accuracy: fine"


@pytest.mark.parametrize("kind", ["unchanged", "refused"])
def test_a_second_look_at_what_is_in_production_changes_nothing_there(store: Path, kind: str) -> None:
    new_version()
    decide("promoted", 1, None)
    before = registry.get_version("digits-classifier", 1)
    decide(kind, 1, 1)
    assert dict(registry.get_version("digits-classifier", 1)) == dict(before)
    assert [decision.kind for decision in registry.decisions("digits-classifier")] == ["promoted", kind]


def test_the_stages_follow_the_alias_that_somebody_moved(store: Path) -> None:
    new_version(), new_version()
    decide("promoted", 1, None)
    MlflowClient().set_registered_model_alias("digits-classifier", "champion", "2")
    registry.settle("digits-classifier")
    assert (states(), aliases()) == ({1: "Archived", 2: "Production"}, {"champion": 2})


def test_a_decision_is_a_run_with_its_reasons_and_files(store: Path) -> None:
    new_version()
    run_id = decide("promoted", 1, None)
    run = MlflowClient().get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "version 1 promoted")
    assert run.data.metrics == {"min_accuracy": 0.9}
    assert run.data.tags["mlflow.note.content"] == "# fine"
    assert {item.path for item in MlflowClient().list_artifacts(run_id)} == {"verdict.json", "verdict.md"}
    (decision,) = registry.decisions("digits-classifier")
    assert (decision.version, decision.previous_version, decision.run_id) == (1, None, run_id)
    assert (decision.reason, decision.accuracy, decision.model_sha256) == ("because", 0.9, "f00d")
    assert abs((decision.time - datetime.now(UTC)).total_seconds()) < 60


def test_who_decides_is_the_account_or_who_started_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (registry.here()["user"], registry.here()["job_url"]) == (getpass.getuser(), None)
    job = {"SERVER_URL": "https://github.com", "REPOSITORY": "me/demo", "RUN_ID": "7", "ACTOR": "octocat"}
    for name, value in job.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    assert registry.here()["user"] == "octocat"
    assert registry.here()["job_url"] == "https://github.com/me/demo/actions/runs/7"


# --- one after the other --------------------------------------------------------------------------------------------


def open_runs(name: str = "digits-classifier") -> list[str]:
    experiment = MlflowClient().get_experiment_by_name(f"{name}-promotions")
    assert experiment is not None
    return [run.info.status for run in MlflowClient().search_runs([experiment.experiment_id])]


def test_a_turn_in_which_nothing_was_decided_leaves_nothing(store: Path) -> None:
    new_version()
    with pytest.raises(UserError), registry.turn("digits-classifier"):
        raise UserError("no")
    assert open_runs() == []


def test_turns_do_not_overlap(store: Path) -> None:
    new_version()
    inside, most = [0], [0]

    def take(_: int) -> None:
        with registry.turn("digits-classifier"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            inside[0] -= 1
            raise UserError("nothing to decide")

    with ThreadPoolExecutor(6) as threads:
        ends = [threads.submit(take, number) for number in range(6)]
        assert {type(end.exception()) for end in ends} == {UserError}
    assert most == [1]


def test_those_that_wait_in_a_long_line_are_not_taken_for_dead(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_version()
    monkeypatch.setattr(registry, "LEASE", 4.0)
    monkeypatch.setattr(registry, "_owner", lambda: f"1 machine {threading.get_ident()}")  # a machine each
    inside, seen = [0], []

    def take(_: int) -> None:
        with registry.turn("digits-classifier") as run_id:
            inside[0] += 1
            time.sleep(1)
            seen.append((inside[0], MlflowClient().get_run(run_id).info.status))
            inside[0] -= 1
            raise UserError("nothing to decide")

    with ThreadPoolExecutor(7) as threads:  # the last one waits for longer than a lease
        ends = [threads.submit(take, number) for number in range(7)]
        assert {type(end.exception()) for end in ends} == {UserError}
    assert seen == [(1, "RUNNING")] * 7


def ticket(number: str, owner: str, **tags: str) -> str:
    """Open a run as another process would that is waiting or deciding."""
    experiment = tracking.experiment_id("digits-classifier-promotions")
    own = {"decision.number": number, "decision.owner": owner} | {f"decision.{key}": tags[key] for key in tags}
    return str(MlflowClient().create_run(experiment, tags=own).info.run_id)


def dead_owner() -> str:
    """Return a process of this machine that is no more."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return f"{gone.pid} {registry._owner().partition(' ')[2]}"


@pytest.mark.parametrize("number", ["", "1"])
def test_a_dead_process_is_not_waited_for(store: Path, number: str) -> None:
    new_version()
    left = ticket(number, dead_owner())
    decide("promoted", 1, None)
    assert MlflowClient().get_run(left).info.status == "KILLED"


@pytest.mark.parametrize("number", ["", "1"])
def test_a_living_process_is_waited_for_until_its_lease_ends(
    store: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_version()
    monkeypatch.setattr(registry, "LEASE", 1.0)
    left = ticket(number, f"{os.getpid()} another machine")
    start = time.monotonic()
    decide("promoted", 1, None)
    assert time.monotonic() - start > 1
    assert MlflowClient().get_run(left).info.status == "KILLED"


def test_a_process_that_was_taken_for_dead_decides_nothing(store: Path) -> None:
    new_version()
    with pytest.raises(UserError, match="took too long"), registry.turn("digits-classifier") as run_id:
        MlflowClient().set_terminated(run_id, "KILLED")
        what = {"version": 1, "previous_version": None, "reason": "because", "accuracy": 0.9, "checks": ""}
        registry.decide(run_id, "promoted", what | {"model_sha256": ""} | registry.here(), {}, {"verdict.md": ""})
    assert (aliases(), registry.decisions("digits-classifier")) == ({"challenger": 1}, [])


def test_what_a_person_moved_meanwhile_is_not_moved_back(store: Path) -> None:
    new_version(), new_version(), new_version()
    decide("promoted", 1, None)
    tags = {"kind": "promoted", "version": "2", "previous_version": "1", "reason": "", "time": registry._now()}
    left = ticket("2", dead_owner(), **tags)
    MlflowClient().set_registered_model_alias("digits-classifier", "champion", "3")
    decide("unchanged", 3, 3)
    assert aliases()["champion"] == 3 and states()[3] == "Production"
    assert MlflowClient().get_run(left).info.status == "FINISHED"


# --- history --------------------------------------------------------------------------------------------------------

DAY = datetime(2026, 11, 17, tzinfo=UTC)


def history(*moves: tuple[str, int]) -> list[registry.Decision]:
    """Return decisions, one an hour."""
    return [
        registry.Decision(
            number, kind, version, None, DAY + timedelta(hours=number), "me", "here", None, "because", 0.9, "f00d", "r"
        )
        for number, (kind, version) in enumerate(moves)
    ]


def test_a_reign_lasts_until_the_next_one_and_a_refusal_ends_none() -> None:
    taken = history(("promoted", 1), ("refused", 2), ("unchanged", 1), ("promoted", 3))
    reigns = [(move.version, move.time.hour, until and until.hour) for move, until in registry.reigns(taken)]
    assert reigns == [(1, 0, 3), (3, 3, None)]
    hours = {-1: None, 0: 1, 2.9: 1, 3: 3, 99: 3}
    at = {hour: registry.reign_at(taken, DAY + timedelta(hours=hour)) for hour in hours}
    assert {hour: move and move.version for hour, move in at.items()} == hours
    assert registry.reign_at([], DAY) is None


def test_rolling_back_undoes() -> None:
    taken = history(("promoted", 1), ("promoted", 2), ("promoted", 3))
    assert registry.to_go_back_to(taken, None).version == 2
    taken = history(("promoted", 1), ("promoted", 2), ("promoted", 3), ("rolled back", 2))
    assert registry.to_go_back_to(taken, None).version == 1
    taken = history(("promoted", 1), ("promoted", 2), ("rolled back", 1), ("promoted", 4))
    assert registry.to_go_back_to(taken, None).version == 1
    assert registry.to_go_back_to(taken, 2).version == 2


@pytest.mark.parametrize(
    ("moves", "to", "message"),
    [
        ([], None, "no earlier version"),
        ([("promoted", 1)], None, "no earlier version"),
        ([("promoted", 1), ("refused", 2)], None, "no earlier version"),
        ([("promoted", 1), ("promoted", 2), ("rolled back", 1)], None, "no earlier version"),
        ([("promoted", 1), ("refused", 2)], 2, "version 2 was not in Production before"),
        ([("promoted", 1), ("promoted", 2)], 2, "version 2 was not in Production before"),
    ],
)
def test_without_history_there_is_nothing_to_go_back_to(
    moves: list[tuple[str, int]], to: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        registry.to_go_back_to(history(*moves), to)


# --- finding versions -----------------------------------------------------------------------------------------------


def test_the_version_of_a_run_is_found(store: Path) -> None:
    new_version()
    run_id = registry.get_version("digits-classifier", 1).run_id
    assert run_id and int(registry.version_of(run_id, None).version) == 1
    with pytest.raises(UserError, match="not registered as 'other'"):
        registry.version_of(run_id, "other")


def test_a_run_registered_under_two_names_has_to_be_told_which(store: Path) -> None:
    new_version()
    version = registry.get_version("digits-classifier", 1)
    registry.register("second", str(version.source), str(version.run_id))
    with pytest.raises(UserError, match="as digits-classifier, second; choose one with --model-name"):
        registry.version_of(str(version.run_id), None)
    assert registry.version_of(str(version.run_id), "second").name == "second"


def test_an_unknown_version_is_named(store: Path) -> None:
    new_version()
    for name, number in (("digits-classifier", 9), ("nobody", 1)):
        with pytest.raises(UserError, match=f"no version {number} of a model '{name}'"):
            registry.get_version(name, number)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", " padded", "a@b", "it's"])
def test_names_that_mlflow_would_refuse_are_refused_before_any_work(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a registered model"):
        registry.check_name(name)
    assert registry.check_name("mnist-classifier") == "mnist-classifier"


def test_a_model_need_not_be_named_where_there_is_only_one(store: Path) -> None:
    with pytest.raises(UserError, match="this store has none: train one first"):
        registry.only_model(None)
    new_version()
    assert registry.only_model(None) == registry.only_model("digits-classifier") == "digits-classifier"
    new_version("other")
    with pytest.raises(UserError, match="this store has digits-classifier, other"):
        registry.only_model(None)
    with pytest.raises(UserError, match="no registered model 'nobody'; this store has digits-classifier, other"):
        registry.only_model("nobody")
