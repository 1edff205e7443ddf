"""Artifact stores that do not take or give files: one line with the address and what to set, exit code 2."""

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact import s3_artifact_repo
from moto.server import ThreadedMotoServer

import evaluate
import lineage
import predict
import promote
import pytorch_demo
from pipeline.errors import UserError
from pipeline.tracking import artifacts, runs
from pipeline.tracking.store import connect
from support.pipelines import PATH_COLUMNS, PipelineRun
from support.proxy import run_proxy
from support.scripts import Result, call_main
from support.servers import find_free_port, is_listening, run_server

EXPERIMENT = "elsewhere"
TRAINING = ("--dataset", "digits", "--epochs", 1, "--experiment", EXPERIMENT, "--store-patience", 0)
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let libraries find no account of the person, or of the machine, that runs the tests; and fail at once."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in (*KEYS, "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # They have the account of the test before.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3_artifact_repo._cached_get_s3_client.cache_clear()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 server without buckets."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def train(location: str) -> Result:
    """Train in an experiment whose files are at ``location``."""
    MlflowClient().create_experiment(EXPERIMENT, artifact_location=location)
    return call_main(pytorch_demo.main, *TRAINING)


def check_error(result: Result, *parts: str) -> None:
    """Check that the script ended with one line, which has these parts, and before the first epoch."""
    assert (result.code, result.stdout) == (2, ""), result
    error = result.stderr.splitlines()[-1]
    for part in ("error: ", *parts):
        assert part in error
    assert "Traceback" not in result.stderr
    assert "epoch 1" not in result.stderr


# --- object stores --------------------------------------------------------------------------------------------------


def test_missing_credentials_are_named(store: Path) -> None:
    result = train("s3://bucket/x")
    check_error(result, "cannot use the artifact store s3://bucket/x: this machine has no credentials for it")
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in result.stderr


def test_missing_bucket_is_named(store: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "MLFLOW_S3_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    result = train("s3://absent/x")
    check_error(result, f"cannot use the artifact store s3://absent/x at {s3}: there is no such bucket; create it")


def test_dead_endpoint_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{find_free_port()}"
    for name, value in {**KEYS, "MLFLOW_S3_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    result = train("s3://bucket/x")
    check_error(result, f"cannot use the artifact store s3://bucket/x at {endpoint}: nothing answers there")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("s3://No_Bucket!/x", "its address is wrong; check MLFLOW_S3_ENDPOINT_URL, the artifact location"),
        ("gs://bucket/x", "the package google, which reaches it, is not installed; run: pip install google-cloud"),
        ("wasbs://c@a.blob.core.windows.net/x", "the package azure, which reaches it, is not installed"),
        ("sftp://me:secret@127.0.0.1:1/x", "is not installed; run: pip install pysftp"),
        ("ftp://me:secret@127.0.0.1:1/x", "the store does not answer (Connection refused)"),
        ("nonsense://bucket/x", "MLflow does not know this kind; install the plug-in"),
    ],
)
def test_other_artifact_stores_are_named(
    store: Path, location: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    experiment_id = MlflowClient().create_experiment(EXPERIMENT, artifact_location=location)
    run_id = runs.create_run(experiment_id, {})
    with pytest.raises(UserError) as error, connect():
        artifacts.log_text(run_id, "text", "a.txt")
    assert reason in str(error.value)
    assert "secret" not in str(error.value)


def test_missing_library_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    check_error(train("s3://bucket/x"), "the package boto3, which reaches it, is not installed; run: pip install boto3")


def test_used_bucket_takes_a_training(store: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "MLFLOW_S3_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="used")
    assert train("s3://used/x").code == 0


# --- every script ---------------------------------------------------------------------------------------------------


def move_artifacts(pipeline: PipelineRun, location: str) -> None:
    """Let the store say that its files are at ``location``."""
    database = sqlite3.connect(pipeline.folder / "mlflow.db")
    with database:
        for table, column in PATH_COLUMNS:
            statement = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(statement, (f"{pipeline.folder}/mlruns", location))
    database.close()


def test_every_script_names_the_artifact_store(digits_pipeline: PipelineRun) -> None:
    folder, run_id = digits_pipeline.folder, digits_pipeline.run_id
    move_artifacts(digits_pipeline, "s3://bucket/x")
    calls: list[tuple[Callable[..., int], tuple[object, ...]]] = [
        (pytorch_demo.main, (*TRAINING, "--from", run_id)),
        (evaluate.main, ("--run-id", run_id)),
        (evaluate.main, ("--run-id", run_id, "--log-only")),
        (promote.main, ("--run-id", run_id, "--wait", 0)),
        (predict.main, ("--run-id", run_id, folder / "absent.png")),
        (lineage.main, ("--run-id", run_id)),
    ]
    for main, options in calls:
        result = call_main(main, *options, folder=folder)
        check_error(result, "cannot use the artifact store s3://bucket/x", "has no credentials", "AWS_ACCESS_KEY_ID")


# --- folders --------------------------------------------------------------------------------------------------------


def test_read_only_folder_is_named(store: Path) -> None:
    check_error(train("/sys/nowhere"), "the store cannot use its file /sys/nowhere")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a server that tells its clients paths."""
    folder = tmp_path_factory.mktemp("server")
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    with run_server(command, folder, lambda: is_listening(port)):
        yield f"http://127.0.0.1:{port}"


def use_server(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Make the server the current store of this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def test_folder_of_the_server_is_named(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = use_server(server, tmp_path, monkeypatch)
    name = "absent folder"
    client.create_experiment(name, artifact_location="/proc/nowhere")
    result = call_main(pytorch_demo.main, *TRAINING, "--experiment", name)
    check_error(result, f"{server}: cannot use the artifact store /proc/nowhere: the server keeps its files in this")
    assert "start the server with --serve-artifacts" in result.stderr


def test_folder_of_the_same_machine_is_used(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = use_server(server, tmp_path, monkeypatch)
    client.create_experiment("shared folder", artifact_location=str(tmp_path / "shared"))
    assert call_main(pytorch_demo.main, *TRAINING, "--experiment", "shared folder").code == 0


def test_folder_of_another_machine_is_noticed(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy answers as a server on another machine, which has the same path and no such files."""
    with run_proxy(server) as proxy:
        client = use_server(proxy.uri, tmp_path, monkeypatch)
        client.create_experiment("another machine", artifact_location=str(tmp_path / "mine"))
        proxy.answer(200, "artifacts/list", body="{}")
        result = call_main(pytorch_demo.main, *TRAINING, "--experiment", "another machine")
    check_error(result, f"cannot use the artifact store {tmp_path}/mine", "the server does not see what is there")


def test_server_that_serves_no_files_any_more_is_named(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = use_server(server, tmp_path, monkeypatch)
    client.create_experiment("served before", artifact_location="mlflow-artifacts:/x")
    result = call_main(pytorch_demo.main, *TRAINING, "--experiment", "served before")
    check_error(result, "the server was started with --no-serve-artifacts; let its administrator start it with")


# --- disks ----------------------------------------------------------------------------------------------------------


def test_full_disk_is_known_before_a_training(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(store)._replace(free=1_000_000)  # a small disk needs root to be made
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    result = call_main(pytorch_demo.main, *TRAINING)
    check_error(result, f"the disk of {store} has 1.0 MB free, and this training writes about")
    assert MlflowClient().search_runs([e.experiment_id for e in MlflowClient().search_experiments()]) == []
