"""Stores that fail: a database that is locked, and a server that answers with errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, event

from support.web_server import QuietHandler, run_handler


@contextmanager
def lock_database(folder: Path) -> Iterator[None]:
    """Lock the SQLite store in ``folder``, as another process does, until the end of the block.

    MLflow waits 20 seconds for a lock; in this process and inside the block it waits for nothing.
    """

    def shorten(*args: object) -> tuple[str, object]:
        return str(args[2]).replace("busy_timeout = 20000", "busy_timeout = 0"), args[3]

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    database = sqlite3.connect(folder / "mlflow.db", isolation_level=None, check_same_thread=False)
    try:
        database.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        database.close()
        event.remove(Engine, "before_cursor_execute", shorten)


@contextmanager
def run_http_server(*statuses: int) -> Iterator[str]:
    """Run a server that answers with these statuses in turn, then with the last one; yield its address.

    With 200 goes an empty JSON object, which MLflow takes for an empty list, else an HTML page.
    """
    pending = list(statuses)

    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 - a name of the library
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = pending.pop(0) if len(pending) > 1 else pending[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"{}" if status == 200 else b"<html>no</html>")

        do_GET = do_PUT = do_POST  # noqa: N815 - names of the library

    with run_handler(Handler) as uri:
        yield uri


class FailingRequest:
    """A request that fails with each of ``errors`` in turn, then succeeds; ``count`` says how often it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"
