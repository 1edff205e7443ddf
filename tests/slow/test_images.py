"""The image of the scripts, with the commands of docs/server.md; the workflow that does the same on GitHub."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from support.compose import ComposeServer, clean_up
from support.docker import Docker
from support.git import clone_project, run_git
from support.pipelines import build_once
from support.scripts import ROOT
from support.servers import run_mlflow_server
from support.workflows import IMAGE, run_job

pytestmark = pytest.mark.timeout(900)

MAX_BYTES = 2_500_000_000
TEST_TOOLS = {"pytest", "moto", "playwright", "hypothesis", "mypy", "ruff"}
BUILD, FIRST_RUN, RUN_ON_SERVER = re.findall(
    r"^    (docker .*)$", (ROOT / "docs" / "server.md").read_text(), re.MULTILINE
)


@pytest.fixture(scope="session")
def clone(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of the project from which the image was built."""

    def build(folder: Path) -> Path:
        checkout = clone_project(folder)
        docker.check(BUILD, checkout)
        return checkout

    _, checkout = build_once(tmp_path_factory, "image", build)
    assert isinstance(checkout, Path)
    return checkout


def test_the_image_is_small(docker: Docker, clone: Path, record_property: Callable[[str, object], None]) -> None:
    record_property("image", docker.describe_image("pytorch-demo"))
    assert docker.read_size("pytorch-demo") <= MAX_BYTES


def test_the_image_has_no_test_tools(docker: Docker, clone: Path) -> None:
    listed = docker.check("docker run --rm pytorch-demo -m pip list --format freeze", clone)
    packages = {line.partition("==")[0] for line in listed.splitlines()}
    assert "mlflow" in packages
    assert not packages & TEST_TOOLS


def test_the_image_runs_without_root(docker: Docker, clone: Path) -> None:
    assert docker.check("docker run --rm --entrypoint id pytorch-demo -u", clone).strip() == "1000"


def test_the_first_documented_run_trains_and_does_not_miss_git(docker: Docker, clone: Path) -> None:
    result = docker.run(FIRST_RUN, clone)
    assert result.code == 0, result.stderr
    assert result.json["test_accuracy"] > 0.95
    assert "Git" not in result.stderr


# --- a server, a data directory -------------------------------------------------------------------------------------


@pytest.fixture
def project(clone: Path, real_data: Path, tmp_path: Path) -> Path:
    """Return a directory with MNIST in `data` that belongs to an ordinary account, as which `id` beside it answers."""
    folder = tmp_path / "project"
    shutil.copytree(real_data / "MNIST", folder / "data" / "MNIST")
    user = os.getuid() or 1234
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user if os.getuid() == 0 else -1)
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    return folder


def test_the_documented_run_trains_on_a_server_with_mounted_data(
    docker: Docker, clone: Path, project: Path, tmp_path: Path
) -> None:
    user = (project / "data").stat().st_uid
    with run_mlflow_server(tmp_path) as address:
        example = (clone / ".env.example").read_text()
        (project / ".env").write_text(example.replace("http://127.0.0.1:5000", address))
        path = f"{tmp_path}{os.pathsep}{docker.env['PATH']}"
        result = docker.run(f"{RUN_ON_SERVER} --limit 5000 --epochs 2", project, PATH=path)
        assert result.code == 0, result.stderr
        run = mlflow.MlflowClient(address).get_run(result.json["run_id"])
    assert result.json["tracking_uri"] == address
    assert result.json["test_accuracy"] > 0.9
    assert run.data.tags["code.commit"] == run_git(clone, "rev-parse", "HEAD")
    assert run.data.tags["invocation.user"] == f"uid {user}"

    command = RUN_ON_SERVER.replace("pytorch-demo pytorch_demo.py", "--entrypoint touch pytorch-demo data/new")
    docker.check(command, project, PATH=path)
    assert (project / "data" / "new").stat().st_uid == user


def test_a_data_directory_that_docker_created_is_explained(docker: Docker, clone: Path, tmp_path: Path) -> None:
    command = f"docker run --rm --volume {tmp_path}/new/data:/app/data pytorch-demo pytorch_demo.py"
    result = docker.run(command, clone)
    assert "cannot write to data/MNIST/raw (/app/data belongs to root, this is demo)" in result.error


def test_a_volume_of_docker_can_be_written(docker: Docker, clone: Path, tmp_path: Path) -> None:
    volume = f"pytorch-demo-test-{os.getpid()}"
    try:
        docker.check(f"docker run --rm --volume {volume}:/app/data --entrypoint touch pytorch-demo data/new", clone)
    finally:
        docker.check(f"docker volume rm {volume}", clone)


# --- the workflow ---------------------------------------------------------------------------------------------------


def test_the_workflow_builds_and_runs_both_images(
    docker: Docker, clone: Path, tmp_path: Path, git_author: None, record_property: Callable[[str, object], None]
) -> None:
    folder = clone_project(tmp_path)
    commit = run_git(folder, "rev-parse", "HEAD")
    with clean_up(ComposeServer(docker, folder)) as server:
        env = docker.env | server.env | {"GITHUB_SHA": commit}
        job = run_job(IMAGE, "check", folder, env=env)
        assert job.failed_steps == [], job.log
    record_property("image", docker.describe_image("pytorch-demo-server"))
    assert len(job.codes) == 3
    assert job.log.count('"decision": "promoted"') == 2
    assert job.log.count(f"code              commit {commit}, named by CODE_COMMIT") == 2
    assert (folder / "server-backup.tar").stat().st_size > 100_000
