"""The promotion lock on the team's server: MariaDB behind MLflow, over HTTP, with two accounts that may promote."""

from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest

import evaluate
import promote
import pytorch_demo
from pipeline.promotion.decisions import list_decisions
from pipeline.promotion.lock import PromotionLock, promotion_lock, read_lock_owner
from support.accounts import act_as, create_account, grant_edit
from support.promotions import NAME, create_foreign_lock, describe_dead_process
from support.scripts import Result, call_main, start_script
from support.stack import TeamServer

PROMOTION = ("--model-name", NAME, "--version", 1, "--min-accuracy", 0.8)


@dataclass(frozen=True)
class Team:
    """A server with version 1 in Production. Ada trained it, Bob may promote it too, Carol may only read."""

    folder: Path
    admin: dict[str, str]
    ada: dict[str, str]
    bob: dict[str, str]
    carol: dict[str, str]

    def promote(self, client: Mapping[str, str], *options: object) -> Result:
        """Call promote.py with an account."""
        with act_as(client), chdir(self.folder):
            return call_main(promote.main, *options)


@pytest.fixture(scope="module")
def team(server: TeamServer, tmp_path_factory: pytest.TempPathFactory) -> Team:
    ada, bob, carol = (create_account(server, name) for name in ("ada", "bob", "carol"))
    folder = tmp_path_factory.mktemp("work")
    with act_as(ada), chdir(folder):
        options = ("--dataset", "digits", "--epochs", 4)
        run_id = call_main(pytorch_demo.main, *options).json["run_id"]
        assert call_main(evaluate.main, "--run-id", run_id, "--log-mlflow").code == 0
        assert call_main(promote.main, "--run-id", run_id, "--min-accuracy", 0.8).code == 0
    grant_edit(server, "bob", NAME)
    return Team(folder, server.admin, ada, bob, carol)


@pytest.fixture(autouse=True)
def no_lock(team: Team) -> Iterator[None]:
    """Remove the lock that a test leaves."""
    yield
    with act_as(team.admin):
        owner = read_lock_owner(NAME)
        if owner is not None:
            PromotionLock(NAME, owner).remove()


def read_kinds(team: Team) -> list[str]:
    with act_as(team.admin):
        return [decision.kind for decision in list_decisions(NAME)]


def test_both_accounts_promote(team: Team) -> None:
    for client in (team.ada, team.bob):
        assert team.promote(client, *PROMOTION).json["decision"] == "unchanged"


def test_one_account_waits_for_the_other(team: Team) -> None:
    with act_as(team.ada), promotion_lock(NAME) as lock:
        result = team.promote(team.bob, *PROMOTION, "--wait", 1)
    assert result.code == 2
    waiting, error = result.stderr.splitlines()
    assert waiting == f"waiting for {lock.owner}, who decides about {NAME}"
    assert f"{lock.owner} still decides about {NAME} after 1 seconds" in error


def test_account_without_permission_leaves_no_lock(team: Team) -> None:
    before = read_kinds(team)
    error = team.promote(team.carol, *PROMOTION).error
    assert "your account may not do this; ask its administrator" in error
    with act_as(team.admin):
        assert read_lock_owner(NAME) is None
    assert read_kinds(team) == before


def test_dead_process_of_the_same_account_is_replaced(team: Team) -> None:
    with act_as(team.ada):
        create_foreign_lock(process=describe_dead_process())
    result = team.promote(team.ada, *PROMOTION)
    assert result.code == 0
    assert "has ended; its lock of digits-classifier is removed" in result.stderr


def test_dead_process_of_another_account_needs_its_owner(team: Team) -> None:
    with act_as(team.ada):
        create_foreign_lock(process=describe_dead_process())
    result = team.promote(team.bob, *PROMOTION)
    assert result.code == 2
    assert "your account may not remove its lock of digits-classifier" in result.stderr
    assert "ask ada or an administrator to run: python promote.py --unlock" in result.stderr


def test_unlock_of_another_account_is_refused(team: Team) -> None:
    before = read_kinds(team)
    with act_as(team.ada):
        create_foreign_lock()
    assert "your account may not do this" in team.promote(team.bob, "--unlock", "--reason", "x").error
    assert read_kinds(team) == before
    with act_as(team.ada):
        assert read_lock_owner(NAME) is not None


@pytest.mark.parametrize("name", ["ada", "admin"])
def test_owner_and_administrator_unlock(team: Team, name: str) -> None:
    with act_as(team.ada):
        create_foreign_lock()
    result = team.promote(getattr(team, name), "--unlock", "--reason", "the laptop was stolen")
    assert result.json["decision"] == "unlocked"
    assert read_kinds(team)[-1] == "unlocked"
    assert team.promote(team.bob, *PROMOTION).code == 0


def test_eight_promotions_of_two_accounts_all_decide(team: Team) -> None:
    before = read_kinds(team)
    clients = [team.ada, team.bob] * 4
    started = [start_script(team.folder, "promote.py", *PROMOTION, env=client) for client in clients]
    results = [process.wait() for process in started]
    assert [result.code for result in results] == [0] * 8, results
    assert read_kinds(team) == [*before, *["unchanged"] * 8]
    with act_as(team.admin):
        assert read_lock_owner(NAME) is None
        numbers = [decision.number for decision in list_decisions(NAME)]
    assert numbers == sorted(set(numbers))
