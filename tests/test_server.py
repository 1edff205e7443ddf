"""The team's server: the processes of deploy/compose.yaml, over HTTP, with accounts."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import stack
from conftest import ROOT, Result, call, forked, free_port, git, missing, run_script
from mlflow import MlflowClient
from mlflow.server import get_app_client
from stack import Stack

import compare
import lineage
import promote

NAME = "digits-classifier"
FLAGS = ("--dataset", "digits")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Stack]:
    """Start the server; skip, saying so, where MariaDB is not installed."""
    if not shutil.which("mariadb-install-db"):
        missing("MariaDB is not installed: apt-get install mariadb-server")
    with stack.started(tmp_path / "server") as running:
        yield running


def account(server: Stack, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, str]:
    """Make an ordinary account and return the environment of its client."""
    become(monkeypatch, server.admin)
    password = f"{name}'s long password"
    get_app_client("basic-auth", tracking_uri=server.uri).create_user(name, password)
    return server.client(name, password)


def become(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    """Make this process a client with that environment."""
    for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(key, raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    mlflow.set_tracking_uri(env["MLFLOW_TRACKING_URI"])


def contents(client: MlflowClient) -> dict[str, Any]:
    """Return everything that the server holds: runs with all they have, versions, aliases, SHA-256 of the artifacts."""
    experiments = client.search_experiments()
    runs = {run.info.run_id: run for each in experiments for run in client.search_runs([each.experiment_id])}
    versions = client.search_model_versions()
    files: dict[str, str] = {}
    for run_id in runs:
        for path in map(Path, [client.download_artifacts(run_id, "")]):
            files |= {
                f"{run_id}/{file.relative_to(path)}": hashlib.sha256(file.read_bytes()).hexdigest()
                for file in path.rglob("*")
                if file.is_file()
            }
    for version in versions:
        path = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}"))
        files[f"version {version.version}"] = hashlib.sha256((path / "data" / "model.pt2").read_bytes()).hexdigest()
    return {
        "experiments": {each.experiment_id: each.name for each in experiments},
        "runs": {run_id: _sorted(run.to_dictionary()) for run_id, run in runs.items()},
        "versions": {version.version: (version.name, version.current_stage, version.run_id) for version in versions},
        "aliases": client.get_registered_model(NAME).aliases,
        "files": files,
    }


def _sorted(run: dict[str, Any]) -> dict[str, Any]:
    """Return the run with its inputs, which come in any order, in one order."""
    run["inputs"]["dataset_inputs"].sort(key=lambda each: each["dataset"]["name"])
    return run


def test_an_ordinary_account_has_the_whole_pipeline_and_its_work_survives_a_backup(
    server: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = account(server, monkeypatch, "ada")
    work = tmp_path / "work"
    work.mkdir()
    said: list[Result] = []

    def script(name: str, *options: object) -> Result:
        said.append(run_script(work, name, *options, env=ada))
        assert said[-1].code == 0, said[-1]
        return said[-1]

    def here(main: Any, *options: object) -> Result:
        said.append(call(main, *options))
        assert said[-1].code == 0, said[-1]
        return said[-1]

    become(monkeypatch, ada)
    monkeypatch.chdir(work)
    first, second = (
        script("pytorch_demo.py", *FLAGS, "--epochs", epochs, "--seed", epochs).json["run_id"] for epochs in (18, 20)
    )
    for run_id in (first, second):
        script("evaluate.py", "--run-id", run_id, "--log-mlflow")
        assert here(promote.main, "--run-id", run_id).json["decision"] == "promoted"
    here(promote.main, "--rollback", "--reason", "to see that it works")
    history = here(promote.main, "--history", "--json").json["reigns"]
    assert [reign["version"] for reign in history] == [1, 2, 1]
    assert here(lineage.main, "--json").json["unanswered"] == []
    assert len(here(compare.main).stdout.splitlines()) == 4
    assert not list(work.glob("mlflow.db")) and not list(work.glob("mlruns"))  # everything is on the server

    # The tables are in MariaDB, the files in the bucket.
    assert server.rows(f"SELECT status FROM runs WHERE run_uuid = '{first}'") == [("FINISHED",)]
    assert server.rows(f"SELECT COUNT(*) FROM metrics WHERE run_uuid = '{first}' AND `key` = 'train_loss'") == [(18,)]
    objects = server.objects()
    assert {f"1/{first}/artifacts/evaluation/evaluation.json", f"1/{first}/artifacts/confusion_matrix.png"} < objects
    assert any(name.endswith("data/model.pt2") for name in objects)

    # No secret is in what the scripts said, in a table or in a file.
    hidden = [ada["MLFLOW_TRACKING_PASSWORD"], *(server.env[name] for name in server.env if _is_secret(name))]
    assert len(hidden) >= 5
    archive = backup(server, "save")
    for place in (*(result.stdout + result.stderr for result in said), archive.decode(errors="replace")):
        assert not [secret for secret in hidden if secret in place]

    # Who has no permission cannot promote, who has no account cannot read.
    before = contents(MlflowClient())
    bob = account(server, monkeypatch, "bob")
    become(monkeypatch, bob)
    assert call(promote.main, "--history", "--json").json["reigns"] == history  # reading is what everybody may
    refused = call(promote.main, "--run-id", second)
    assert refused.error == f"error: {server.uri}: your account may not do this; ask its administrator"
    become(monkeypatch, bob | {"MLFLOW_TRACKING_PASSWORD": "not bob's password"})
    wrong = call(promote.main, "--history").error
    assert wrong.startswith(f"error: {server.uri}: it does not accept your name and password; check MLFLOW_TRACKING_")
    assert "not bob's password" not in wrong
    assert ui(server, bob) == 200 and ui(server, None) == 401
    become(monkeypatch, {"MLFLOW_TRACKING_URI": server.uri})
    assert "it does not accept your name and password" in call(promote.main, "--history").error
    become(monkeypatch, {"MLFLOW_TRACKING_URI": server.uri.replace("http", "https")})
    assert "no secure connection: SSLError" in call(promote.main, "--history").error

    # Nothing has moved. The administrator lets the other in, as docs/server.md says: now it can promote.
    become(monkeypatch, server.admin)
    assert contents(MlflowClient()) == before
    administrator = get_app_client("basic-auth", tracking_uri=server.uri)
    for experiment in MlflowClient().search_experiments():
        administrator.grant_user_permission("bob", "experiment", experiment.experiment_id, "EDIT")
    administrator.grant_user_permission("bob", "registered_model", NAME, "EDIT")
    become(monkeypatch, bob)
    assert here(promote.main, "--run-id", second).json["decision"] == "promoted"
    history = here(promote.main, "--history", "--json").json["reigns"]
    assert [reign["version"] for reign in history] == [1, 2, 1, 2]

    # Backup, wipe, restore: everything is as it was, the accounts too.
    become(monkeypatch, ada)
    before = contents(MlflowClient())
    archive = backup(server, "save")
    assert b"the server is not empty" in backup(server, "restore", archive, code=2)
    with stack.started(tmp_path / "another") as another:
        backup(another, "restore", archive)
        become(monkeypatch, bob | {"MLFLOW_TRACKING_URI": another.uri})
        assert contents(MlflowClient()) == before
        assert call(promote.main, "--history", "--json").json["reigns"] == history


def ui(server: Stack, env: dict[str, str] | None) -> int:
    """Return the status with which the server answers a browser with that account, or with none."""
    account = f"{env['MLFLOW_TRACKING_USERNAME']}:{env['MLFLOW_TRACKING_PASSWORD']}" if env else ""
    headers = {"Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"} if env else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.uri, headers=headers), timeout=60) as answer:
            assert b"<title>MLflow</title>" in answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _is_secret(name: str) -> bool:
    return name.endswith(("PASSWORD", "SECRET_KEY", "SECRET_ACCESS_KEY", "ACCESS_KEY_ID"))


def backup(server: Stack, what: str, archive: bytes = b"", code: int = 0) -> bytes:
    """Run deploy/backup.py beside the server; return what it wrote, or its error where it fails."""
    command = [sys.executable, str(ROOT / "deploy" / "backup.py"), what]
    done = subprocess.run(command, env=server.env, input=archive, capture_output=True)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_sixteen_trainings_at_once_lose_nothing_nor_does_one_whose_server_is_killed(
    server: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = account(server, monkeypatch, "ada")

    small = (*FLAGS, "--seed", "NUMBER", "--epochs", 3, "--limit", 300)
    codes = forked(tmp_path, "race", "pytorch_demo", 16, server.uri, tmp_path, *small, env=ada)
    failed = [(tmp_path / f"{number}.stderr").read_text() for number, code in enumerate(codes) if code]
    assert (codes, failed) == ([0] * 16, [])
    runs = [json.loads((tmp_path / f"{number}.stdout").read_text())["run_id"] for number in range(16)]
    assert len(set(runs)) == 16
    assert server.rows("SELECT status, COUNT(*) FROM runs GROUP BY status") == [("FINISHED", 16)]
    counted = server.rows("SELECT run_uuid, `key`, COUNT(DISTINCT step) FROM metrics GROUP BY run_uuid, `key`")
    per_epoch = {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
    assert {(run, key): steps for run, key, steps in counted if key in per_epoch} == {
        (run, key): 3 for run in runs for key in per_epoch
    }
    versions = server.rows("SELECT version FROM model_versions ORDER BY version")
    assert versions == [(number,) for number in range(1, 17)]

    # The server is killed in the middle of a training, and started again some seconds later.
    answer: list[Result] = []
    long = ("--epochs", 300)
    training = threading.Thread(
        target=lambda: answer.append(run_script(tmp_path, "pytorch_demo.py", *FLAGS, *long, env=ada))
    )
    training.start()
    epochs = "SELECT COUNT(*) FROM metrics WHERE step > 20 AND `key` = 'train_loss'"
    end = time.monotonic() + 120
    while server.rows(epochs) == [(0,)] and time.monotonic() < end:
        time.sleep(0.2)
    server.stop()
    ((reached,),) = server.rows("SELECT MAX(step) FROM metrics")
    assert 20 < reached < 300
    time.sleep(3)
    server.start()
    training.join()
    assert answer[0].code == 0, answer[0]
    run_id = answer[0].json["run_id"]
    assert server.rows(f"SELECT status FROM runs WHERE run_uuid = '{run_id}'") == [("FINISHED",)]
    steps = server.rows(
        f"SELECT step FROM metrics WHERE run_uuid = '{run_id}' AND `key` = 'validation_loss' ORDER BY step"
    )
    assert steps == [(step,) for step in range(1, 301)]


# --- without a server: files, settings ----------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_env_and_that_over_the_default(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".env").write_text(f"MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/file.db\n")
    on = {"PYTHON_DOTENV_DISABLED": ""}
    compared = run_script(tmp_path, "compare.py", root=checkout, env=on)
    assert (compared.code, (tmp_path / "file.db").exists()) == (0, True)
    chosen = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/environment.db"}
    assert run_script(tmp_path, "compare.py", root=checkout, env=on | chosen).code == 0
    assert (tmp_path / "environment.db").exists() and not (tmp_path / "mlflow.db").exists()


def test_a_database_that_refuses_is_named_at_once_without_the_password(tmp_path: Path) -> None:
    port = free_port()
    for uri, why in (
        (f"mysql+pymysql://me:hunter2222@127.0.0.1:{port}/mlflow", "Can't connect to MySQL server"),
        ("mysql+nodriver://me:hunter2222@127.0.0.1/mlflow", "nodriver"),
    ):
        start = time.monotonic()
        error = run_script(tmp_path, "compare.py", env={"MLFLOW_TRACKING_URI": uri}).error
        assert why in error and "hunter2222" not in error
        assert time.monotonic() - start < 60


def test_secrets_of_the_environment_reach_neither_tags_nor_parameters_nor_patch(checkout: Path, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_PASSWORD": "correct horse", "DAGSHUB_TOKEN": "battery staple"}
    (checkout / "notes.txt").write_text("do not lose: correct horse\n")
    options = ("--epochs", 1, "--no-register", "--run-name", "battery staple")
    result = run_script(tmp_path, "pytorch_demo.py", *FLAGS, *options, root=checkout, env=env)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(result.json["run_id"])
    assert run.data.tags["code.patch"] == "left out: it holds the value of MLFLOW_TRACKING_PASSWORD"
    assert run.data.tags["invocation.command"].endswith("--run-name '***'")
    assert run.data.params["run_name"] == "***"
    assert {item.path for item in client.list_artifacts(run.info.run_id, "provenance")} == {"provenance/packages.txt"}
    assert git(checkout, "status", "--porcelain") == "?? notes.txt"
