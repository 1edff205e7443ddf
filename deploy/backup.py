"""Save what the tracking server holds, tables, accounts and files, in one archive; put it back into an empty server.

    python backup.py save > backup.tar
    python backup.py restore < backup.tar

Runs beside the server, with its environment; `make server-backup` and `make server-restore` call it there. The archive
has a file of JSON lines for each table (tables/<name>.jsonl, values by column), the accounts (accounts.db, SQLite) and
every object of the bucket (files/...). It holds the hashes of passwords: keep it as you keep passwords.
"""

import base64
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
from sqlalchemy import Connection, MetaData, Table, create_engine, text

VERSION = "alembic_version"  # the table that says how the tables are laid out; equal on both sides
ACCOUNTS = "accounts.db"  # the name of their file in the archive
EMPTY = ("runs", "registered_models", "logged_models")  # nothing in these: an empty server


def main() -> int:
    """Save or restore; return the exit code."""
    if sys.argv[1:] not in (["save"], ["restore"]):
        print("error: say save or restore; the first lines of this file explain it", file=sys.stderr)
        return 2
    engine = create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
    with engine.connect() as database, database.begin():  # one transaction: all tables of one moment
        tables = MetaData()
        tables.reflect(database)
        if sys.argv[1] == "save":
            save(database, tables, sys.stdout.buffer)
            return 0
        if problem := restore(database, tables, sys.stdin.buffer):
            database.rollback()
            print(f"error: {problem}", file=sys.stderr)
            return 2
    return 0


def bucket() -> Any:
    """Return the bucket of the artifacts."""
    store = boto3.resource("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    return store.Bucket(urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]).netloc)


def save(database: Connection, tables: MetaData, out: IO[bytes]) -> None:
    """Write the archive; the tables first, so that no run in it lacks a file that was there before."""
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for table in tables.sorted_tables:
            with tempfile.TemporaryFile() as lines:
                for row in rows_of(database, table):
                    lines.write(json.dumps(row, default=encode).encode() + b"\n")
                add(archive, f"tables/{table.name}.jsonl", lines)
        with tempfile.NamedTemporaryFile() as copy:
            with (
                closing(sqlite3.connect(os.environ["ACCOUNTS"])) as accounts,
                closing(sqlite3.connect(copy.name)) as to,
            ):
                accounts.backup(to)
            copy.seek(0, os.SEEK_END)
            add(archive, ACCOUNTS, copy)
        for item in bucket().objects.all():
            with tempfile.TemporaryFile() as content:
                item.Object().download_fileobj(content)
                add(archive, f"files/{item.key}", content)


def rows_of(database: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """Yield the rows as the driver gives them: the types that SQLAlchemy sees in a database round numbers."""
    found = database.execution_options(yield_per=1000).exec_driver_sql(f"SELECT * FROM `{table.name}`")  # noqa: S608
    yield from map(dict, found.mappings())


def add(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    """Add a file to the archive."""
    about = tarfile.TarInfo(name)
    about.size = content.tell()
    content.seek(0)
    archive.addfile(about, content)


def restore(database: Connection, tables: MetaData, archived: IO[bytes]) -> str:
    """Put the archive into the database and the bucket; return what speaks against it, or nothing."""
    for name in EMPTY:
        if database.execute(tables.tables[name].select().limit(1)).first():
            return f"the server is not empty (table {name}); make server-reset empties it"
    database.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
    database.execute(text("SET sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"))  # experiment 0 is 0
    accounts = b""
    with tarfile.open(fileobj=archived, mode="r|") as archive:
        for entry in archive:
            content: IO[bytes] = archive.extractfile(entry) or io.BytesIO()
            kind, _, name = entry.name.partition("/")
            if kind == "files":
                with tempfile.TemporaryFile() as file:  # boto3 wants to go back and forth in it
                    shutil.copyfileobj(content, file)
                    file.seek(0)
                    bucket().upload_fileobj(file, name)
                continue
            if entry.name == ACCOUNTS:
                accounts = content.read()
                continue
            table = tables.tables.get(name.removesuffix(".jsonl"))
            if table is None:
                return f"this server has no table {name}; use the MLflow version that made the archive"
            rows = [json.loads(line, object_hook=decode) for line in content]
            if table.name == VERSION and rows != list(rows_of(database, table)):
                return f"the archive is of another MLflow version ({table.name}); use that one"
            database.exec_driver_sql(f"DELETE FROM `{table.name}`")  # noqa: S608
            for start in range(0, len(rows), 1000):
                names = ", ".join(f"`{column}`" for column in rows[0])
                places = ", ".join(["%s"] * len(rows[0]))
                insert = f"INSERT INTO `{table.name}` ({names}) VALUES ({places})"  # noqa: S608
                database.exec_driver_sql(insert, [tuple(row.values()) for row in rows[start : start + 1000]])
    database.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(accounts)
        copy.flush()
        with closing(sqlite3.connect(copy.name)) as source, closing(sqlite3.connect(os.environ["ACCOUNTS"])) as to:
            source.backup(to)
    return ""


def encode(value: Any) -> Any:
    """Return for JSON what it has no type for."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)  # decimal numbers


def decode(said: dict[str, Any]) -> Any:
    """Return what `encode` wrote; the database reads dates as text."""
    return base64.b64decode(said["base64"]) if set(said) == {"base64"} else said


if __name__ == "__main__":
    sys.exit(main())
