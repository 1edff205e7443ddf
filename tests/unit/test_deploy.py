"""The files of deploy/, checked without Docker; tests/slow has the tests that run them."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import create_bucket
from support.scripts import ROOT
from support.stack import COMPOSE_FILE, read_services

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = COMPOSE_FILE.read_text()
PINNED_IMAGE = r"[\w/]+:\d+\.\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}"


# --- compose.yaml ---------------------------------------------------------------------------------------------------


def test_compose_file_fits_its_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_mlflow_is_published_on_this_machine() -> None:
    published = {name: service["ports"] for name, service in read_services().items() if "ports" in service}
    assert published == {"mlflow": ["${SERVER_ADDRESS:-127.0.0.1}:${SERVER_PORT:-5000}:5000"]}


def test_every_server_restarts_and_reports_its_health() -> None:
    services = read_services()
    del services["bucket"]  # it ends
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]


def test_no_service_has_more_rights_than_it_needs() -> None:
    for name, service in read_services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert {"cpus", "mem_limit", "memswap_limit", "pids_limit"} <= service.keys(), name
        assert service.get("user", "1000")[0] in "19", name  # the server's image has its own: USER 1000


def test_only_mlflow_is_on_a_network_with_a_way_in() -> None:
    networks = yaml.safe_load(COMPOSE)["networks"]
    assert networks["internal"] == {"internal": True}
    assert networks["published"] == {"driver_opts": {"com.docker.network.bridge.enable_ip_masquerade": "false"}}
    published = [name for name, service in read_services().items() if service["networks"] != ["internal"]]
    assert published == ["mlflow"]


def test_mlflow_has_a_key_of_its_own_for_the_store() -> None:
    environments = {name: service["environment"] for name, service in read_services().items()}
    assert not any("STORE_" in str(value) for value in environments["mlflow"].values())
    assert environments["mlflow"]["AWS_ACCESS_KEY_ID"] == environments["bucket"]["BUCKET_USER"]
    holders = [name for name, values in environments.items() if "STORE_SECRET_KEY" in str(values)]
    assert holders == ["store", "bucket"]


def test_the_policy_allows_one_bucket_only() -> None:
    policy = str(create_bucket.make_policy("mine"))
    assert set(re.findall(r"arn:[^']*", policy)) == {"arn:aws:s3:::mine", "arn:aws:s3:::mine/*"}
    assert not re.search(r"s3:\*|s3:\w*(?:Policy|CreateBucket|DeleteBucket|Acl)", policy)


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in read_services().values() if "build" not in service]
    images = [re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image) for image in images]
    images += re.findall(r"^ARG BASE_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert len(images) == 3
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE_IMAGE}", "base", "base"]
    for image in images:
        assert re.fullmatch(PINNED_IMAGE, image), image


def test_mlflow_waits_for_the_other_services() -> None:
    services = read_services()
    assert services["mlflow"]["depends_on"] == {
        "database": {"condition": "service_healthy"},
        "bucket": {"condition": "service_completed_successfully"},
    }
    assert services["bucket"]["depends_on"] == {"store": {"condition": "service_healthy"}}


def test_no_secret_has_a_default() -> None:
    variables = dict(re.findall(r"\$\{(\w+)(:[-?])", COMPOSE))
    secrets = [name for name in variables if re.search("PASSWORD|KEY", name)]
    assert len(secrets) == 6
    assert {variables[name] for name in secrets} == {":?"}
    for name, value in re.findall(r"(?m)^\s+(\w*(?:PASSWORD|SECRET|ACCESS_KEY)\w*): (.*)$", COMPOSE):
        # MySQL's own random root password; the name of MLflow's key, which is no secret
        assert value in ('"yes"', "mlflow") or value.startswith("${"), name


def test_every_variable_is_documented() -> None:
    variables = dict(re.findall(r"\$\{(\w+)(:[-?])", COMPOSE))
    documented = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert documented.keys() == variables.keys()
    required = {name for name, kind in variables.items() if kind == ":?"}
    assert {name for name, value in documented.items() if not value} == required


# --- the Dockerfile -------------------------------------------------------------------------------------------------


def test_images_run_without_root() -> None:
    for image in DOCKERFILE.split("\nFROM ")[2:]:
        assert re.findall(r"^(?:USER|ENTRYPOINT) .*$", image, re.MULTILINE)[0] == "USER 1000"


def test_images_get_the_copied_files_only() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied: set[str] = set()
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE):
        copied.update(line.split()[:-1])
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all(list(ROOT.glob(name)) for name in copied)


def test_images_install_lock_files_with_hashes() -> None:
    assert "--constraint" not in DOCKERFILE
    installed = re.findall(r"RUN (?:pip install|sh install_cpu.sh) (.*?) *\\?$", DOCKERFILE, re.MULTILINE)
    assert installed == ["--require-hashes --requirement requirements-server.lock", "requirements.lock"]


# --- the CPU builds of PyTorch --------------------------------------------------------------------------------------


def test_cpu_builds_replace_torch_and_leave_out_cuda(tmp_path: Path) -> None:
    pip = tmp_path / "pip"
    pip.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nfor last; do :; done\ncp "$last" {tmp_path}/rest || true\n'
    )
    pip.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TORCH_INDEX": "the-index"}
    command = ["sh", str(DEPLOY / "install_cpu.sh"), str(ROOT / "requirements-dev.lock")]
    subprocess.run(command, env=env, check=True, capture_output=True)

    first, second = (tmp_path / "calls").read_text().splitlines()
    assert re.fullmatch(r"install --no-deps --index-url the-index torch==[\d.]+ torchvision==[\d.]+", first)
    assert second.startswith("install --no-deps --require-hashes --requirement ")
    everything = re.findall(r"^\S+(?===)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    rest = re.findall(r"^\S+(?===)", (tmp_path / "rest").read_text(), re.MULTILINE)
    removed = {name for name in set(everything) - set(rest) if not name.startswith(("nvidia-", "cuda-"))}
    assert removed == {"torch", "torchvision", "triton"}
    assert {"torchinfo", "mlflow", "filelock", "networkx"} < set(rest)
    assert len(re.findall("--hash", (tmp_path / "rest").read_text())) > 2 * len(rest)


# --- make -----------------------------------------------------------------------------------------------------------


# Records how it is called; prints the file output; `check` fails if its input is not that.
DOCKER = """\
#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in *check) cmp --quiet - {folder}/checked ;; *) cat {folder}/output ;; esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory with the Makefile, deploy/, and a stand-in for docker."""
    folder = tmp_path / "project"
    shutil.copytree(DEPLOY, folder / "deploy", ignore=shutil.ignore_patterns(".env", "__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "docker").write_text(DOCKER.format(folder=folder))
    (folder / "docker").chmod(0o755)
    return folder


def run_make(folder: Path, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", f"BIN={folder}", *arguments]
    return subprocess.run(command, cwd=folder, env=env, input=stdin, capture_output=True, text=True)


def test_the_first_start_generates_secrets(project: Path) -> None:
    (project / "output").write_text("")
    assert run_make(project, "server").returncode == 0
    file = project / "deploy" / ".env"
    secrets = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secrets.keys() == set(re.findall(r"\$\{(\w+):\?", COMPOSE))
    assert len(set(secrets.values())) == len(secrets)
    assert all(re.fullmatch(r"[\w-]{32}", value) for value in secrets.values())  # a URL takes them as they are


def test_later_starts_keep_the_secrets(project: Path) -> None:
    (project / "output").write_text("")
    run_make(project, "server")
    before = (project / "deploy" / ".env").read_text()
    assert "admin" in run_make(project, "server").stdout
    assert (project / "deploy" / ".env").read_text() == before
    start = "compose --file deploy/compose.yaml up --detach --build --wait"
    assert (project / "calls").read_text().splitlines() == [start, start]


@pytest.mark.parametrize(("answer", "is_reset"), [("yes\n", True), ("no\n", False), ("", False)])
def test_a_reset_asks_first(project: Path, answer: str, is_reset: bool) -> None:
    (project / "output").write_text("")
    assert (run_make(project, "server-reset", stdin=answer).returncode == 0) == is_reset
    assert (project / "calls").exists() == is_reset


def test_a_start_after_an_update_adds_new_secrets(project: Path) -> None:
    (project / "output").write_text("")
    file = project / "deploy" / ".env"
    file.write_text("DATABASE_PASSWORD=mine\nSERVER_PORT=5001\n")
    os.utime(file, (0, 0))
    assert run_make(project, "server").returncode == 0
    lines = file.read_text().splitlines()
    assert lines[:2] == ["DATABASE_PASSWORD=mine", "SERVER_PORT=5001"]
    names = [line.partition("=")[0] for line in lines]
    assert len(names) == len(set(names)) == 7


@pytest.mark.parametrize(
    ("output", "checked"), [(None, ""), ("half of it", "everything")], ids=["save fails", "archive is damaged"]
)
def test_a_failed_backup_keeps_the_one_before(project: Path, output: str | None, checked: str) -> None:
    (project / "server-backup.tar").write_text("yesterday's")
    (project / "checked").write_text(checked)
    if output is not None:
        (project / "output").write_text(output)
    assert run_make(project, "server-backup").returncode != 0
    assert [file.name for file in project.glob("*.tar*")] == ["server-backup.tar"]
    assert (project / "server-backup.tar").read_text() == "yesterday's"


def test_only_the_owner_can_read_a_backup(project: Path) -> None:
    for name in ("output", "checked"):
        (project / name).write_text("everything")
    assert run_make(project, "server-backup", "FILE=this monday.tar").returncode == 0
    assert (project / "this monday.tar").read_text() == "everything"
    assert stat.S_IMODE((project / "this monday.tar").stat().st_mode) == 0o600


def test_make_lists_every_target(project: Path) -> None:
    listed = re.findall(r"^make (\S+) ", run_make(project).stdout, re.MULTILINE)
    phony = re.search(r"\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text())
    assert phony is not None
    assert set(listed) == set(phony[1].replace("\\", "").split())
