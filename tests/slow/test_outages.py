"""Trainings whose store goes away, refuses or loses answers: no epoch and no metric is lost or doubled."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.proxy import Proxy, run_proxy
from support.scripts import Result, run_script, start_script
from support.servers import run_mlflow_server
from support.stores import open_store
from support.trainings import (
    OPTIONS,
    Reference,
    assert_complete,
    find_run_id,
    train_reference,
    wait_for_epoch,
)

# Every request that changes something, in the order of a training.
WRITES = (
    "runs/create",
    "runs/log-batch",
    "runs/log-inputs",
    "PUT .*packages.txt",
    "logged-models$",
    "runs/outputs",
    "PUT .*model.pt2",
    "PATCH .*logged-models",
    "registered-models/create",
    "model-versions/create",
    "transition-stage",
    "registered-models/alias",
    "PUT .*confusion_matrix.png",
    "runs/update",
)
MLFLOW_PHRASES = ("API request", "HTTPConnectionPool", "Traceback", "Response body", "RESOURCE_", "INTERNAL_ERROR")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with run_proxy(server) as proxy:
        yield proxy


@pytest.fixture
def reference(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Reference:
    return train_reference(tmp_path_factory, empty_store)


def train(folder: Path, proxy: Proxy, *options: object, on_epoch: Callable[[], None] | None = None) -> Result:
    """Train in an experiment and a model of the folder's own; call ``on_epoch`` after the first epoch."""
    names = ("--experiment", folder.name, "--model-name", folder.name)
    env = {"MLFLOW_TRACKING_URI": proxy.uri}
    process = start_script(folder, "pytorch_demo.py", *OPTIONS, *names, *options, env=env)
    wait_for_epoch(process)
    if on_epoch:
        on_epoch()
    return process.wait()


def resume(folder: Path, proxy: Proxy, run_id: str) -> Result:
    names = ("--experiment", folder.name, "--model-name", folder.name)
    env = {"MLFLOW_TRACKING_URI": proxy.uri}
    return run_script(folder, "pytorch_demo.py", "--resume", run_id, *names, env=env)


def count_phrases(stderr: str) -> int:
    return sum(phrase in stderr for phrase in MLFLOW_PHRASES)


# --- what costs nothing but time ------------------------------------------------------------------------------------


def answer_503(proxy: Proxy) -> None:
    proxy.answer(503, "runs/log-batch", times=3)
    proxy.answer(503, "PUT .*model.pt2", times=2)


def answer_429(proxy: Proxy) -> None:
    proxy.answer(429, "runs/log-batch", times=3, headers={"Retry-After": "3600"})
    proxy.answer(429, "logged-models$", times=1, headers={"Retry-After": "3600"})


def stay_away_for_some_seconds(proxy: Proxy) -> None:
    proxy.go_away()
    time.sleep(4)
    proxy.come_back()


def be_silent_once(proxy: Proxy) -> None:
    proxy.be_silent("runs/log-batch", times=1)


def reset_connections(proxy: Proxy) -> None:
    proxy.reset_connections(times=4)


SHORT_OUTAGES = (answer_503, answer_429, stay_away_for_some_seconds, be_silent_once, reset_connections)


@pytest.mark.parametrize("fail", SHORT_OUTAGES)
def test_short_outage_costs_nothing(
    tmp_path: Path, proxy: Proxy, server: str, reference: Reference, fail: Callable[[Proxy], None]
) -> None:
    result = train(tmp_path, proxy, on_epoch=lambda: fail(proxy))
    assert result.code == 0, result.stderr
    assert count_phrases(result.stderr) == 0, result.stderr
    assert_complete(MlflowClient(server), tmp_path, result.json["run_id"], reference)


def test_lost_answers_double_nothing(tmp_path: Path, proxy: Proxy, server: str, reference: Reference) -> None:
    for pattern in WRITES:
        proxy.drop_answers(pattern, times=1)
    result = train(tmp_path, proxy)
    assert result.code == 0, result.stderr
    assert proxy.count("runs/create") == 1
    assert proxy.count("model-versions/create") == 1
    assert_complete(MlflowClient(server), tmp_path, result.json["run_id"], reference)


# --- what ends a script ---------------------------------------------------------------------------------------------


def go_away(proxy: Proxy) -> None:
    proxy.go_away()


def refuse_large_files(proxy: Proxy) -> None:
    proxy.answer(413, "PUT .*model.pt2")


def refuse_registration(proxy: Proxy) -> None:
    proxy.answer(400, "model-versions/create")


def answer_503_to_uploads(proxy: Proxy) -> None:
    proxy.answer(503, "PUT ")


def refuse_the_end(proxy: Proxy) -> None:
    proxy.answer(502, "runs/update")


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (go_away, "nothing answers"),
        (answer_503_to_uploads, "HTTP 503"),
        (refuse_large_files, "HTTP 413"),
        (refuse_registration, "HTTP 400"),
        (refuse_the_end, "HTTP 502"),
    ],
)
def test_complete_training_is_logged_by_resume(
    tmp_path: Path, proxy: Proxy, server: str, reference: Reference, fail: Callable[[Proxy], None], reason: str
) -> None:
    result = train(tmp_path, proxy, "--store-patience", 1, on_epoch=lambda: fail(proxy))
    assert (result.code, result.stdout) == (2, "")
    (folder,) = (tmp_path / "checkpoints").iterdir()
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert reason in error
    assert f"the training is complete in checkpoints/{folder.name}" in error
    assert error.endswith(f"python pytorch_demo.py --resume {folder.name}")
    assert count_phrases(result.stderr) == 0, result.stderr
    assert (folder / "model" / "data" / "model.pt2").exists()
    assert {file.name for file in (folder / "reports").iterdir()} >= {"confusion_matrix.png", "model_summary.txt"}

    if fail is go_away:
        proxy.come_back()
    proxy.pass_everything()
    resumed = resume(tmp_path, proxy, folder.name)
    assert resumed.code == 0, resumed.stderr
    assert "epoch 1" not in resumed.stderr
    assert_complete(MlflowClient(server), tmp_path, folder.name, reference)


def test_unwritable_artifact_folder_loses_nothing(tmp_path: Path, empty_store: Path, reference: Reference) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    process = start_script(tmp_path, "pytorch_demo.py", *OPTIONS)
    wait_for_epoch(process)
    (tmp_path / "mlruns").rename(tmp_path / "elsewhere")
    (tmp_path / "mlruns").write_text("a file")
    result = process.wait()
    run_id = str(find_run_id(tmp_path))
    assert result.code == 2
    assert f"the training is complete in checkpoints/{run_id}" in result.stderr.splitlines()[-1]
    (tmp_path / "mlruns").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "mlruns")
    assert run_script(tmp_path, "pytorch_demo.py", "--resume", "last").code == 0
    assert_complete(open_store(tmp_path), tmp_path, run_id, reference)
