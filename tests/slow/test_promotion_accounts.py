"""Who may decide, on the team's server: MariaDB behind MLflow, over HTTP, with accounts."""

import time
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import evaluate
import promote
import pytorch_demo
from pipeline.promotion.decisions import list_decisions
from pipeline.promotion.lock import promotion_lock, read_tickets, remove_ticket
from pipeline.promotion.tag_values import warn_unreadable
from pipeline.tracking import registry, runs, tags
from pipeline.tracking.store import StoreError
from support.accounts import act_as, create_account, grant_edit
from support.promotions import NAME, check_agreement, create_foreign_lock, describe_dead_process, list_kinds
from support.scripts import Result, call_main, start_script
from support.stack import TeamServer
from support.stores import register_once_more

PROMOTION = ("--model-name", NAME, "--version", 1, "--min-accuracy", 0.8)
SECOND = ("--model-name", NAME, "--version", 2, "--min-accuracy", 0.8)
REFUSAL = ("--model-name", NAME, "--version", 2, "--min-accuracy", 0.9999)
JSON_OF_ANOTHER_KIND = '{"number": 1, "kind": ["promoted"], "version": {}}'


@dataclass(frozen=True)
class Team:
    """A server with version 1 in Production and version 2, the same model, in Staging.

    Ada trained it; CI may edit the model and nothing else; a stranger may only read. Before anything was decided, the
    stranger had created the experiments ``<model>-promotions``, with an open run that says that version 2 was promoted,
    and ``<model>.promoting``, which was the lock of earlier releases.
    """

    folder: Path
    admin: dict[str, str]
    ada: dict[str, str]
    ci: dict[str, str]
    stranger: dict[str, str]
    forged_run_id: str
    first: Result

    def promote(self, client: Mapping[str, str], *options: object) -> Result:
        """Call promote.py with an account."""
        warn_unreadable.cache_clear()
        with act_as(client), chdir(self.folder):
            return call_main(promote.main, *options)


