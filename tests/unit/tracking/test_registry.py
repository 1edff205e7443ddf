import sqlite3
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias

from pipeline.errors import UserError
from pipeline.tracking import registry
from pipeline.tracking.registry import CHALLENGER, CHAMPION, ModelReference
from support.outages import lock_database
from support.stores import MODEL_NAME, create_model_run, overtaken_by, read_aliases, read_stages, register_version

# --- register -------------------------------------------------------------------------------------------------------


def test_new_version_is_the_challenger_in_staging(store: Path) -> None:
    assert register_version() == 1
    assert register_version() == 2
    assert read_stages() == {1: "Staging", 2: "Staging"}
    assert read_aliases() == {"challenger": 2}


def test_alias_set_meanwhile_by_another_process(store: Path) -> None:
    run_id, model_uri = create_model_run()
    set_first = partial(MlflowClient().set_registered_model_alias, MODEL_NAME, CHALLENGER, "1")
    with overtaken_by(set_first, SqlRegisteredModelAlias):
        assert registry.register_model(MODEL_NAME, model_uri, run_id) == 1
    assert registry.alias_version(MODEL_NAME, CHALLENGER) == 1


def test_model_of_a_run_is_registered_once(store: Path) -> None:
    run_id, model_uri = create_model_run()
    assert [registry.register_model(MODEL_NAME, model_uri, run_id) for _ in range(3)] == [1, 1, 1]
    assert read_stages() == {1: "Staging"}


def test_interrupted_registration_is_completed(store: Path) -> None:
    run_id, model_uri = create_model_run()
    MlflowClient().create_registered_model(MODEL_NAME)
    MlflowClient().create_model_version(MODEL_NAME, model_uri, run_id)
    assert registry.register_model(MODEL_NAME, model_uri, run_id) == 1
    assert read_stages() == {1: "Staging"}
    assert read_aliases() == {"challenger": 1}


def test_repeated_registration_moves_nothing_back(store: Path) -> None:
    run_id, model_uri = create_model_run()
    registry.register_model(MODEL_NAME, model_uri, run_id)
    promote(1)
    register_version()
    registry.register_model(MODEL_NAME, model_uri, run_id)
    assert read_stages() == {1: "Production", 2: "Staging"}
    assert read_aliases() == {"champion": 1, "challenger": 2}


def test_check_of_the_permission_changes_nothing(store: Path) -> None:
    register_version()
    before = dict(MlflowClient().get_registered_model(MODEL_NAME))
    registry.check_may_register(MODEL_NAME)
    assert dict(MlflowClient().get_registered_model(MODEL_NAME)) == before


def test_model_that_does_not_exist_may_be_registered(store: Path) -> None:
    registry.check_may_register("new")
    assert registry.list_model_names() == []


def test_outage_is_not_a_missing_permission(store: Path) -> None:
    register_version()
    with lock_database(store):
        registry.check_may_register(MODEL_NAME)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a:b", " padded", "a@b", "it's", "100%"])
def test_impossible_model_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a registered model"):
        registry.check_model_name(name)


def test_usual_model_name_is_accepted() -> None:
    assert registry.check_model_name("mnist-classifier") == "mnist-classifier"


