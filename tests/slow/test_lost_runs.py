"""Lost runs on the team's server: over HTTP, with accounts."""

import pytest
from mlflow import MlflowClient

from pipeline.tracking.lost_runs import end_lost_runs
from support.accounts import act_as, create_account
from support.lost_runs import EXPERIMENT, OTHER_MACHINE, create_running_run, log_metric_at, minutes_ago, read_status
from support.promotions import describe_dead_process
from support.stack import TeamServer


def test_only_who_may_change_a_run_ends_it(server: TeamServer, caplog: pytest.LogCaptureFixture) -> None:
    ada, bob = create_account(server, "ada"), create_account(server, "bob")
    with act_as(ada):
        client = MlflowClient()
        run_id = create_running_run(describe_dead_process(), started=minutes_ago(100))
        create_running_run(OTHER_MACHINE)
        log_metric_at(run_id, minutes_ago(60))
        model = client.create_logged_model(client.get_run(run_id).info.experiment_id, source_run_id=run_id)
    with act_as(bob):
        assert end_lost_runs(EXPERIMENT) == []
    with act_as(ada):
        assert read_status(run_id) == "RUNNING"
        assert end_lost_runs(EXPERIMENT) == [run_id]
        assert read_status(run_id) == "KILLED"
        assert str(client.get_logged_model(model.model_id).status) == "FAILED"
    assert caplog.records == []
