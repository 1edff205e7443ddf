"""Many processes at once on one store."""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline.promotion.decisions import PROMOTED, UNCHANGED, list_decisions
from pipeline.promotion.lock import read_tickets
from support.pipelines import PipelineRun
from support.promotions import NAME, check_agreement
from support.scripts import ROOT, Result, run_at_once
from support.servers import run_mlflow_server
from support.stores import register_once_more

VERSIONS = 3
PROCESSES = 8


@pytest.fixture
def versions(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the directory of a store with three versions, none of them in Production."""
    folder = digits_pipeline.folder
    shutil.copy(folder / "before.db", folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    for _ in range(VERSIONS - 1):
        register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    yield folder
    mlflow.set_tracking_uri(uri)


def check_result(result: Result) -> None:
    assert result.code == 0, result
    assert result.json["decision"] in (PROMOTED, UNCHANGED)
    assert "Traceback" not in result.stderr
    assert "ERROR" not in result.stderr
    waits = [line for line in result.stderr.splitlines() if line.startswith("waiting for ")]
    assert len(waits) == len(set(waits))  # a line for each process that it waited for


@pytest.mark.parametrize("over_http", [False, True], ids=["sqlite", "http"])
def test_eight_promotions_at_once_decide_in_turn(versions: Path, over_http: bool) -> None:
    calls = [("--model-name", NAME, "--version", 1 + index % VERSIONS) for index in range(PROCESSES)]
    uri = f"sqlite:///{versions}/mlflow.db"
    with run_mlflow_server(versions) if over_http else nullcontext(uri) as address:
        results = run_at_once(versions, "promote.py", calls, env={"MLFLOW_TRACKING_URI": address})
    for result in results:
        check_result(result)
    decisions = list_decisions(NAME)
    assert [decision.number for decision in decisions] == list(range(1, PROCESSES + 1))
    in_production = None  # each was compared with what the one before had put in Production
    for decision in decisions:
        assert decision.previous_version == in_production
        assert decision.kind == (UNCHANGED if decision.version == in_production else PROMOTED)
        in_production = decision.version
    assert in_production is not None
    check_agreement(in_production)
    assert read_tickets(NAME) == []


FIRST_RUN_SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pipeline.tracking import runs, store

with store.connect(creates=True), runs.start_run("demo", None) as run_id:
    runs.log_metrics(run_id, {{"train_loss": 1.0}}, step=1)
"""


def test_twelve_first_runs_on_an_empty_store_succeed(tmp_path: Path) -> None:
    script = tmp_path / "first_run.py"
    script.write_text(FIRST_RUN_SCRIPT.format(root=str(ROOT)))
    results = run_at_once(tmp_path, str(script), [()] * 12)
    assert [result.code for result in results] == [0] * 12, results
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    finished = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in finished] == ["FINISHED"] * 12
    assert [run.data.metrics for run in finished] == [{"train_loss": 1.0}] * 12
