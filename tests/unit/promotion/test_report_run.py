import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from pipeline.promotion.decisions import list_decisions
from pipeline.tracking import runs, tags
from support.promotions import NAME, check_agreement, decide, list_kinds, register_version

FIRST = f"{NAME}-promotions"


@pytest.fixture(autouse=True)
def first_version(store: object) -> None:
    """Register version 1."""
    register_version()


def name_of_experiment() -> str:
    """Return where the report of the last decision is; the model remembers it."""
    run = runs.get_run(list_decisions(NAME)[-1].decision_run_id)
    assert tags.read_model_tags(NAME)["promotions.experiment_id"] == run.info.experiment_id
    return str(MlflowClient().get_experiment(run.info.experiment_id).name)


def refuse_runs(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these experiments belong to somebody else."""
    create_run = MlflowClient.create_run

    def refuse(client: MlflowClient, experiment_id: str, **options: object) -> object:
        if client.get_experiment(experiment_id).name in names:
            raise MlflowException("Permission denied", PERMISSION_DENIED)
        return create_run(client, experiment_id, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "create_run", refuse)


def test_reports_of_a_model_are_in_one_experiment() -> None:
    decide(1)
    decide(1)
    assert name_of_experiment() == FIRST
    assert len({runs.get_run(decision.decision_run_id).info.experiment_id for decision in list_decisions(NAME)}) == 1


def test_experiment_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runs.get_or_create_experiment(FIRST)
    runs.get_or_create_experiment(f"{FIRST}-2")
    refuse_runs(monkeypatch, FIRST, f"{FIRST}-2")
    decide(1)
    check_agreement(1)
    assert name_of_experiment() == f"{FIRST}-3"


def test_squatter_of_every_name_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [FIRST, *(f"{FIRST}-{number}" for number in range(2, 40))]
    for name in names:
        runs.get_or_create_experiment(name)
    refuse_runs(monkeypatch, *names)
    decide(1)
    assert name_of_experiment().startswith(f"{FIRST}-")
    assert name_of_experiment() not in names


def test_deleted_experiment_is_left_alone() -> None:
    MlflowClient().delete_experiment(runs.get_or_create_experiment(FIRST))
    decide(1)
    assert name_of_experiment() == f"{FIRST}-2"


def test_experiment_deleted_later_is_replaced() -> None:
    decide(1)
    MlflowClient().delete_experiment(tags.read_model_tags(NAME)["promotions.experiment_id"])
    decide(1)
    assert name_of_experiment() == f"{FIRST}-2"
    assert list_kinds() == ["promoted", "unchanged"]


def test_renamed_experiment_is_still_used() -> None:
    decide(1)
    MlflowClient().rename_experiment(tags.read_model_tags(NAME)["promotions.experiment_id"], "our decisions")
    decide(1)
    assert name_of_experiment() == "our decisions"


@pytest.mark.parametrize("value", ["garbage", "", "9" * 18, "9" * 30, "../1", "1' or '1"])
def test_bad_experiment_id_is_replaced(value: str) -> None:
    MlflowClient().set_registered_model_tag(NAME, "promotions.experiment_id", value)
    decide(1)
    assert name_of_experiment() == FIRST
