"""The store behind a proxy that fails: nothing is created twice, and scripts end soon, with one line in plain words."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

import compare
import promote
from pipeline.errors import UserError
from pipeline.promotion.decisions import list_decisions
from pipeline.tracking import outages, registry, runs, sqlite_file
from pipeline.tracking import store as tracking_store
from pipeline.tracking.store import connect
from support.outages import lock_database
from support.promotions import NAME, check_agreement, decide, read_decision_runs, register_version
from support.proxy import Proxy, run_proxy
from support.scripts import Result, call_main, run_script
from support.servers import run_mlflow_server
from support.stores import create_model_run

# What MLflow, its HTTP library and its database library write.
PHRASES = (
    "API request",
    "HTTPConnectionPool",
    "Max retries",
    "Response body",
    "<html>",
    "Error(",
    "Error)",
    "autoflush",
)
DECISION_WRITES = (
    "experiments/create",
    "runs/create",
    "log-batch",
    "PUT ",
    "alias",
    "runs/update",
    "registered-models/set-tag",
    "model-versions/set-tag",
    "registered-models/delete-tag",
)
HISTORY = ("--history", "--model-name", NAME)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def proxy(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Make the server, through a proxy, the current store; pauses and time-outs are short."""
    monkeypatch.setattr(outages, "CREATION_PAUSES", (0.1, 0.1))
    monkeypatch.setattr(outages, "TIMEOUT_PAUSE", 0.1)
    monkeypatch.setattr(tracking_store, "FIRST_REQUEST_TIMEOUT", 2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # without a pause
    monkeypatch.chdir(tmp_path)
    with run_proxy(server) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        with connect():
            yield proxy
    for model in MlflowClient(server).search_registered_models():
        MlflowClient(server).delete_registered_model(model.name)


# --- lost answers ---------------------------------------------------------------------------------------------------


def test_lost_answer_makes_one_run(proxy: Proxy) -> None:
    experiment_id = runs.get_or_create_experiment("lost answers")
    proxy.drop_answers("runs/create", times=1)
    run_id = runs.create_run(experiment_id, {"number": "1"})
    (run,) = runs.search_runs(experiment_id)
    assert (run.info.run_id, run.data.tags["number"]) == (run_id, "1")


def test_lost_answer_makes_one_experiment(proxy: Proxy) -> None:
    proxy.drop_answers("experiments/create", times=1)
    experiment_id = runs.get_or_create_experiment("once")
    assert runs.find_experiment("once") == experiment_id


def test_lost_answers_make_one_version(proxy: Proxy) -> None:
    run_id, model_uri = create_model_run()
    for pattern in ("registered-models/create", "model-versions/create", "transition-stage", "registered-models/alias"):
        proxy.drop_answers(pattern, times=1)
    assert registry.register_model(NAME, model_uri, run_id) == 1
    (version,) = registry.list_versions_of_run(run_id)
    assert version.current_stage == "Staging"
    assert registry.alias_version(NAME, registry.CHALLENGER) == 1


def test_request_that_did_not_arrive_is_sent_again(proxy: Proxy) -> None:
    run_id, model_uri = create_model_run()
    proxy.reset_connections("model-versions/create", times=2)
    assert registry.register_model(NAME, model_uri, run_id) == 1
    assert proxy.count("model-versions/create") == 1


def test_lost_answers_make_one_decision(proxy: Proxy) -> None:
    register_version()
    before = len(read_decision_runs())
    for pattern in DECISION_WRITES:
        proxy.drop_answers(pattern, times=1)
    decision = decide(1)
    assert len(read_decision_runs()) == before + 1
    assert list_decisions(NAME) == [decision]
    check_agreement(1)


# --- scripts --------------------------------------------------------------------------------------------------------


def show_history() -> Result:
    return call_main(promote.main, *HISTORY)


def list_runs() -> Result:
    return call_main(compare.main, "--experiment", "Default")


@pytest.mark.parametrize("script", [show_history, list_runs])
def test_failures_of_a_starting_server_end_nothing(proxy: Proxy, script: Callable[[], Result]) -> None:
    register_version()
    proxy.answer(503, "experiments/search", times=1)
    proxy.answer(502, "experiments/search", times=1)
    proxy.reset_connections("experiments/search", times=1)
    assert script().code == 0


def go_silent(proxy: Proxy) -> None:
    proxy.be_silent()


def go_silent_later(proxy: Proxy) -> None:
    proxy.be_silent("registered-models")
    proxy.be_silent("runs/search")


def break_connections(proxy: Proxy) -> None:
    proxy.reset_connections()


def break_connections_later(proxy: Proxy) -> None:
    proxy.reset_connections("registered-models")
    proxy.reset_connections("runs/search")


def answer_502(proxy: Proxy) -> None:
    proxy.answer(502)


def answer_429(proxy: Proxy) -> None:
    proxy.answer(429, "registered-models", headers={"Retry-After": "3600"})
    proxy.answer(429, "runs/search", headers={"Retry-After": "3600"})


def answer_404(proxy: Proxy) -> None:
    proxy.answer(404)


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (go_silent, "the store does not answer in time; run again when it works"),
        (go_silent_later, "the store does not answer in time; run again when it works"),
        (break_connections, "the connection to the store broke off; run again when it works"),
        (break_connections_later, "the connection to the store broke off; run again when it works"),
        (answer_502, "the store answers HTTP 502; run again when it works"),
        (answer_429, "the store answers HTTP 429; run again when it works"),
        (answer_404, "the store answers HTTP 404; check MLFLOW_TRACKING_URI"),
    ],
)
def test_failure_ends_a_script_with_one_line(proxy: Proxy, fail: Callable[[Proxy], None], reason: str) -> None:
    register_version()
    fail(proxy)
    assert show_history().error == f"error: {proxy.uri}: {reason}"
    assert list_runs().error == f"error: {proxy.uri}: {reason}"


