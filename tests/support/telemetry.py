"""Records which servers a command tries to reach: a proxy for HTTP and HTTPS that lets nothing through.

    with record_connections() as recorder:
        subprocess.run(command, env=recorder.env)
    assert recorder.hosts == set()

Commands reach this machine without it. It sees what obeys the variables HTTP_PROXY and HTTPS_PROXY: requests, httpx and
urllib do, which all of MLflow, Gradio and Hugging Face's client use.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

# MLflow reports nothing in a CI job or a test.
HIDES_TELEMETRY = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")


@dataclass
class Recorder:
    """What was asked for.

    Attributes
    ----------
    env
        The environment for a command: this one, without what a person's terminal has not, with the proxy.
    hosts
        The servers.
    """

    env: dict[str, str]
    hosts: set[str] = field(default_factory=set)


@contextmanager
def record_connections() -> Iterator[Recorder]:
    """Run a proxy until the end of the block."""
    env = {name: value for name, value in os.environ.items() if name not in HIDES_TELEMETRY}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    recorder = Recorder(env)

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            url = self.path if "://" in self.path else f"//{self.path}"
            recorder.hosts.add(urlsplit(url).hostname or self.path)
            self.send_error(403)

        do_CONNECT = do_GET = do_POST = do_HEAD = refuse  # noqa: N815 - names of http.server

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("http_proxy", "https_proxy"):
            env[name] = env[name.upper()] = f"http://127.0.0.1:{server.server_port}"
        env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1,localhost"
        try:
            yield recorder
        finally:
            server.shutdown()
