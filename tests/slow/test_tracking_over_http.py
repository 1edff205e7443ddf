"""The store behind the team's server: over HTTP, on a database server, with accounts."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import UserError
from pipeline.promotion.lock import promotion_lock, read_tickets, remove_ticket
from pipeline.tracking.store import StoreError, connect
from support.accounts import act_as, create_account, grant_edit
from support.lock_race import MODEL_NAME, race_for_lock
from support.stack import TeamServer

ROUNDS = 8


@pytest.fixture(scope="module")
def ada(server: TeamServer) -> Mapping[str, str]:
    """Return an account that has created a model."""
    client = create_account(server, "ada")
    with act_as(client):
        MlflowClient().create_registered_model(MODEL_NAME)
    return client


@pytest.fixture(scope="module")
def bob(server: TeamServer, ada: Mapping[str, str]) -> Mapping[str, str]:
    """Return an account that may edit the model."""
    client = create_account(server, "bob")
    grant_edit(server, "bob", MODEL_NAME)
    return client


@pytest.fixture(scope="module")
def carol(server: TeamServer) -> Mapping[str, str]:
    """Return an account that may only read."""
    return create_account(server, "carol")


# --- locks ----------------------------------------------------------------------------------------------------------


def test_everybody_sees_who_has_the_lock(ada: Mapping[str, str], carol: Mapping[str, str]) -> None:
    with act_as(ada), promotion_lock(MODEL_NAME) as lock, act_as(carol):
        assert read_tickets(MODEL_NAME) == [lock.ticket]


def test_account_that_may_edit_removes_the_lock(ada: Mapping[str, str], bob: Mapping[str, str]) -> None:
    with act_as(ada), promotion_lock(MODEL_NAME) as lock, act_as(bob):
        remove_ticket(MODEL_NAME, lock.ticket)
        assert read_tickets(MODEL_NAME) == []


def test_account_that_may_only_read_removes_nothing(ada: Mapping[str, str], carol: Mapping[str, str]) -> None:
    with act_as(ada), promotion_lock(MODEL_NAME) as lock:
        with act_as(carol), pytest.raises(StoreError, match="Permission denied"):
            remove_ticket(MODEL_NAME, lock.ticket)
        lock.check_held()


def test_one_process_of_several_accounts_has_the_lock(
    ada: Mapping[str, str], bob: Mapping[str, str], tmp_path: Path
) -> None:
    clients = [ada, bob] * 3
    assert race_for_lock(clients, tmp_path / "marker", ROUNDS) == [0] * 6
    with act_as(ada):
        assert read_tickets(MODEL_NAME) == []


# --- accounts -------------------------------------------------------------------------------------------------------


def test_wrong_password_is_not_repeated_in_the_error(server: TeamServer, ada: Mapping[str, str]) -> None:
    wrong = {**ada, "MLFLOW_TRACKING_PASSWORD": "a wrong password"}
    expected = f"{server.uri}: it does not accept your name and password; check MLFLOW_TRACKING_"
    with act_as(wrong), pytest.raises(UserError, match=expected) as error, connect():
        pass
    assert "a wrong password" not in str(error.value)


def test_missing_permission_is_named(server: TeamServer, ada: Mapping[str, str], carol: Mapping[str, str]) -> None:
    expected = f"{server.uri}: your account may not do this; ask its administrator"
    with act_as(carol), pytest.raises(UserError, match=expected), connect(), promotion_lock(MODEL_NAME):
        pass


def test_unencrypted_server_is_named_for_https(server: TeamServer, ada: Mapping[str, str]) -> None:
    secure = {**ada, "MLFLOW_TRACKING_URI": server.uri.replace("http", "https")}
    with act_as(secure), pytest.raises(UserError, match="no secure connection: SSLError"), connect():
        pass