def test_retries_are_not_printed(proxy: Proxy, tmp_path: Path) -> None:
    register_version()
    proxy.reset_connections("registered-models/search", times=1)
    result = run_script(tmp_path, "promote.py", *HISTORY)
    assert result.code == 0
    assert not [phrase for phrase in PHRASES if phrase in result.stderr]


def test_failed_upload_ends_the_decision_with_one_line(proxy: Proxy) -> None:
    register_version()
    proxy.answer(413, "PUT ")
    with pytest.raises(UserError, match=r"the decision is not made: .* refuses files of this size \(HTTP 413\)"):
        decide(1)
    assert registry.alias_version(NAME) is None


def test_request_without_an_answer_in_time_is_sent_again(proxy: Proxy) -> None:
    proxy.be_silent("runs/create", times=1)
    experiment_id = runs.get_or_create_experiment("silent")
    runs.create_run(experiment_id, {})
    assert len(runs.search_runs(experiment_id)) == 1


def test_locked_database_ends_a_script_with_one_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "TIMEOUT", 0.1)
    with lock_database(store):
        error = list_runs().error
    assert "the database of the store is locked by another process; run again when that process is done" in error
    assert not [phrase for phrase in PHRASES if phrase in error]


# --- proxies --------------------------------------------------------------------------------------------------------

PRIVATE_ADDRESS = "http://10.255.255.1:5000"  # a host that MLflow's server knows by default, and that is not there


def test_server_that_only_a_proxy_reaches_is_used(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.uri)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", PRIVATE_ADDRESS)
    assert list_runs().code == 0
    assert proxy.count(f"POST {PRIVATE_ADDRESS}/api/2.0/mlflow/runs/search") > 0


def test_unknown_host_is_no_missing_permission(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.uri)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://store.invalid:5000")
    error = list_runs().error
    assert "http://store.invalid:5000: the server does not know the name by which it is called" in error
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" in error


# --- permissions ----------------------------------------------------------------------------------------------------


def test_refused_registration_is_known_before_a_training(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "RETRY_PAUSES", (0.1,))
    register_version()
    proxy.answer(403, "registered-models/delete-tag")
    with pytest.raises(UserError, match=f"your account may not add versions to the registered model '{NAME}'"):
        registry.check_may_register(NAME)


def test_outage_is_no_refused_registration(proxy: Proxy) -> None:
    register_version()
    proxy.answer(503, "registered-models")
    registry.check_may_register(NAME)
