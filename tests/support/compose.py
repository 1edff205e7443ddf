"""The team's server as users start it: `make server`, in a clone of the project, by Docker Compose."""

import json
import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.docker import Docker
from support.servers import START_TIMEOUT, find_free_port


@dataclass(frozen=True)
class ComposeServer:
    """The server of one clone, beside others on the same machine.

    Attributes
    ----------
    docker
        What runs it.
    folder
        The clone.
    port
        Where it listens on this machine.
    project
        Its name for Compose.
    """

    docker: Docker
    folder: Path
    port: int = field(default_factory=find_free_port)
    project: str = field(default_factory=lambda: f"pytorch-demo-test-{uuid.uuid4().hex[:8]}")

    @property
    def uri(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def secrets(self) -> dict[str, str]:
        """The generated secrets."""
        text = (self.folder / "deploy" / ".env").read_text()
        return dict(re.findall(r"^(\w+)=(.+)$", text, re.MULTILINE))

    @property
    def admin(self) -> dict[str, str]:
        """The environment of the administrator's client."""
        return self.client("admin", self.secrets["ADMIN_PASSWORD"])

    def client(self, name: str, password: str) -> dict[str, str]:
        """Return the environment of a client with that account."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    @property
    def env(self) -> dict[str, str]:
        """What make and Compose need to work on this server."""
        return {"COMPOSE_PROJECT_NAME": self.project, "SERVER_PORT": str(self.port)}

    def make(self, arguments: str, stdin: str = "") -> str:
        """Call make, which must succeed; return what it printed."""
        return self.docker.check(f"make {arguments}", self.folder, stdin, **self.env)

    def compose(self, arguments: str) -> str:
        """Call Docker Compose, which must succeed; return what it printed."""
        return self.docker.check(f"docker compose --file deploy/compose.yaml {arguments}", self.folder, **self.env)

    def read_health(self) -> dict[str, str]:
        """Return the health of each service."""
        services = [json.loads(line) for line in self.compose("ps --format json").splitlines()]
        return {service["Service"]: service["Health"] for service in services}

    def kill(self) -> None:
        """Kill the MLflow server, and wait until Docker has started it again."""
        process = self.find_process()
        # From inside, SIGKILL reaches all processes but the first, which ends when the others have.
        command = "docker compose --file deploy/compose.yaml exec -T mlflow sh -c 'kill -KILL -1'"
        self.docker.run(command, self.folder, **self.env)
        self._wait_until(lambda: self.find_process() not in (process, 0))

    def find_process(self) -> int:
        """Return the id of the MLflow server's first process on this machine, or 0."""
        container = self.compose("ps --all --quiet mlflow").strip()
        return int(self.docker.check("docker inspect --format '{{.State.Pid}}' " + container, self.folder))

    def wait(self) -> None:
        """Wait until the server answers."""
        self._wait_until(self.is_up)

    def _wait_until(self, is_reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not is_reached():
            assert time.monotonic() < deadline, self.compose("logs mlflow")
            time.sleep(0.5)

    def is_up(self) -> bool:
        """Return whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False


@contextmanager
def clean_up(server: ComposeServer) -> Iterator[ComposeServer]:
    """At the end of the block, remove the server with all its data."""
    try:
        yield server
    finally:
        command = "docker compose --file deploy/compose.yaml down --volumes --timeout 1"
        server.docker.run(command, server.folder, **server.env)
