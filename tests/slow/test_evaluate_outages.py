"""evaluate.py while the store is away or refuses: the reports stay on disk, and in the end they are logged once."""

import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

import evaluate
import pytorch_demo
from support.evaluations import REPORT_FILES
from support.proxy import Proxy, run_proxy
from support.scripts import Result, call_main
from support.servers import run_mlflow_server

RECORD = r"PUT .*evaluation\.json"
FIGURE = r"PUT .*confusions\.png"
METRICS = "POST .*runs/log-batch"
SHORT_PATIENCE = ("--store-patience", 0.3)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with run_mlflow_server(tmp_path_factory.mktemp("server")) as uri, run_proxy(uri) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def store(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a directory of the test's own, on the store behind the proxy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    yield
    proxy.pass_everything()


@pytest.fixture(scope="module")
def run_id(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("training"))
        patch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        options = ("--dataset", "digits", "--model", "mlp", "--epochs", 1, "--no-register")
        return str(call_main(pytorch_demo.main, *options).json["run_id"])


def log_evaluation(run_id: str, *options: object) -> Result:
    return call_main(evaluate.main, "--run-id", run_id, "--log-mlflow", *options)


def assert_logged_once(proxy: Proxy, run_id: str, tmp_path: Path) -> None:
    """Check that the store has the files on disk, and each metric once for the evaluation that they are of."""
    folder = Path("evaluation", run_id)
    client = MlflowClient(proxy.uri)
    logged = Path(client.download_artifacts(run_id, "evaluation", str(tmp_path)))
    for name in REPORT_FILES:
        assert (logged / name).read_bytes() == (folder / name).read_bytes()
    record = json.loads((folder / "evaluation.json").read_text())
    milliseconds = round(datetime.fromisoformat(record["time"]).timestamp() * 1000)
    for name in ("loss", "f1"):
        history = client.get_metric_history(run_id, f"evaluation_{name}")
        assert sum(point.timestamp == milliseconds for point in history) == 1


# --- for some seconds -----------------------------------------------------------------------------------------------


def test_short_outage_costs_only_time(proxy: Proxy, run_id: str, tmp_path: Path) -> None:
    proxy.answer(503, METRICS, times=1)
    proxy.reset_connections(RECORD, times=1)
    result = log_evaluation(run_id)
    assert result.code == 0, result
    assert result.stderr.count("the store answers again\n") == 2
    assert_logged_once(proxy, run_id, tmp_path)


def test_lost_answers_double_nothing(proxy: Proxy, run_id: str, tmp_path: Path) -> None:
    for pattern in (RECORD, METRICS, FIGURE):
        proxy.drop_answers(pattern, times=1)
    assert log_evaluation(run_id).code == 0
    assert call_main(evaluate.main, "--run-id", run_id, "--log-only").code == 0
    assert_logged_once(proxy, run_id, tmp_path)


def test_outage_before_the_scoring_costs_only_time(proxy: Proxy, run_id: str) -> None:
    proxy.answer(502, "experiments/search", times=1)
    proxy.answer(502, "GET .*model.pt2", times=1)
    assert call_main(evaluate.main, "--run-id", run_id).code == 0


# --- for longer than the patience ------------------------------------------------------------------------------------


def be_silent(proxy: Proxy) -> None:
    proxy.be_silent(METRICS)


def refuse_large_files(proxy: Proxy) -> None:
    proxy.answer(413, r"PUT .*predictions\.csv")


def reset_connections(proxy: Proxy) -> None:
    proxy.reset_connections(FIGURE)


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (be_silent, "the store does not answer in time"),
        (refuse_large_files, "refuses files of this size (HTTP 413)"),
        (reset_connections, "the connection to the store broke off"),
    ],
)
def test_reports_stay_and_are_logged_later(
    proxy: Proxy, run_id: str, tmp_path: Path, fail: Callable[[Proxy], None], reason: str
) -> None:
    fail(proxy)
    result = log_evaluation(run_id, *SHORT_PATIENCE)
    assert (result.code, result.stdout) == (2, "")
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: the store did not take everything: ")
    assert reason in error
    assert f"the reports are complete in evaluation/{run_id}; " in error
    proxy.pass_everything()
    command = re.search(r"run: python evaluate\.py (.*)", error)
    assert command
    assert call_main(evaluate.main, *shlex.split(command[1])).code == 0
    assert_logged_once(proxy, run_id, tmp_path)


def test_server_that_stops_leaves_the_reports(proxy: Proxy, run_id: str, tmp_path: Path) -> None:
    requests = proxy.count(RECORD)
    proxy.answer(503, METRICS)

    def stop_server() -> None:
        while proxy.count(RECORD) == requests:
            time.sleep(0.001)
        proxy.go_away()

    stopper = threading.Thread(target=stop_server)
    stopper.start()
    error = log_evaluation(run_id, *SHORT_PATIENCE).stderr
    stopper.join()
    assert f"the reports are complete in evaluation/{run_id}; " in error
    assert "nothing answers at " in call_main(evaluate.main, "--run-id", run_id, "--log-only").error
    proxy.come_back()
    proxy.pass_everything()
    assert call_main(evaluate.main, "--run-id", run_id, "--log-only").code == 0
    assert_logged_once(proxy, run_id, tmp_path)


def test_record_and_metrics_are_logged_before_figures(proxy: Proxy, run_id: str) -> None:
    first = len(proxy.requests)
    assert log_evaluation(run_id).code == 0
    logged = [Path(request).name for request in proxy.requests[first:] if re.search(f"PUT|{METRICS}", request)]
    metrics = logged.index("log-batch")
    assert set(logged[:metrics]) == {"evaluation.json", "predictions.csv", "checklist.json", "checklist.md"}
    assert set(logged[metrics + 1 :]) == REPORT_FILES - set(logged[:metrics])
