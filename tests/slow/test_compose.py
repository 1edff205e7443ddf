"""`make server`: the services of deploy/compose.yaml, started by Docker Compose, and clients outside of it."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import evaluate
import lineage
import promote
import pytorch_demo
from support.accounts import act_as, create_account
from support.compose import ComposeServer, clean_up
from support.docker import Docker
from support.git import clone_project
from support.pipelines import build_once
from support.scripts import Result, call_main

pytestmark = pytest.mark.timeout(900)

MAX_BYTES = 1_000_000_000
SERVICES = ("database", "store", "mlflow")


@dataclass(frozen=True)
class Story:
    """What was seen of one server, from its first start to the restore of its backup.

    Attributes
    ----------
    health
        Of each service, after the first start.
    user
        The account that runs the MLflow server.
    processes
        The command of the MLflow server's first process.
    rights
        Of the first process of each service: lines of /proc/1/status, without spaces.
    networks
        Of each service: what keeps it from other networks, see read_networks.
    written
        What each service answered when it was told to write to its own image.
    capabilities
        What the server tells clients that it can do.
    status_without_account
        HTTP status of a request.
    results
        Of training, evaluation and promotion from outside, by an ordinary account.
    history_after
        What was in Production, as that account saw it after each event.
    questions_after_restore
        Those that lineage.py could not answer.
    error_after_reset
        Of the same account at an empty server.
    secrets, log
        What was generated, and what the services wrote.
    """

    health: dict[str, str]
    user: str
    processes: str
    rights: dict[str, str]
    networks: dict[str, list[str]]
    written: dict[str, str]
    capabilities: dict[str, Any]
    status_without_account: int
    results: list[Result]
    history_after: dict[str, list[dict[str, Any]]]
    questions_after_restore: list[str]
    error_after_reset: str
    secrets: dict[str, str]
    log: str


@pytest.fixture(scope="session")
def story(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Story:
    def live(folder: Path) -> Story:
        with clean_up(ComposeServer(docker, clone_project(folder))) as server, chdir(folder):
            return live_through(server)

    _, story = build_once(tmp_path_factory, "compose", live)
    assert isinstance(story, Story)
    return story


def live_through(server: ComposeServer) -> Story:
    """Start the server, use it, and let happen to it what happens to servers."""
    server.make("server")
    health = server.read_health()
    user = server.compose("exec -T mlflow id -u").strip()
    processes = server.compose("exec -T mlflow cat /proc/1/cmdline").replace("\0", " ")
    rights, networks, written = {}, {}, {}
    for service in SERVICES:
        rights[service] = "".join(server.compose(f"exec -T {service} cat /proc/1/status").split())
        networks[service] = read_networks(server, service)
        written[service] = server.compose(f"exec -T {service} sh -c 'touch /new 2>&1 || true'")
    ada = create_account(server, "ada")
    results = run_three_scripts(ada)
    history = {"training": read_history(ada)}

    server.compose("restart mlflow")
    server.wait()
    history["restart"] = read_history(ada)

    server.kill()
    server.wait()
    history["kill"] = read_history(ada)

    server.make("server-backup FILE=monday.tar")
    server.make("server-stop")
    server.make("server")
    history["stop and start"] = read_history(ada)
    log = server.compose("logs --no-color")

    server.make("server-reset", stdin="yes\n")
    server.make("server")
    with act_as(ada):
        error_after_reset = call_main(promote.main, "--history").error
    server.make("server-restore FILE=monday.tar")
    history["restore"] = read_history(ada)
    with act_as(ada):
        questions = call_main(lineage.main, "--json").json["unanswered"]
    return Story(
        health,
        user,
        processes,
        rights,
        networks,
        written,
        read_capabilities(server),
        read_status(server),
        results,
        history,
        questions,
        error_after_reset,
        server.secrets,
        log + server.compose("logs --no-color"),
    )


def read_networks(server: ComposeServer, service: str) -> list[str]:
    """Return of each network of a service how it keeps the service from others; empty if it does not."""
    container = server.compose(f"ps --quiet {service}").strip()
    template = "'{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}'"
    names = server.docker.check(f"docker inspect --format {template} {container}", server.folder)
    networks = json.loads(server.docker.check(f"docker network inspect {' '.join(names.split())}", server.folder))
    ways = []
    for network in networks:
        masquerade = network["Options"].get("com.docker.network.bridge.enable_ip_masquerade")
        closed = "no masquerading" if masquerade == "false" else ""
        ways.append("internal" if network["Internal"] else closed)
    return sorted(ways)


def run_three_scripts(client: Mapping[str, str]) -> list[Result]:
    with act_as(client):
        results = [call_main(pytorch_demo.main, "--dataset", "digits")]
        run_id = results[0].json["run_id"]
        results.append(call_main(evaluate.main, "--run-id", run_id, "--log-mlflow"))
        results.append(call_main(promote.main, "--run-id", run_id))
    return results


def read_history(client: Mapping[str, str]) -> list[dict[str, Any]]:
    with act_as(client):
        rows: list[dict[str, Any]] = call_main(promote.main, "--history", "--json").json["history"]
        return rows


def read_capabilities(server: ComposeServer) -> dict[str, Any]:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, server.uri, "admin", server.secrets["ADMIN_PASSWORD"])
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    with opener.open(f"{server.uri}/api/3.0/mlflow/server-info") as answer:
        capabilities: dict[str, Any] = json.load(answer)
        return capabilities


def read_status(server: ComposeServer) -> int:
    """Return the HTTP status of a request without an account."""
    try:
        with urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id=0") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# --- the server -----------------------------------------------------------------------------------------------------


def test_the_image_is_small(docker: Docker, story: Story) -> None:
    assert docker.read_size("pytorch-demo-server") <= MAX_BYTES


def test_the_image_has_no_test_tools(docker: Docker, story: Story, tmp_path: Path) -> None:
    command = "docker run --rm --entrypoint pip pytorch-demo-server list --format freeze"
    packages = {line.partition("==")[0] for line in docker.check(command, tmp_path).splitlines()}
    assert "mlflow" in packages
    assert not packages & {"pytest", "moto", "playwright", "torch"}


def test_make_server_waits_until_every_service_is_healthy(story: Story) -> None:
    assert story.health == {"database": "healthy", "store": "healthy", "mlflow": "healthy"}


def test_the_server_runs_without_root(story: Story) -> None:
    assert story.user == "1000"
    assert "mlflow server --host=0.0.0.0" in story.processes


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_rights_and_gets_none(story: Story, service: str) -> None:
    assert "CapEff:0000000000000000" in story.rights[service]
    assert "CapBnd:0000000000000000" in story.rights[service]
    assert "NoNewPrivs:1" in story.rights[service]
    assert "Uid:0" not in story.rights[service]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_cannot_change_its_image(story: Story, service: str) -> None:
    assert "Read-only file system" in story.written[service]


def test_no_network_has_a_way_out(story: Story) -> None:
    assert story.networks["database"] == story.networks["store"] == ["internal"]
    assert story.networks["mlflow"] == ["internal", "no masquerading"]


def test_a_client_without_an_account_is_refused(story: Story) -> None:
    assert story.status_without_account == 401


def test_an_ordinary_account_trains_evaluates_and_promotes_from_outside(story: Story) -> None:
    assert [result.code for result in story.results] == [0, 0, 0], story.results
    (row,) = story.history_after["training"]
    assert (row["version"], row["decision"]) == (1, "promoted")


def test_files_go_through_the_server(story: Story) -> None:
    """The object store is on no network of the clients: an address of it would lead nowhere."""
    assert story.capabilities["multipart_downloads_enabled"] is False
    assert story.capabilities["multipart_uploads_enabled"] is False


@pytest.mark.parametrize("event", ["restart", "kill", "stop and start", "restore"])
def test_nothing_is_lost_after(story: Story, event: str) -> None:
    assert story.history_after[event] == story.history_after["training"]


def test_a_reset_server_knows_nobody(story: Story) -> None:
    assert "name and password" in story.error_after_reset


def test_a_restored_server_has_every_file(story: Story) -> None:
    assert story.questions_after_restore == []


def test_no_secret_is_in_a_log(story: Story) -> None:
    assert len(story.secrets) == 6
    for name, value in story.secrets.items():
        assert value not in story.log, name
