"""The file of a SQLite store: which one an address names, open it, copy it, let one process at a time use it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from pipeline.errors import UserError
from pipeline.files import atomic_file
from pipeline.redact import redact_address

DEFAULT_URI = "sqlite:///mlflow.db"
INIT_LOCK_TIMEOUT = 300  # seconds
TIMEOUT = 10  # seconds, for which another process may lock the file
DRIVERS = ("sqlite", "sqlite+pysqlite")  # two names of the same one, which MLflow can use
ADVICE = "set MLFLOW_TRACKING_URI to sqlite:///mlflow.db or, with an absolute path, to sqlite:////folder/mlflow.db"


def current_uri() -> str:
    """Return the address of the store that the scripts use."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def find_sqlite_file(uri: str) -> Path | None:
    """Return the absolute path of the file that MLflow opens for this address; None if it is no address of SQLite.

    SQLAlchemy reads the address, as it does for MLflow: it knows what belongs to the path and what is an option.

    Raises
    ------
    UserError
        MLflow cannot use the address, or the store would be lost at the end of the process, as it is in memory only.
    """
    if not uri.lower().startswith("sqlite"):
        return None
    url = _parse(uri)
    database = url.database or ""
    if database in ("", ":memory:"):
        raise UserError(f"{redact_address(uri)}: this store is in memory and is lost at the end; {ADVICE}")
    if database.startswith("file:") or "uri" in url.query:
        raise UserError(f"{redact_address(uri)}: MLflow needs a path, not a file: address; {ADVICE}")
    file = Path.cwd() / database
    _check_path(uri, file)
    return file


def _check_path(uri: str, file: Path) -> None:
    """Refuse a path that no file can have; there may be no file yet."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        detail = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{redact_address(uri)}: its file cannot be used ({detail}); {ADVICE}") from None


def _parse(uri: str) -> URL:
    error = UserError(f"{redact_address(uri)}: this is no address of a SQLite file; {ADVICE}")
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        raise error from None
    if url.drivername not in DRIVERS or url.host or url.username:
        raise error
    return url


def absolute_uri(uri: str, file: Path) -> str:
    """Return the address of the same store that is right in every directory; options such as a timeout stay.

    The path is written as it is if SQLAlchemy reads it so: MLflow makes a directory for a path with %20 in it, too.
    """
    url = _parse(uri).set(drivername="sqlite", database=str(file))
    escaped = url.render_as_string(hide_password=False)
    _, mark, options = escaped.partition("?")
    plain = f"sqlite:///{file}{mark}{options}"
    return plain if make_url(plain) == url else escaped


def check_directory(file: Path) -> None:
    """Check that the directory of the file is there.

    Raises
    ------
    UserError
        It is missing.
    """
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no directory {file.parent}; create it or change MLFLOW_TRACKING_URI")


@contextmanager
def open_database(file: Path, *, writes: bool = False) -> Iterator[Connection]:
    """Open the file, which must exist, for one transaction: a failure or a kill inside the block changes nothing.

    While ``writes``, no other process can write; others can read what was there before.

    Raises
    ------
    SQLAlchemyError
        It cannot be opened, is no database, or is locked.
    """
    address = f"file:{quote(str(file))}?mode=rw"  # which does not create it
    engine = create_engine(
        "sqlite://",
        poolclass=NullPool,
        creator=lambda: sqlite3.connect(address, uri=True, timeout=TIMEOUT, isolation_level=None),
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        yield connection


def copy_database(file: Path) -> Path:
    """Copy the database, as it is between two transactions, to a new file beside it; return that file's path.

    Raises
    ------
    sqlite3.Error
        The file cannot be read, or its disk is full.
    """
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    target = file.with_name(f"{file.name}.{now}.backup")
    with (
        atomic_file(target) as temporary,
        closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=TIMEOUT)) as source,
        closing(sqlite3.connect(temporary)) as copy,
    ):
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # of a database with a write-ahead log: one file is all
    return target


@contextmanager
def sqlite_init_lock(file: Path) -> Iterator[None]:
    """Let one process at a time open a SQLite file: the first one creates its tables.

    Raises
    ------
    UserError
        Another process has held the lock for five minutes.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{file}.lock", timeout=INIT_LOCK_TIMEOUT)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process has held {lock.lock_file} for 5 minutes; stop it and run again") from None
    except OSError:  # a directory that cannot be written needs no new tables
        pass
    try:
        yield
    finally:
        lock.release()
