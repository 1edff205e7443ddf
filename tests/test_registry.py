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


def test_promotion_moves_the_alias_archives_the_earlier_and_ends_the_challenge(store: Path) -> None:
    name = "digits-classifier"
    new_version()
    assert registry.champion(name) is None
    registry.promote(registry.get_version(name, 1))
    new_version()
    registry.promote(registry.get_version(name, 2))
    assert states() == {1: "Archived", 2: "Production"}
    assert aliases() == {"champion": 2}
    champion = registry.champion(name)
    assert champion is not None and int(champion.version) == 2


def test_promoting_an_older_version_leaves_the_challenger(store: Path) -> None:
    new_version(), new_version()
    registry.promote(registry.get_version("digits-classifier", 1))
    assert aliases() == {"champion": 1, "challenger": 2}


def test_promoting_what_is_in_production_changes_nothing(store: Path) -> None:
    new_version()
    registry.promote(registry.get_version("digits-classifier", 1))
    before = registry.get_version("digits-classifier", 1)
    registry.promote(before)
    assert dict(registry.get_version("digits-classifier", 1)) == dict(before)


def test_a_promotion_that_stopped_after_the_alias_is_completed(store: Path) -> None:
    new_version()
    MlflowClient().set_registered_model_alias("digits-classifier", "champion", "1")
    registry.promote(registry.get_version("digits-classifier", 1))
    assert states() == {1: "Production"}


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


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", " padded", "a@b"])
def test_names_that_mlflow_would_refuse_are_refused_before_any_work(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a registered model"):
        registry.check_name(name)
    assert registry.check_name("mnist-classifier") == "mnist-classifier"


def test_tags_are_set_on_the_version(store: Path) -> None:
    new_version()
    registry.tag(registry.get_version("digits-classifier", 1), {"gate.decision": "refused", "n": 1})
    assert registry.get_version("digits-classifier", 1).tags == {"gate.decision": "refused", "n": "1"}
