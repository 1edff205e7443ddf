"""Servers that run until the end of a block."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

START_TIMEOUT = 120  # seconds


def find_free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_listening(port: int) -> bool:
    """Return whether a server on this machine takes connections at the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has_answered(port: int) -> bool:
    """Return whether an HTTP server on this machine answers at the port, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


@contextmanager
def run_server(
    command: Sequence[str],
    folder: Path,
    is_ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    log: str = "server.log",
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server in ``folder`` and a process group of its own; at the end of the block, stop it and wait for it."""
    log_file = folder / log
    with log_file.open("a") as output:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not is_ready():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start:\n{log_file.read_text()[-3000:]}")
            time.sleep(0.1)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@contextmanager
def run_mlflow_server(folder: Path, python: str = sys.executable) -> Iterator[str]:
    """Run an MLflow server over the SQLite store in ``folder``; yield its address.

    ``python`` is the interpreter of the environment with the server's MLflow.
    """
    port = find_free_port()
    command = [python, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db"]  # the default of older versions is a folder of files
    with run_server(command, folder, lambda: has_answered(port)):
        yield f"http://127.0.0.1:{port}"
