"""Other versions of MLflow: `make test-versions` installs each into an environment of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.scripts import ROOT
from support.servers import find_free_port, has_answered, run_mlflow_server, run_server

ADMIN = "admin"
PASSWORD = "the administrator's long password"
ACCOUNT_SETTINGS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{file}
admin_username = {name}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


@dataclass(frozen=True)
class VersionedServer:
    """A running server; ``admin`` is the environment of a client that may do everything."""

    uri: str
    admin: dict[str, str]

    def client(self, name: str, password: str) -> dict[str, str]:
        """Return the environment of a client with that account."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password,
        }


def find_python(version: str) -> str:
    """Return the interpreter of the environment with this MLflow, such as ``3.14``, or skip."""
    python = ROOT / ".versions" / f"mlflow-{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"MLflow {version} is not installed: make test-versions")
    return str(python)


@contextmanager
def run_open_server(version: str, folder: Path) -> Iterator[VersionedServer]:
    """Run a server of that version without accounts until the end of the block."""
    with run_mlflow_server(folder, find_python(version)) as uri:
        yield VersionedServer(uri, {"MLFLOW_TRACKING_URI": uri})


@contextmanager
def run_server_with_accounts(version: str, folder: Path) -> Iterator[VersionedServer]:
    """Run a server of that version with accounts, where everybody may read, until the end of the block."""
    python, port = find_python(version), find_free_port()
    settings = folder / "accounts.ini"
    settings.write_text(ACCOUNT_SETTINGS.format(name=ADMIN, password=PASSWORD, file=folder / "accounts.db"))
    secret = "a secret of this server"
    env = {**os.environ, "MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": secret}
    command = [python, "-m", "mlflow", "server", "--app-name=basic-auth", f"--port={port}", "--workers=1"]
    command.append("--backend-store-uri=sqlite:///mlflow.db")
    with run_server(command, folder, lambda: has_answered(port), env):
        server = VersionedServer(f"http://127.0.0.1:{port}", {})
        server.admin.update(server.client(ADMIN, PASSWORD))
        yield server


def run_python(version: str, script: Path, *arguments: str) -> str:
    """Return what a Python file prints in the environment with this MLflow."""
    command = [find_python(version), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
