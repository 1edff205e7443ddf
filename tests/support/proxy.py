"""An HTTP proxy before a real server, which fails as servers and proxies fail, on demand.

    with run_mlflow_server(folder) as server_uri, run_proxy(server_uri) as proxy:
        proxy.answer(503, "runs/create", times=2)
        proxy.drop_answers("model-versions/create", times=1)
        ...  # a client of proxy.uri
        assert proxy.count("runs/create") == 1  # requests that reached the server

It is also a proxy of the environment: with HTTP_PROXY=proxy.uri, the server has whatever name a client gives it.

A fault is for the requests whose method and path, such as ``POST /api/2.0/mlflow/runs/create``, have a match of its
regular expression. The fault that was added last is tried first.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SERVER_TIMEOUT = 120  # seconds
CONNECTION_HEADERS = ("connection", "keep-alive", "transfer-encoding", "content-length")  # are the proxy's own
PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr>nginx</body></html>\n"


@dataclass
class _Fault:
    """What happens to the next ``times`` requests that match; None: to all of them."""

    pattern: re.Pattern[str]
    times: int | None
    act: Callable[["_Handler"], None]


class Proxy:
    """A proxy that runs until it is closed.

    Attributes
    ----------
    uri : its address for clients; it stays the same.
    requests : method and path of the requests that reached the server, in their order.
    """

    def __init__(self, target_uri: str) -> None:
        target = urlsplit(target_uri)
        self._target = (str(target.hostname), int(target.port or 80))
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._server: _Server | None = None
        self._port = 0
        self.requests: list[str] = []
        self.come_back()
        self.uri = f"http://127.0.0.1:{self._port}"

    def pass_everything(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def answer(
        self,
        status: int,
        pattern: str = "",
        times: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> None:
        """Answer with ``body``, or with an error page, as nginx does, instead of the server."""

        def act(handler: "_Handler") -> None:
            handler.read_body()
            handler.send_page(status, headers or {}, body)

        self._add_fault(pattern, times, act)

    def be_silent(self, pattern: str = "", times: int | None = None) -> None:
        """Take the request, and never answer."""
        self._add_fault(pattern, times, lambda _: self._wait_until_closed())

    def reset_connections(self, pattern: str = "", times: int | None = None) -> None:
        """Close the connection; the server does not get the request."""
        self._add_fault(pattern, times, lambda _: None)

    def drop_answers(self, pattern: str = "", times: int | None = None) -> None:
        """Let the server do what it is asked for, and close the connection instead of sending its answer."""
        self._add_fault(pattern, times, self._drop_answer)

    def go_away(self) -> None:
        """Stop listening, as a server that is stopped."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_port
        serve = self._server.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop listening for good, and let go of the requests that were kept silent."""
        self._is_closed.set()
        self.go_away()

    def count(self, pattern: str) -> int:
        """Return how many requests with a match of ``pattern`` reached the server."""
        return sum(1 for request in self.requests if re.search(pattern, request))

    def handle(self, handler: "_Handler") -> None:
        """Answer one request, or fail as the faults say."""
        fault = self._take_fault(handler.description)
        if fault:
            fault.act(handler)
        else:
            handler.send_answer(*self._forward(handler))

    def _add_fault(self, pattern: str, times: int | None, act: Callable[["_Handler"], None]) -> None:
        with self._lock:
            self._faults.insert(0, _Fault(re.compile(pattern), times, act))

    def _take_fault(self, description: str) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or not fault.pattern.search(description):
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def _wait_until_closed(self) -> None:
        self._is_closed.wait()

    def _drop_answer(self, handler: "_Handler") -> None:
        self._forward(handler)

    def _forward(self, handler: "_Handler") -> tuple[HTTPResponse, bytes]:
        """Send the request to the server; return its answer, and the body of it."""
        connection = HTTPConnection(*self._target, timeout=SERVER_TIMEOUT)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in CONNECTION_HEADERS}
        body = handler.read_body()
        try:
            connection.request(handler.command, _strip_host(handler.path), body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        with self._lock:
            self.requests.append(handler.description)
        return answer, content


def _strip_host(path: str) -> str:
    """Return the path and the query of what a client asks for, which names the host if it asks a proxy."""
    return urlsplit(path)._replace(scheme="", netloc="").geturl() if "://" in path.partition("?")[0] else path


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients go away, and so does the server behind the proxy."""


class _Handler(BaseHTTPRequestHandler):
    """Takes one request; it closes the connection afterwards, as HTTP 1.0 does."""

    server: _Server

    @property
    def description(self) -> str:
        """Method and path of the request."""
        return f"{self.command} {self.path}"

    def do_GET(self) -> None:
        self.server.proxy.handle(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names of the library

    def read_body(self) -> bytes:
        """Return what the client sends."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send_answer(self, answer: HTTPResponse, content: bytes) -> None:
        """Send the server's answer."""
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in CONNECTION_HEADERS:
                self.send_header(name, value)
        self._send_content(content)

    def send_page(self, status: int, headers: Mapping[str, str], body: str | None) -> None:
        """Send the body, or an error page if it is None."""
        self.send_response_only(status)
        for name, value in {"Content-Type": "text/html", **headers}.items():
            self.send_header(name, value)
        page = PAGE.format(f"{status} {HTTPStatus(status).phrase}")
        self._send_content((page if body is None else body).encode())

    def _send_content(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def run_proxy(target_uri: str) -> Iterator[Proxy]:
    """Run a proxy before the server at ``target_uri``; close it at the end of the block."""
    proxy = Proxy(target_uri)
    try:
        yield proxy
    finally:
        proxy.close()
