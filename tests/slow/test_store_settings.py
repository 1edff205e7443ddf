"""Where the store is and which secrets are set: as processes of their own find out, from .env and environment."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.git import run_git
from support.scripts import run_script
from support.servers import find_free_port

READ_DOTENV = {"PYTHON_DOTENV_DISABLED": ""}


def test_the_file_env_names_the_store(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".env").write_text(f"MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/file.db\n")
    error = run_script(tmp_path, "compare.py", root=checkout, env=READ_DOTENV).error
    assert error.startswith(f"error: there is no store at {tmp_path}/file.db yet")


def test_the_environment_wins_over_the_file_env(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".env").write_text(f"MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/file.db\n")
    env = READ_DOTENV | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/environment.db"}
    error = run_script(tmp_path, "compare.py", root=checkout, env=env).error
    assert error.startswith(f"error: there is no store at {tmp_path}/environment.db yet")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mysql+pymysql://me:hunter2222@127.0.0.1:PORT/mlflow", "Can't connect to MySQL server"),
        ("mysql+nodriver://me:hunter2222@127.0.0.1/mlflow", "nodriver"),
    ],
    ids=["nobody listens", "no driver"],
)
def test_a_refusing_database_is_named_without_password(tmp_path: Path, uri: str, reason: str) -> None:
    env = {"MLFLOW_TRACKING_URI": uri.replace("PORT", str(find_free_port()))}
    error = run_script(tmp_path, "compare.py", env=env).error
    assert reason in error
    assert "hunter2222" not in error


def test_secrets_reach_neither_tags_parameters_nor_patch(checkout: Path, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_PASSWORD": "correct horse", "DAGSHUB_TOKEN": "battery staple"}
    (checkout / "notes.txt").write_text("do not lose: correct horse\n")
    options = ("--dataset", "digits", "--epochs", 1, "--no-register", "--run-name", "battery staple")
    run_id = run_script(tmp_path, "pytorch_demo.py", *options, root=checkout, env=env).json["run_id"]

    store = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    data = store.get_run(run_id).data
    files = [item.path for item in store.list_artifacts(run_id, "provenance")]
    assert data.tags["code.patch"] == "left out: notes.txt:1 looks like the value of MLFLOW_TRACKING_PASSWORD"
    assert data.tags["invocation.command"].endswith("--run-name '***'")
    assert "battery staple" not in str(data.params)
    assert files == ["provenance/packages.txt", "provenance/train_digests.npy"]
    assert run_git(checkout, "status", "--porcelain") == "?? notes.txt"
