"""The team's server as deploy/compose.yaml describes it, started without a container engine.

MariaDB stands for MySQL, and tests/stand_ins/store.py (moto) for the object store. Flags and
environment of the MLflow server are read from the compose file, so the two cannot differ.
"""

import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pymysql
import yaml

from support.scripts import ROOT
from support.servers import find_free_port, run_server

COMPOSE_FILE = ROOT / "deploy" / "compose.yaml"
BACKUP_SCRIPT = ROOT / "deploy" / "backup.py"
STORE = ROOT / "tests" / "stand_ins" / "store.py"
BUCKET = "mlflow"
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")  # of compose.yaml: ${NAME:?message} or ${NAME:-default}


def read_services() -> dict[str, Any]:
    """Return the services of the compose file."""
    services: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return services


@dataclass
class TeamServer:
    """A running server.

    Attributes
    ----------
    folder
        Where its files are.
    env
        What its processes get.
    database_port, store_port, port
        Where MariaDB, the object store and MLflow listen on this machine.
    """

    folder: Path
    env: dict[str, str]
    database_port: int
    store_port: int
    port: int = field(default_factory=find_free_port)
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def uri(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> dict[str, str]:
        """The environment of the administrator's client."""
        return self.client(self.env["MLFLOW_AUTH_ADMIN_USERNAME"], self.env["MLFLOW_AUTH_ADMIN_PASSWORD"])

    def client(self, name: str, password: str) -> dict[str, str]:
        """Return the environment of a client with that account."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    def start(self) -> None:
        """Start the MLflow server and wait until it is healthy."""
        flags = []
        for flag in read_services()["mlflow"]["command"]:
            local = flag.replace("0.0.0.0", "127.0.0.1")
            flags.append(re.sub(r"^--port=.*", f"--port={self.port}", local))
        command = [sys.executable, str(ROOT / "deploy" / "start.py"), *flags]
        server = run_server(command, self.folder, lambda: b"OK" in get(self.port, "/health"), self.env)
        self._process = self._running.enter_context(server)

    def kill(self) -> None:
        """Kill the MLflow server and all its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._running.close()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what the database answers to MLflow's account."""
        password = self.env["MLFLOW_BACKEND_STORE_URI"].split("mlflow:")[1].split("@")[0]
        connection = pymysql.connect(
            host="127.0.0.1", port=self.database_port, user="mlflow", password=password, database="mlflow"
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            rows = list(cursor.fetchall())
            connection.commit()
        return rows

    def connect_store(self, key: str, secret: str) -> Any:
        """Return a client of the object store with that key, by the names of its variables."""
        return boto3.client(
            "s3",
            endpoint_url=self.env["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id=self.env[key],
            aws_secret_access_key=self.env[secret],
            region_name=self.env["AWS_DEFAULT_REGION"],
        )

    def list_objects(self) -> dict[str, str]:
        """Return the names of the files in the bucket, with their checksums."""
        client = self.connect_store("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        checksums = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for item in page.get("Contents", ()):
                checksums[item["Key"]] = item["ETag"]
        return checksums

    def read_checksums(self) -> dict[str, Any]:
        """Return the checksum of every table and every file, and the accounts: equal ones mean equal contents."""
        tables = [name for (name,) in self.query("SHOW TABLES")]
        checksums: dict[str, Any] = dict(self.query(f"CHECKSUM TABLE {', '.join(tables)}"))
        with closing(sqlite3.connect(self.env["ACCOUNTS"])) as accounts:
            checksums["accounts"] = "\n".join(accounts.iterdump())
        return checksums | self.list_objects()

    def run_backup(self, action: str, archive: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run deploy/backup.py beside the server, with ``archive`` on stdin."""
        command = [sys.executable, str(BACKUP_SCRIPT), action]
        return subprocess.run(command, env=self.env, input=archive, capture_output=True)


def get(port: int, path: str) -> bytes:
    """Return what a server on this machine answers, or nothing."""
    with socket.socket() as connection:
        connection.settimeout(2)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            return connection.recv(4096)
        except OSError:
            return b""


@contextmanager
def run_team_server(folder: Path) -> Iterator[TeamServer]:
    """Run database, object store and MLflow server, with their files in ``folder``, until the end of the block."""
    folder.mkdir()
    database_port, store_port = find_free_port(), find_free_port()
    generated = {name: secrets.token_urlsafe(24) for name in re.findall(r"\$\{(\w+):\?", COMPOSE_FILE.read_text())}
    env = _server_environment(folder, database_port, store_port, generated)
    (folder / "objects").mkdir()
    with (
        _run_mariadb(folder, database_port, generated["DATABASE_PASSWORD"]),
        run_server(
            [sys.executable, str(STORE)], folder, lambda: b" 200 " in get(store_port, "/health"), env, "store.log"
        ),
    ):
        create_bucket = [sys.executable, str(ROOT / "deploy" / "create_bucket.py")]
        subprocess.run(create_bucket, env=env, check=True, capture_output=True)
        server = TeamServer(folder, env, database_port, store_port)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _server_environment(
    folder: Path, database_port: int, store_port: int, generated: Mapping[str, str]
) -> dict[str, str]:
    """Return what compose.yaml gives to its processes, with the addresses and folders of this machine."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"  # start.py calls mlflow
    env["PYTHONPATH"] = str(COMPOSE_FILE.parent)  # as in the image
    services = read_services()
    settings = [services[name]["environment"].items() for name in ("store", "bucket", "mlflow")]
    for name, text in itertools.chain(*settings):
        value = VARIABLE.sub(lambda match: generated.get(match[1]) or match[2], str(text))
        value = value.replace("database:3306", f"127.0.0.1:{database_port}")
        value = value.replace("store:9000", f"127.0.0.1:{store_port}")
        env[name] = value.replace("/accounts/", f"{folder}/").replace("/data", f"{folder}/objects")
    env["RUSTFS_ADDRESS"] = f":{store_port}"
    return env


@contextmanager
def _run_mariadb(folder: Path, port: int, password: str) -> Iterator[None]:
    """Run a database server with MLflow's account, which has the rights that MySQL's image gives it."""
    socket_file = folder / "mysql.sock"
    # A server that starts removes the temporary tables of all others that share its directory for temporary files.
    temporary = folder / "mysql-tmp"
    temporary.mkdir()
    options = ["--no-defaults", f"--datadir={folder / 'mysql'}", f"--tmpdir={temporary}"]
    if os.getuid() == 0:
        options.append("--user=root")
    setup = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(setup, check=True, capture_output=True)
    mariadbd = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd"
    command = [mariadbd, *options, f"--socket={socket_file}", f"--port={port}", "--bind-address=127.0.0.1"]
    with run_server(command, folder, socket_file.exists, log="mariadb.log"):
        with pymysql.connect(unix_socket=str(socket_file), user="root") as root, root.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {BUCKET} CHARACTER SET utf8mb4")  # as MySQL does
            cursor.execute(f"CREATE USER mlflow IDENTIFIED BY '{password}'")
            cursor.execute("GRANT ALL ON mlflow.* TO mlflow")
        yield
