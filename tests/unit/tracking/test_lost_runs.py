from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pipeline.context import describe_process
from pipeline.tracking.lost_runs import describe_lost_run, end_lost_runs, is_silent
from support.lost_runs import (
    EXPERIMENT,
    OTHER_MACHINE,
    create_running_run,
    log_metric_at,
    make_runs_read_only,
    minutes_ago,
    read_status,
)
from support.promotions import describe_dead_process

# --- end ------------------------------------------------------------------------------------------------------------


def test_run_of_a_dead_process_is_killed(store: Path) -> None:
    run_ids = {create_running_run(describe_dead_process()) for _ in range(2)}
    assert set(end_lost_runs(EXPERIMENT)) == run_ids
    assert {read_status(run_id) for run_id in run_ids} == {"KILLED"}
    assert end_lost_runs(EXPERIMENT) == []


@pytest.mark.parametrize(
    "process", [describe_process(), OTHER_MACHINE, "nonsense", None], ids=["alive", "elsewhere", "unknown", "none"]
)
def test_run_that_may_be_running_is_left(process: str | None, store: Path) -> None:
    run_id = create_running_run(process, started=minutes_ago(600))
    assert end_lost_runs(EXPERIMENT) == []
    assert read_status(run_id) == "RUNNING"


def test_run_ends_at_its_last_sign_of_life(store: Path) -> None:
    run_id = create_running_run(describe_dead_process(), started=minutes_ago(100))
    log_metric_at(run_id, minutes_ago(60))
    end_lost_runs(EXPERIMENT)
    info = MlflowClient().get_run(run_id).info
    assert (info.end_time - info.start_time) / 60_000 == pytest.approx(40, abs=0.1)


def test_only_pending_models_are_failed(store: Path) -> None:
    client = MlflowClient()
    run_id = create_running_run(describe_dead_process())
    experiment_id = client.get_run(run_id).info.experiment_id
    models = [client.create_logged_model(experiment_id, source_run_id=run_id).model_id for _ in range(2)]
    other = client.create_logged_model(experiment_id, source_run_id=create_running_run(None)).model_id
    client.finalize_logged_model(models[0], "READY")
    end_lost_runs(EXPERIMENT)
    statuses = [str(client.get_logged_model(model_id).status) for model_id in (*models, other)]
    assert statuses == ["READY", "FAILED", "PENDING"]


def test_experiment_that_is_missing_has_none(store: Path) -> None:
    assert end_lost_runs("nobody's") == []


@pytest.mark.parametrize("change", ["end", "resume"])
def test_run_that_changes_meanwhile_is_left(change: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = create_running_run(describe_dead_process())
    search = SqlAlchemyStore._search_runs

    def search_late(*args: Any, **kwargs: Any) -> Any:
        runs = search(*args, **kwargs)
        if change == "end":
            MlflowClient().set_terminated(run_id, "FINISHED")
        else:
            MlflowClient().set_tag(run_id, "invocation.process", describe_process())
        return runs

    monkeypatch.setattr(SqlAlchemyStore, "_search_runs", search_late)
    assert end_lost_runs(EXPERIMENT) == []
    assert read_status(run_id) == {"end": "FINISHED", "resume": "RUNNING"}[change]


def test_store_that_refuses_costs_a_warning(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_running_run(describe_dead_process())
    create_running_run(describe_dead_process())
    make_runs_read_only(store)
    assert end_lost_runs(EXPERIMENT) == []
    (record,) = caplog.records
    assert "still says RUNNING although its process is gone" in record.getMessage()


# --- silence --------------------------------------------------------------------------------------------------------


def is_run_silent(run_id: str) -> bool:
    return is_silent(MlflowClient().get_run(run_id))


@pytest.mark.parametrize("process", [OTHER_MACHINE, None])
@pytest.mark.parametrize(("minutes", "expected"), [(59, False), (61, True)])
def test_silence_lasts_an_hour(process: str | None, minutes: float, expected: bool, store: Path) -> None:
    assert is_run_silent(create_running_run(process, started=minutes_ago(minutes))) == expected


@pytest.mark.parametrize(("minutes", "expected"), [(59, False), (61, True)])
def test_newest_metric_is_a_sign(minutes: float, expected: bool, store: Path) -> None:
    run_id = create_running_run(OTHER_MACHINE, started=minutes_ago(300))
    log_metric_at(run_id, minutes_ago(200))
    log_metric_at(run_id, minutes_ago(minutes))
    assert is_run_silent(run_id) == expected


@pytest.mark.parametrize(
    ("alive", "expected"), [("2999-01-01T00:00:00.000+00:00", False), ("2020-01-01T00:00:00+00:00", True), ("?", True)]
)
def test_alive_tag_is_a_sign(alive: str, expected: bool, store: Path) -> None:
    run_id = create_running_run(OTHER_MACHINE, started=minutes_ago(300), **{"invocation.alive": alive})
    assert is_run_silent(run_id) == expected


def test_process_on_this_machine_counts_more(store: Path) -> None:
    assert not is_run_silent(create_running_run(describe_process(), started=minutes_ago(300)))
    assert is_run_silent(create_running_run(describe_dead_process()))


def test_ended_run_is_not_silent(store: Path) -> None:
    run_id = create_running_run(OTHER_MACHINE, started=minutes_ago(300))
    MlflowClient().set_terminated(run_id, "FAILED", end_time=minutes_ago(200))
    assert not is_run_silent(run_id)


# --- the line -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "option"), [("checkpoints", ""), ("a b", " --checkpoint-dir 'a b'")])
def test_line_names_the_command_that_resumes(folder: str, option: str, store: Path) -> None:
    checkpoint = Path(folder, "f00d", "last.pt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    line = describe_lost_run("f00d", Path(folder))
    assert line.endswith(f"; resume it with: python pytorch_demo.py --resume f00d{option}")


def test_line_says_that_no_checkpoint_is_there(store: Path) -> None:
    assert describe_lost_run("f00d").endswith("KILLED; no checkpoint of it is in checkpoints")
