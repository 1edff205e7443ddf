"""A web server that stands for what is in the wild: an old MLflow, a page to log in, a proxy of a company."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What the server answers."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


EMPTY = Answer(200, "{}")  # MLflow takes it for an empty list
LOGIN_PAGE = Answer(200, "<!doctype html><html><head><title>Sign in</title></head></html>")
NOT_FOUND = Answer(404, "<!doctype html><html lang=en><title>404 Not Found</title></html>")  # as Flask writes it


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler that prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def run_handler(handler: type[QuietHandler]) -> Iterator[str]:
    """Run a server whose requests ``handler`` answers, until the end of the block; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def run_web_server(answers: Mapping[str, Answer], other: Answer = EMPTY) -> Iterator[str]:
    """Run a server and yield its address; ``answers`` maps a regular expression to the answer for paths that match."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = [answer for pattern, answer in answers.items() if re.search(pattern, self.path)]
            answer = found[0] if found else other
            content = answer.body.encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value.format(path=self.path))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_CONNECT = do_GET  # noqa: N815 - names of the library

    with run_handler(Handler) as uri:
        yield uri