@pytest.fixture(scope="module")
def team(server: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> Team:
    ada, ci, stranger = (create_account(server, name) for name in ("ada", "ci", "stranger"))
    folder = tmp_path_factory.mktemp("work")
    with act_as(stranger):
        MlflowClient().create_experiment(f"{NAME}.promoting", tags={"user": "stranger", "nonce": "1"})
        experiment_id = MlflowClient().create_experiment(f"{NAME}-promotions")
    with act_as(ada), chdir(folder):
        trained = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", 18)
        run_id = trained.json["run_id"]
        assert call_main(evaluate.main, "--run-id", run_id, "--log-mlflow").code == 0
        register_once_more(trained.json["model_uri"], run_id)
    with act_as(stranger):
        forged_run_id = forge_decision_run(experiment_id)
    grant_edit(server, "ci", NAME)
    with act_as(ci), chdir(folder):
        first = call_main(promote.main, *PROMOTION)
    return Team(folder, server.admin, ada, ci, stranger, forged_run_id, first)


def forge_decision_run(experiment_id: str) -> str:
    """Create an open run that says what promote.py said of a version that it moved."""
    facts = {
        "kind": "promoted",
        "number": "9",
        "version": "2",
        "time": "2026-11-17T12:00:00.000+00:00",
        "user": "ci",
        "host": "build-1",
        "reason": "every check passed",
        "accuracy": "0.99",
        "model_sha256": "f" * 64,
        "checks": "min_accuracy: 0.99 reaches 0.95",
        "nonce": "0" * 32,
    }
    run_tags = {f"decision.{name}": text for name, text in facts.items()}
    return runs.create_run(experiment_id, {**run_tags, "mlflow.runName": "version 2 promoted"})


@pytest.fixture(autouse=True)
def tidy(team: Team) -> Iterator[None]:
    """Remove what a test leaves on the model and its versions, and put version 1 in Production."""
    yield
    with act_as(team.admin):
        for ticket in read_tickets(NAME):
            remove_ticket(NAME, ticket)
        for tag, value in tags.read_model_tags(NAME).items():
            if value in UNREADABLE:
                tags.delete_model_tag(NAME, tag)
        for version in registry.list_versions(NAME):
            for tag, value in version.tags.items():
                if value in UNREADABLE:
                    tags.delete_version_tag(NAME, int(version.version), tag)
    if team.promote(team.admin, "--history", "--json").json["history"][-1]["version"] != 1:
        assert team.promote(team.ci, *PROMOTION).code == 0


def read_kinds(team: Team) -> list[str]:
    with act_as(team.admin):
        return list_kinds()


# --- a stranger -----------------------------------------------------------------------------------------------------


def test_decision_of_a_stranger_moves_nothing(team: Team) -> None:
    assert (team.first.code, team.first.json["decision"], team.first.json["version"]) == (0, "promoted", 1)
    refused = team.promote(team.ci, *REFUSAL)
    assert refused.code == 1
    history = team.promote(team.ci, "--history", "--json")
    assert [row["version"] for row in history.json["history"]] == [1]
    assert history.stderr == ""
    with act_as(team.stranger):
        check_agreement(1)
        assert runs.get_run(team.forged_run_id).info.status == "RUNNING"


def test_reports_go_to_an_experiment_of_ci(team: Team) -> None:
    with act_as(team.ci):
        run = runs.get_run(team.first.json["decision_run_id"])
        experiment = MlflowClient().get_experiment(run.info.experiment_id)
        assert (experiment.name, run.info.status) == (f"{NAME}-promotions-2", "FINISHED")
        assert tags.read_model_tags(NAME)["promotions.experiment_id"] == experiment.experiment_id


def test_stranger_writes_no_ticket_and_no_decision(team: Team) -> None:
    with act_as(team.stranger):
        with pytest.raises(StoreError, match="Permission denied"):
            create_foreign_lock()
        with pytest.raises(StoreError, match="Permission denied"):
            tags.set_version_tag(NAME, 2, "decision.9", "{}")
        with pytest.raises(StoreError, match="Permission denied"):
            tags.set_model_tag(NAME, "decision.pending", '{"version": 2, "number": 9}')


@pytest.mark.parametrize("options", [PROMOTION, ("--rollback", "--reason", "x"), ("--unlock", "--reason", "x")])
def test_stranger_decides_nothing(team: Team, options: tuple[object, ...]) -> None:
    before = read_kinds(team)
    with act_as(team.ci):
        ticket = create_foreign_lock() if "--unlock" in options else None
    error = team.promote(team.stranger, *options).error
    assert "your account may not do this; ask its administrator" in error
    assert read_kinds(team) == before
    with act_as(team.admin):
        assert read_tickets(NAME) == ([ticket] if ticket else [])


# --- accounts that may edit the model -------------------------------------------------------------------------------


def test_account_that_may_edit_promotes_and_rolls_back(team: Team) -> None:
    """CI did not create the model: it may set an alias and a tag of a version, but not delete one."""
    assert team.promote(team.ci, *SECOND).json["decision"] == "promoted"
    with act_as(team.ci):
        check_agreement(2)
    assert team.promote(team.ci, "--rollback", "--reason", "to see that it works").json["version"] == 1
    with act_as(team.ci):
        check_agreement(1)


def test_both_accounts_promote(team: Team) -> None:
    for client in (team.ada, team.ci):
        assert team.promote(client, *PROMOTION).json["decision"] == "unchanged"


def test_one_account_waits_for_the_other(team: Team) -> None:
    with act_as(team.ada), promotion_lock(NAME) as lock:
        result = team.promote(team.ci, *PROMOTION, "--wait", 1)
    assert result.code == 2
    waiting, error = result.stderr.splitlines()
    assert waiting == f"waiting for {lock.ticket}, who decides about {NAME}"
    assert f"{lock.ticket} still decides about {NAME} after 1 seconds" in error


@pytest.mark.parametrize("number", [0, 1])
def test_dead_process_of_another_account_is_replaced(team: Team, number: int) -> None:
    with act_as(team.ada):
        create_foreign_lock(process=describe_dead_process(), number=number)
    result = team.promote(team.ci, *PROMOTION, "--wait", 0)
    assert result.code == 0
    assert "has ended; its lock of digits-classifier is removed" in result.stderr


def test_process_that_may_be_dead_is_waited_for_until_the_limit(team: Team) -> None:
    with act_as(team.ada):
        create_foreign_lock()
    start = time.monotonic()
    assert "ada on laptop" in team.promote(team.ci, *PROMOTION, "--wait", 2).stderr
    assert 2 < time.monotonic() - start < 30  # it is judged before that


def test_other_account_unlocks(team: Team) -> None:
    with act_as(team.ada):
        create_foreign_lock()
    result = team.promote(team.ci, "--unlock", "--reason", "the laptop was stolen")
    assert result.json["decision"] == "unlocked"
    assert read_kinds(team)[-1] == "unlocked"
    assert team.promote(team.ci, *PROMOTION, "--wait", 0).code == 0


def test_killed_process_of_another_account_is_completed(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ada's process dies after it has moved the alias."""
    before = read_kinds(team)

    def set_alias_and_die(*arguments: Any) -> None:
        set_alias(*arguments)
        raise KeyboardInterrupt

    set_alias = registry.set_alias
    with monkeypatch.context() as patches:
        patches.setattr(registry, "set_alias", set_alias_and_die)
        result = team.promote(team.ada, *SECOND)
    assert result.code == 130
    assert read_kinds(team) == [*before, "promoted"]
    assert team.promote(team.ci, *SECOND).json["decision"] == "unchanged"
    with act_as(team.ci):
        check_agreement(2)
        assert "decision.pending" not in tags.read_model_tags(NAME)


def test_eight_promotions_of_two_accounts_all_decide(team: Team) -> None:
    before = read_kinds(team)
    clients = [team.ada, team.ci] * 4
    started = [start_script(team.folder, "promote.py", *PROMOTION, env=client) for client in clients]
    results = [process.wait() for process in started]
    assert [result.code for result in results] == [0] * 8, results
    assert read_kinds(team) == [*before, *["unchanged"] * 8]
    with act_as(team.admin):
        assert read_tickets(NAME) == []
        numbers = [decision.number for decision in list_decisions(NAME)]
    assert numbers == sorted(set(numbers))


# --- tags that nobody can read --------------------------------------------------------------------------------------

UNREADABLE = ("garbage", "[" * 5000, JSON_OF_ANOTHER_KIND)


@pytest.mark.parametrize("value", UNREADABLE, ids=["garbage", "huge", "json"])
def test_unreadable_tags_block_nobody(team: Team, value: str) -> None:
    assert team.promote(team.ci, *SECOND).code == 0
    with act_as(team.ci):
        for tag in ("decision.777", f"promoting.{'a' * 32}", "decision.pending", "decision.count"):
            tags.set_model_tag(NAME, tag, value)
        tags.set_version_tag(NAME, 1, "decision.778", value * 10)
        tags.set_version_tag(NAME, 1, "decision.779", value)

    history = team.promote(team.stranger, "--history")
    assert history.code == 0
    warnings = [
        "decision.pending' of digits-classifier",
        "decision.777' of digits-classifier",
        "decision.778' of digits-classifier version 1",
        "decision.779' of digits-classifier version 1",
    ]
    assert sorted(line.partition(" is not readable")[0] for line in history.stderr.splitlines()) == sorted(
        f"warning: the tag '{warning}" for warning in warnings
    )
    restored = team.promote(team.ci, "--rollback", "--reason", "x", "--wait", 0)
    assert restored.json["version"] == 1
    assert restored.stderr.count(f"the tag 'promoting.{'a' * 32}' of digits-classifier is not readable") == 1
    assert team.promote(team.ci, *SECOND, "--wait", 0).json["decision"] == "promoted"
    with act_as(team.ci):
        check_agreement(2)
