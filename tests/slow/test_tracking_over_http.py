"""The store behind the team's server: over HTTP, on a database server, with accounts."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

import pytorch_demo
from pipeline.errors import UserError
from pipeline.promotion.lock import promotion_lock, read_tickets, remove_ticket
from pipeline.tracking import registry, runs, tags
from pipeline.tracking.store import StoreError, connect
from support.accounts import act_as, create_account, grant_edit
from support.lock_race import MODEL_NAME, race_for_lock
from support.scripts import call_main
from support.stack import TeamServer
from support.stores import create_model_run

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


# --- names that the database takes for one ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dora(server: TeamServer) -> Mapping[str, str]:
    """Return an account with a model and an experiment."""
    client = create_account(server, "dora")
    with act_as(client):
        MlflowClient().create_registered_model("letters")
        MlflowClient().create_experiment("letters")
    return client


@pytest.mark.parametrize("name", ["Letters", "lett\u00e9rs"])
def test_model_name_is_the_exact_one(dora: Mapping[str, str], name: str) -> None:
    changes: list[Callable[[], object]] = [
        lambda: registry.check_may_register(name),
        lambda: registry.resolve_model_name(name),
        lambda: registry.set_alias(name, registry.CHAMPION, 1),
        lambda: tags.set_model_tag(name, "tag", "value"),
        lambda: tags.set_version_tag(name, 1, "tag", "value"),
    ]
    with act_as(dora):
        for change in changes:
            with pytest.raises(UserError, match="the store has the model 'letters', and its database takes"):
                change()
        assert tags.read_model_tags("letters") == {}


def test_refused_version_leaves_the_list_of_models(dora: Mapping[str, str]) -> None:
    with act_as(dora):
        run_id, model_uri = create_model_run()
        with pytest.raises(UserError, match="takes 'LETTERS' for the same name"):
            registry.register_model("LETTERS", model_uri, run_id)
        assert "letters" in registry.list_model_names()
        assert registry.list_versions("letters") == []


def test_training_does_not_begin_under_a_similar_name(dora: Mapping[str, str]) -> None:
    with act_as(dora):
        model = call_main(pytorch_demo.main, "--dataset", "digits", "--model-name", "Letters")
        experiment = call_main(pytorch_demo.main, "--dataset", "digits", "--experiment", "LETTERS")
    assert "the store has the model 'letters', and its database takes 'Letters' for the same name" in model.error
    assert "the store has the experiment 'letters', and its database takes 'LETTERS'" in experiment.error


def test_run_id_is_the_exact_one(dora: Mapping[str, str]) -> None:
    with act_as(dora):
        run_id = runs.create_run(runs.get_or_create_experiment("letters"), {})
        with pytest.raises(UserError, match="for the same name"):
            runs.get_run(run_id.upper())


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
