import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import FEATURE_DISABLED, PERMISSION_DENIED

from pipeline.tracking import registry
from pipeline.tracking.registry import CHAMPION
from support.stores import MODEL_NAME, read_aliases, read_stages, register_version


def promote(number: int) -> None:
    registry.set_alias(MODEL_NAME, CHAMPION, number)
    registry.sync_stages(MODEL_NAME, is_moved=True)


def test_stage_moved_by_hand_is_reported(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    register_version()
    register_version()
    promote(1)
    for number, stage in (("1", "Archived"), ("2", "Production")):
        MlflowClient().transition_model_version_stage(MODEL_NAME, number, stage)
    with caplog.at_level(logging.WARNING):
        registry.sync_stages(MODEL_NAME)
    first, second = [record.getMessage() for record in caplog.records]
    alias = "and the alias champion, which decides, points to version 1"
    assert first.startswith(f"version 2 of digits-classifier has the stage Production, {alias}")
    assert first.endswith("the stage becomes Archived")
    assert second.startswith(f"version 1 of digits-classifier has the stage Archived, {alias}")
    assert second.endswith("the stage becomes Production")
    assert read_stages() == {1: "Production", 2: "Archived"}


def test_promotion_moves_stages_without_a_warning(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    register_version()
    register_version()
    with caplog.at_level(logging.WARNING):
        promote(1)
        promote(2)
        registry.sync_stages(MODEL_NAME)
    assert caplog.records == []


@pytest.mark.parametrize("code", [FEATURE_DISABLED, None])
def test_store_without_stages_has_aliases(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int | None
) -> None:
    def refuse(*_: object) -> None:
        text = "Method 'transition_model_version_stage' is unsupported for models in the Unity Catalog."
        raise MlflowException(text) if code is None else MlflowException("Stages are switched off", code)

    monkeypatch.setattr(MlflowClient, "transition_model_version_stage", refuse)
    with caplog.at_level(logging.INFO, "pipeline"):
        register_version()
        promote(1)
        register_version()
        promote(2)
    assert read_aliases() == {"champion": 2}
    assert read_stages() == {1: "None", 2: "None"}
    assert len([record for record in caplog.records if "no stages" in record.getMessage()]) == 1


def test_missing_permission_is_not_a_store_without_stages(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied", PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "transition_model_version_stage", refuse)
    with pytest.raises(MlflowException, match="Permission denied"):
        register_version()


def test_model_registered_again_stays_the_champion(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_version()
    promote(1)
    version = registry.get_version(MODEL_NAME, 1)
    MlflowClient().transition_model_version_stage(MODEL_NAME, "1", "None")  # as in a store without stages
    registry.register_model(MODEL_NAME, str(version.source), str(version.run_id))
    assert read_aliases() == {"champion": 1}