@pytest.mark.parametrize("name", ["a?b", "a\tb", "x" * 300])
def test_name_that_no_model_should_have_is_refused(store: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a registered model"):
        registry.check_may_register(name)


def test_name_of_an_existing_model_stays_usable(store: Path) -> None:
    MlflowClient().create_registered_model("a?b")
    registry.check_may_register("a?b")
    assert registry.resolve_model_name("a?b") == "a?b"


# --- stages follow the alias ----------------------------------------------------------------------------------------


def promote(number: int) -> None:
    registry.set_alias(MODEL_NAME, CHAMPION, number)
    registry.sync_stages(MODEL_NAME)


def test_champion_is_in_production(store: Path) -> None:
    register_version()
    assert registry.get_champion(MODEL_NAME) is None
    promote(1)
    champion = registry.get_champion(MODEL_NAME)
    assert champion is not None
    assert (int(champion.version), champion.current_stage) == (1, "Production")
    assert read_aliases() == {"champion": 1}


def test_next_champion_archives_the_one_before(store: Path) -> None:
    register_version()
    promote(1)
    register_version()
    promote(2)
    assert read_stages() == {1: "Archived", 2: "Production"}
    assert read_aliases() == {"champion": 2}


def test_older_champion_leaves_the_challenger(store: Path) -> None:
    register_version()
    register_version()
    promote(1)
    assert read_stages() == {1: "Production", 2: "Staging"}
    assert read_aliases() == {"champion": 1, "challenger": 2}


def test_alias_that_may_not_be_deleted_stays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's permission EDIT sets an alias, but does not delete one."""

    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied", PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "delete_registered_model_alias", refuse)
    register_version()
    promote(1)
    assert read_stages() == {1: "Production"}
    assert read_aliases() == {"champion": 1, "challenger": 1}


def test_stages_without_a_champion_stay(store: Path) -> None:
    register_version()
    registry.sync_stages(MODEL_NAME)
    assert read_stages() == {1: "Staging"}


def test_version_gets_a_description_and_tags(store: Path) -> None:
    register_version()
    registry.update_version(MODEL_NAME, 1, "Refused by me.", {"gate.decision": "refused"})
    version = registry.get_version(MODEL_NAME, 1)
    assert version.description == "Refused by me."
    assert version.tags == {"gate.decision": "refused"}


# --- find versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "number"), [(MODEL_NAME, 9), ("nobody", 1)])
def test_unknown_version_is_named(store: Path, name: str, number: int) -> None:
    register_version()
    with pytest.raises(UserError, match=f"no version {number} of a model '{name}'"):
        registry.get_version(name, number)


def test_version_is_a_number_or_an_alias(store: Path) -> None:
    register_version()
    assert registry.resolve_version(MODEL_NAME, "7") == 7
    assert registry.resolve_version(MODEL_NAME, "@challenger") == 1
    with pytest.raises(UserError, match="no version of 'digits-classifier' has the alias 'champion'"):
        registry.resolve_version(MODEL_NAME, "@champion")


def test_newest_version_of_a_run_is_returned(store: Path) -> None:
    run_id, model_uri = create_model_run()
    experiment_id = MlflowClient().get_run(run_id).info.experiment_id
    second = MlflowClient().create_logged_model(experiment_id, source_run_id=run_id)
    for uri in (model_uri, f"models:/{second.model_id}"):
        registry.register_model(MODEL_NAME, uri, run_id)
    version = registry.get_version_of_run(run_id, None)
    assert int(version.version) == 2
    assert version.aliases == ["challenger"]


def test_unregistered_run_is_named(store: Path) -> None:
    run_id, model_uri = create_model_run()
    with pytest.raises(UserError, match=f"run {run_id} is not registered; train without --no-register"):
        registry.get_version_of_run(run_id, None)
    registry.register_model(MODEL_NAME, model_uri, run_id)
    with pytest.raises(UserError, match="is not registered as 'other'"):
        registry.get_version_of_run(run_id, "other")


def test_run_with_two_model_names_needs_a_choice(store: Path) -> None:
    run_id, model_uri = create_model_run()
    for name in (MODEL_NAME, "second"):
        registry.register_model(name, model_uri, run_id)
    with pytest.raises(UserError, match="as digits-classifier, second; choose one with --model-name"):
        registry.get_version_of_run(run_id, None)
    assert registry.get_version_of_run(run_id, "second").name == "second"


def test_alias_says_what_is_in_production(store: Path) -> None:
    run_ids = []
    for _ in range(3):
        run_id, model_uri = create_model_run()
        registry.register_model(MODEL_NAME, model_uri, run_id)
        run_ids.append(run_id)
    promote(1)
    registry.set_alias(MODEL_NAME, CHAMPION, 2)  # by hand: the stages stay
    described = registry.describe_stages()
    assert [described[run_id] for run_id in run_ids] == [
        "digits-classifier 1",
        "digits-classifier 2 Production",
        "digits-classifier 3 Staging",
    ]


def test_stages_are_described_by_run(store: Path) -> None:
    run_id, model_uri = create_model_run()
    registry.register_model(MODEL_NAME, model_uri, run_id)
    promote(1)
    MlflowClient().create_registered_model("second")
    MlflowClient().create_model_version("second", model_uri, run_id)
    assert registry.describe_stages()[run_id] in (
        "digits-classifier 1 Production, second 1",
        "second 1, digits-classifier 1 Production",
    )


@pytest.mark.parametrize("others", [0, 150, 600])
def test_stages_are_those_of_the_wanted_runs(store: Path, others: int) -> None:
    register_version()
    run_id, model_uri = create_model_run()
    registry.register_model(MODEL_NAME, model_uri, run_id)
    wanted = [*(f"{i:032x}" for i in range(others)), run_id]
    assert registry.describe_stages(wanted)[run_id] == "digits-classifier 2 Staging"
    assert registry.describe_stages([]) == {}


# --- find models ----------------------------------------------------------------------------------------------------


def test_only_model_needs_no_name(store: Path) -> None:
    register_version()
    assert registry.resolve_model_name(None) == MODEL_NAME
    assert registry.resolve_model_name(MODEL_NAME) == MODEL_NAME


@pytest.fixture
def many_models(store: Path) -> Path:
    """Add more models than MLflow lists in one answer."""
    rows = [(f"model-{number:04}", "default", 0, 0) for number in range(1_001)]
    columns = "(name, workspace, creation_time, last_updated_time)"
    with sqlite3.connect(store / "mlflow.db") as database:
        database.executemany(f"INSERT INTO registered_models {columns} VALUES (?, ?, ?, ?)", rows)
    database.close()
    return store


def test_last_of_a_thousand_models_is_found(many_models: Path) -> None:
    assert registry.resolve_model_name("model-1000") == "model-1000"
    assert len(registry.list_model_names()) == 1_001


def test_error_does_not_list_a_thousand_models(many_models: Path) -> None:
    with pytest.raises(UserError, match=r"this store has model-0000, .*, model-0009 and 991 others"):
        registry.resolve_model_name("nobody")


def test_empty_store_has_no_model(store: Path) -> None:
    with pytest.raises(UserError, match="this store has none: train one first"):
        registry.resolve_model_name(None)


@pytest.mark.parametrize(
    ("name", "problem"),
    [(None, "choose a registered model with --model-name"), ("nobody", "there is no registered model 'nobody'")],
)
def test_unclear_model_name_lists_the_models(store: Path, name: str | None, problem: str) -> None:
    register_version()
    register_version("other")
    with pytest.raises(UserError, match=f"{problem}; this store has digits-classifier, other"):
        registry.resolve_model_name(name)


def test_model_in_production_is_the_default(store: Path) -> None:
    register_version()
    with pytest.raises(UserError, match="no version of 'digits-classifier' is in Production"):
        registry.resolve_model(None, None, None)
    promote(1)
    expected = ModelReference("models:/digits-classifier/1", MODEL_NAME, 1)
    assert registry.resolve_model(None, None, None) == expected


def test_model_of_a_run_has_its_newest_version(store: Path) -> None:
    register_version()
    run_id, model_uri = create_model_run()
    output = LoggedModelOutput(model_uri.removeprefix("models:/"), step=0)
    MlflowClient().log_outputs(run_id, [output])
    assert registry.resolve_model(None, run_id, None) == ModelReference(model_uri, None, None)
    registry.register_model(MODEL_NAME, model_uri, run_id)
    assert registry.resolve_model(None, run_id, None) == ModelReference(model_uri, MODEL_NAME, 2)


@pytest.mark.parametrize("uri", ["models:/digits-classifier/1", "models:/digits-classifier@challenger"])
def test_address_of_a_version_is_resolved(store: Path, uri: str) -> None:
    register_version()
    expected = ModelReference("models:/digits-classifier/1", MODEL_NAME, 1)
    assert registry.resolve_model(uri, None, None) == expected


@pytest.mark.parametrize("uri", ["models:/m-123", "runs:/8f1c/model", "folder/model"])
def test_other_addresses_stay_as_they_are(store: Path, uri: str) -> None:
    assert registry.resolve_model(uri, None, None) == ModelReference(uri, None, None)
