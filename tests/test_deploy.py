"""What deploy/ says, checked without a container engine; test_server.py runs what can be run without one."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

DEPLOY = ROOT / "deploy"
IMAGE = ROOT / ".github" / "workflows" / "image.yml"


def compose() -> str:
    return (DEPLOY / "compose.yaml").read_text()


@pytest.mark.parametrize(("schema", "file"), [("compose-spec", DEPLOY / "compose.yaml"), ("github-workflows", IMAGE)])
def test_the_files_fit_their_schemas(schema: str, file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_server_is_published_and_only_on_this_machine() -> None:
    published = {
        name: service["ports"] for name, service in yaml.safe_load(compose())["services"].items() if "ports" in service
    }
    assert published == {"mlflow": ["${SERVER_ADDRESS:-127.0.0.1}:${SERVER_PORT:-5000}:5000"]}


def test_every_service_starts_again_tells_its_health_and_is_pinned() -> None:
    services = yaml.safe_load(compose())["services"]
    assert all(
        service["restart"] == "unless-stopped" and service["healthcheck"]["test"] for service in services.values()
    )
    images = [service["image"] for service in services.values() if "build" not in service]
    bases = re.findall(r"^FROM (\S+:\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for image in images + bases:
        assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+[\w.-]*", image), image
    assert services["mlflow"]["depends_on"] == {
        name: {"condition": "service_healthy"} for name in services if name != "mlflow"
    }


def test_no_secret_has_a_default_and_every_variable_is_documented() -> None:
    used = dict(re.findall(r"\$\{(\w+)(:[-?])", compose()))
    secret = {name for name in used if re.search("PASSWORD|KEY", name)}
    assert secret and {used[name] for name in secret} == {":?"}
    documented = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert set(documented) == set(used)
    assert {name for name, value in documented.items() if not value} == secret
    for text in re.findall(r"(?m)^\s+(\w*(?:PASSWORD|SECRET|ACCESS_KEY)\w*): (.*)$", compose()):
        assert text[1] == '"yes"' or text[1].startswith("${"), text  # MySQL's own random root password


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a directory with the Makefile and deploy/, and a stand-in for docker that writes down how it is called."""
    folder = tmp_path / "project"
    shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns(".env", "__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "docker").write_text(f'#!/bin/sh\necho "$@" >> {folder}/called\ncat {folder}/answer\n')
    (folder / "docker").chmod(0o755)
    return folder


def make(folder: Path, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["make", f"BIN={folder}", *arguments]
    return subprocess.run(command, cwd=folder, env=env, input=said, capture_output=True, text=True, timeout=60)


def test_the_first_start_makes_secrets_that_later_ones_keep(made: Path) -> None:
    (made / "answer").write_text("")
    assert make(made, "server").returncode == 0
    file = made / "deploy" / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secrets = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert set(secrets) == set(re.findall(r"\$\{(\w+):\?", compose()))
    assert len(set(secrets.values())) == len(secrets) == 5
    assert all(re.fullmatch(r"[\w-]{32}", value) for value in secrets.values())  # nothing that a URL would need quoted
    before = file.read_text()
    assert "admin" in make(made, "server").stdout
    assert file.read_text() == before
    assert (made / "called").read_text().splitlines() == [
        "compose --file deploy/compose.yaml up --detach --build --wait"
    ] * 2


@pytest.mark.parametrize(("answer", "called"), [("yes\n", True), ("no\n", False), ("", False)])
def test_a_reset_asks_first(made: Path, answer: str, called: bool) -> None:
    (made / "answer").write_text("")
    assert (make(made, "server-reset", said=answer).returncode == 0) == called
    assert (made / "called").exists() == called


def test_a_backup_appears_whole_or_not_at_all(made: Path) -> None:
    assert make(made, "server-backup").returncode != 0  # the stand-in has no answer: it fails
    assert not (made / "server-backup.tar").exists()
    (made / "answer").write_text("everything")
    assert make(made, "server-backup", "FILE=monday.tar").returncode == 0
    assert (made / "monday.tar").read_text() == "everything"
    assert stat.S_IMODE((made / "monday.tar").stat().st_mode) == 0o600


def test_the_images_run_without_root_and_hold_the_code_and_nothing_else() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    for image in dockerfile.split("\nFROM ")[2:]:
        assert re.findall(r"^(?:USER|ENTRYPOINT) .*$", image, re.MULTILINE)[0] == "USER 1000"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = {name for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]}
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all(list(ROOT.glob(name)) for name in copied)


def test_the_servers_packages_are_pinned_by_the_projects_requirements() -> None:
    (line,) = re.findall(r"pip install --constraint requirements.txt (.*)", (DEPLOY / "Dockerfile").read_text())
    requirements = (ROOT / "requirements.txt").read_text()
    assert line.split()[0] == "mlflow"
    for package in line.split():
        assert re.search(rf"^{package}==", requirements, re.MULTILINE), package


def test_only_the_job_that_publishes_may_write_and_only_from_main() -> None:
    workflow = yaml.safe_load(IMAGE.read_text())
    assert workflow["permissions"] == {}
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    assert check["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"contents": "read", "packages": "write"}
    assert (check["if"], publish["if"]) == ("github.ref != 'refs/heads/main'", "github.ref == 'refs/heads/main'")
    assert publish["steps"][:3] == check["steps"]  # what is published has run the pipeline
    assert "docker push" in publish["steps"][3]["run"] and len(publish["steps"]) == 4
    assert not any("${{" in step.get("run", "") for step in publish["steps"])
    for line in re.findall(r"uses: (.*)", IMAGE.read_text()):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
