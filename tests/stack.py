"""The team's server as deploy/compose.yaml describes it, started without a container engine.

MariaDB stands for MySQL and moto for the object store: both are real servers with the same protocols. The flags and the
environment of the MLflow server are read from the compose file, so the two cannot drift apart.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pymysql
import yaml
from conftest import ROOT, free_port, running_server

COMPOSE = ROOT / "deploy" / "compose.yaml"
BUCKET = "mlflow"


def compose() -> dict[str, Any]:
    """Return the services of the compose file."""
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


@dataclass
class Stack:
    """A running server; ``env`` is what its processes see, ``admin`` what a client of the administrator sets."""

    folder: Path
    port: int
    env: dict[str, str]
    ports: dict[str, int]
    running: ExitStack = field(default_factory=ExitStack)
    server: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def uri(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, name: str, password: str) -> dict[str, str]:
        """Return the environment of a client with that account."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    @property
    def admin(self) -> dict[str, str]:
        """The environment of the administrator's client."""
        return self.client(self.env["MLFLOW_AUTH_ADMIN_USERNAME"], self.env["MLFLOW_AUTH_ADMIN_PASSWORD"])

    def start(self) -> None:
        """Start the MLflow server and wait until it is healthy."""
        flags = [flag.replace("0.0.0.0", "127.0.0.1") for flag in compose()["mlflow"]["command"]]
        flags = [re.sub(r"^--port=.*", f"--port={self.port}", flag) for flag in flags]
        command = [sys.executable, str(ROOT / "deploy" / "start.py"), *flags]
        healthy = lambda: b"OK" in http(self.port, "/health")  # noqa: E731
        self.server = self.running.enter_context(running_server(command, self.folder, healthy, self.env))

    def stop(self) -> None:
        """Kill the MLflow server and all its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        self.running.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what the database answers."""
        with database(self.ports["database"], self.env).cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def objects(self) -> set[str]:
        """Return the names of the files in the bucket."""
        found = boto3.client(
            "s3",
            endpoint_url=self.env["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
        ).get_paginator("list_objects_v2")
        return {item["Key"] for page in found.paginate(Bucket=BUCKET) for item in page.get("Contents", ())}


def http(port: int, path: str) -> bytes:
    """Return what a server on this machine answers, or nothing."""
    with socket.socket() as connection:
        connection.settimeout(2)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            return connection.recv(4096)
        except OSError:
            return b""


def database(port: int, env: dict[str, str]) -> Any:
    """Return a connection to the database as MLflow's account."""
    password = env["MLFLOW_BACKEND_STORE_URI"].split("mlflow:")[1].split("@")[0]
    return pymysql.connect(host="127.0.0.1", port=port, user="mlflow", password=password, database="mlflow")


@contextmanager
def started(folder: Path) -> Iterator[Stack]:
    """Start database, object store and server in ``folder``; stop them at the end."""
    folder.mkdir()
    ports = {"database": free_port(), "store": free_port()}
    chosen = {name: secrets.token_urlsafe(24) for name in re.findall(r"\$\{(\w+):\?", COMPOSE.read_text())}
    env = dict(os.environ)
    for name, text in compose()["mlflow"]["environment"].items():
        value = re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", lambda m: chosen.get(m[1]) or m[3], str(text))
        value = value.replace("database:3306", f"127.0.0.1:{ports['database']}")
        value = value.replace("store:9000", f"127.0.0.1:{ports['store']}")
        env[name] = value.replace("/accounts/", f"{folder}/")
    with ExitStack() as servers:
        servers.enter_context(_mariadb(folder, ports["database"], chosen["DATABASE_PASSWORD"]))
        moto = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(ports["store"])]
        answers = lambda: b"HTTP/1" in http(ports["store"], "/moto-api/data.json")  # noqa: E731
        servers.enter_context(running_server(moto, folder, answers, env, "moto.log"))
        stack = Stack(folder, free_port(), env, ports)
        stack.start()
        servers.callback(stack.stop)
        yield stack


@contextmanager
def _mariadb(folder: Path, port: int, password: str) -> Iterator[None]:
    data, socket_file = folder / "mysql", folder / "mysql.sock"
    as_root = ["--user=root"] if os.getuid() == 0 else []
    options = ["--no-defaults", f"--datadir={data}", *as_root]
    setup = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(setup, check=True, capture_output=True)
    mariadbd = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd"
    serve = [mariadbd, *options, f"--socket={socket_file}", f"--port={port}", "--bind-address=127.0.0.1"]
    with running_server(serve, folder, socket_file.exists, log="mariadb.log"):
        with pymysql.connect(unix_socket=str(socket_file), user="root") as root, root.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {BUCKET}")
            cursor.execute(f"CREATE USER mlflow IDENTIFIED BY '{password}'")
            cursor.execute("GRANT ALL ON mlflow.* TO mlflow")
        yield
