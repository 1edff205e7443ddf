"""The store behind the team's server: over HTTP, on a database server, with accounts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import locks
from pipeline.tracking.store import StoreError, connect
from support.accounts import act_as, create_account
from support.lock_race import MODEL_NAME, race_for_lock
from support.stack import TeamServer

ADA_TAGS = {"user": "ada", "nonce": "1"}
BOB_TAGS = {"user": "bob", "nonce": "2"}
ROUNDS = 8


@pytest.fixture(scope="module")
def ada(server: TeamServer) -> Mapping[str, str]:
    return create_account(server, "ada")


@pytest.fixture(scope="module")
def bob(server: TeamServer) -> Mapping[str, str]:
    return create_account(server, "bob")


@pytest.fixture
def lock_of_ada(ada: Mapping[str, str]) -> Iterator[None]:
    with act_as(ada):
        assert locks.create_lock(MODEL_NAME, ADA_TAGS)
    yield
    with act_as(ada):
        locks.delete_lock(MODEL_NAME, ADA_TAGS)


# --- locks ----------------------------------------------------------------------------------------------------------


def test_other_account_sees_who_has_the_lock(lock_of_ada: None, bob: Mapping[str, str]) -> None:
    with act_as(bob):
        assert not locks.create_lock(MODEL_NAME, BOB_TAGS)
        assert locks.read_lock(MODEL_NAME) == ADA_TAGS


def test_other_account_cannot_remove_the_lock(lock_of_ada: None, bob: Mapping[str, str]) -> None:
    with act_as(bob), pytest.raises(StoreError, match="Permission denied"):
        locks.delete_lock(MODEL_NAME, ADA_TAGS)
    with act_as(bob):
        assert locks.read_lock(MODEL_NAME) == ADA_TAGS


def test_administrator_can_remove_the_lock(lock_of_ada: None, server: TeamServer) -> None:
    with act_as(server.admin):
        assert locks.delete_lock(MODEL_NAME, ADA_TAGS)
        assert locks.read_lock(MODEL_NAME) is None


def test_accounts_have_the_lock_in_turn(ada: Mapping[str, str], bob: Mapping[str, str]) -> None:
    for client, tags in ((ada, ADA_TAGS), (bob, BOB_TAGS), (ada, ADA_TAGS)):
        with act_as(client):
            assert locks.create_lock(MODEL_NAME, tags)
            assert locks.delete_lock(MODEL_NAME, tags)


def test_one_process_of_several_accounts_has_the_lock(
    ada: Mapping[str, str], bob: Mapping[str, str], tmp_path: Path
) -> None:
    clients = [ada, bob] * 3
    assert race_for_lock(clients, tmp_path / "marker", ROUNDS) == [0] * 6
    with act_as(ada):
        assert locks.read_lock(MODEL_NAME) is None


# --- accounts -------------------------------------------------------------------------------------------------------


def test_wrong_password_is_not_repeated_in_the_error(server: TeamServer, ada: Mapping[str, str]) -> None:
    wrong = {**ada, "MLFLOW_TRACKING_PASSWORD": "a wrong password"}
    expected = f"{server.uri}: it does not accept your name and password; check MLFLOW_TRACKING_"
    with act_as(wrong), pytest.raises(UserError, match=expected) as error, connect():
        pass
    assert "a wrong password" not in str(error.value)


def test_missing_permission_is_named(lock_of_ada: None, server: TeamServer, bob: Mapping[str, str]) -> None:
    expected = f"{server.uri}: your account may not do this; ask its administrator"
    with act_as(bob), pytest.raises(UserError, match=expected), connect():
        locks.delete_lock(MODEL_NAME, ADA_TAGS)


def test_unencrypted_server_is_named_for_https(server: TeamServer, ada: Mapping[str, str]) -> None:
    secure = {**ada, "MLFLOW_TRACKING_URI": server.uri.replace("http", "https")}
    with act_as(secure), pytest.raises(UserError, match="no secure connection: SSLError"), connect():
        pass
