"""Save all data of the tracking server in one archive; restore it into an empty server.

    python backup.py save > backup.tar
    python backup.py restore < backup.tar

It runs beside the server, with the server's environment: `make server-backup` and `make server-restore` call it there.
The archive has the rows of all tables (tables.sql, from mysqldump), the accounts (accounts.db, SQLite) and every object
of the bucket (files/...). manifest.json, its last file, has the SHA-256 of each. The archive holds the hashes of
passwords: protect it as you protect passwords.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import boto3
import pymysql

TABLES_FILE = "tables.sql"
ACCOUNTS_FILE = "accounts.db"
FILES_PREFIX = "files/"
MANIFEST_FILE = "manifest.json"
DATA_TABLES = ("runs", "registered_models", "logged_models")  # a server is empty if these are

# One transaction reads all tables as of one moment. Only rows are saved: the restoring server has created its tables.
DUMP_OPTIONS = (
    "--single-transaction",
    "--no-tablespaces",  # they would need a privilege that MLflow's account does not have
    "--no-create-info",
    "--skip-triggers",
    "--skip-add-locks",  # LOCK TABLES and ALTER TABLE would end the transaction that restores
    "--skip-disable-keys",
    "--complete-insert",
    "--hex-blob",
)
CLIENT_OPTIONS = ("--batch", "--binary-mode")  # the second: an archive can hold SQL, but no commands of the client


class BackupError(Exception):
    """The text says what is wrong, and what to do."""


@dataclass(frozen=True)
class Database:
    """How to reach MLflow's database.

    Attributes
    ----------
    host, port, user, password
        The server and MLflow's account.
    name
        The database on it.
    """

    host: str
    port: int
    user: str
    password: str
    name: str

    @classmethod
    def from_environment(cls) -> "Database":
        """Return the database of the server, from MLFLOW_BACKEND_STORE_URI."""
        url = urlsplit(os.environ["MLFLOW_BACKEND_STORE_URI"])
        user, password = unquote(url.username or ""), unquote(url.password or "")
        return cls(url.hostname or "", url.port or 3306, user, password, url.path.strip("/"))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows that the statement gives."""
        connection = pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, database=self.name
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def run_client(self, programs: Sequence[str], options: Sequence[str], **streams: Any) -> None:
        """Run the first of ``programs`` that is installed, connected to the database.

        Raises
        ------
        BackupError
            None is installed, or the program failed.
        """
        paths = [shutil.which(name) for name in programs]
        path = next((path for path in paths if path), None)
        if path is None:
            raise BackupError(f"{' or '.join(programs)} is not installed; install a client of MySQL or MariaDB")
        account = (f"--host={self.host}", f"--port={self.port}", f"--user={self.user}", "--protocol=tcp")
        command = [path, "--no-defaults", *account, "--default-character-set=utf8mb4", *options, self.name]
        env = os.environ | {"MYSQL_PWD": self.password}  # an option would be visible to every process
        done = subprocess.run(command, env=env, stderr=subprocess.PIPE, **streams)  # noqa: S603 - no shell is involved
        if done.returncode:
            lines = done.stderr.decode(errors="replace").splitlines() or ["no message"]
            message = lines[-1]  # the lines before it repeat the statement
            raise BackupError(f"{Path(path).name} failed: {message}; the tables are unchanged")


def main(argv: Sequence[str] | None = None) -> int:
    """Save or restore; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments not in (["save"], ["restore"]):
        print("error: say save or restore; the first lines of this file explain it", file=sys.stderr)
        return 2
    try:
        if arguments == ["save"]:
            save(sys.stdout.buffer)
        else:
            restore(sys.stdin.buffer)
    except BackupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


# --- save -----------------------------------------------------------------------------------------------------------


def save(output: IO[bytes]) -> None:
    """Write the archive. The tables are first, so that it has the files of every run in them."""
    database = Database.from_environment()
    digests: dict[str, str] = {}
    with tempfile.TemporaryFile() as tables:
        database.run_client(("mariadb-dump", "mysqldump"), DUMP_OPTIONS, stdout=tables)
        with tarfile.open(fileobj=output, mode="w|") as archive:
            digests[TABLES_FILE] = add_file(archive, TABLES_FILE, tables)
            with tempfile.NamedTemporaryFile() as accounts:
                copy_sqlite(os.environ["ACCOUNTS"], accounts.name)
                digests[ACCOUNTS_FILE] = add_file(archive, ACCOUNTS_FILE, accounts)
            for item in get_bucket().objects.all():
                with tempfile.TemporaryFile() as content:
                    item.Object().download_fileobj(content)
                    name = FILES_PREFIX + item.key
                    digests[name] = add_file(archive, name, content)
            manifest = describe_version(database) | {"sha256": digests}
            add_file(archive, MANIFEST_FILE, io.BytesIO(json.dumps(manifest).encode()))


def add_file(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> str:
    """Add a file to the archive; return its SHA-256."""
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]  # any binary file will do
    content.seek(0)
    archive.addfile(entry, content)
    return digest.hexdigest()


# --- restore --------------------------------------------------------------------------------------------------------


def restore(stream: IO[bytes]) -> None:
    """Restore the archive. It is checked completely before anything is changed; the tables are one transaction.

    Raises
    ------
    BackupError
        The server is not empty, the archive is damaged or of another MLflow version, or the database refuses it.
    """
    database = Database.from_environment()
    for table in DATA_TABLES:
        if database.query(f"SELECT 1 FROM `{table}` LIMIT 1"):  # noqa: S608 - a name from above
            raise BackupError(f"the server is not empty (table {table}); make server-reset empties it")
    with tempfile.TemporaryDirectory() as folder:
        files = extract(stream, Path(folder))
        manifest = read_manifest(files)
        here = describe_version(database)
        if manifest["alembic_version"] != here["alembic_version"]:
            raise BackupError(
                f"the archive is of another MLflow version ({manifest['mlflow']}; this server has {here['mlflow']}); "
                "use that one"
            )
        for name, file in files.items():
            if name.startswith(FILES_PREFIX):
                get_bucket().upload_file(str(file), name.removeprefix(FILES_PREFIX))
        restore_tables(database, files[TABLES_FILE])
        copy_sqlite(str(files[ACCOUNTS_FILE]), os.environ["ACCOUNTS"])


def extract(stream: IO[bytes], folder: Path) -> dict[str, Path]:
    """Write the files of the archive to ``folder``; return their paths by their names in the archive."""
    files: dict[str, Path] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None:
                    raise BackupError(f"the archive has {entry.name}, which is not a file; use another backup")
                files[entry.name] = folder / str(len(files))  # its own name could lead out of the folder
                with files[entry.name].open("wb") as copy:
                    shutil.copyfileobj(content, copy)
    except tarfile.TarError as error:
        raise BackupError(f"the archive is damaged ({error}); use another backup") from None
    return files


def read_manifest(files: dict[str, Path]) -> dict[str, Any]:
    """Return the manifest, after a comparison of all files with it.

    Raises
    ------
    BackupError
        A file is missing, was added or has changed.
    """
    if MANIFEST_FILE not in files:
        raise BackupError(f"the archive is incomplete (no {MANIFEST_FILE}); use another backup")
    try:
        manifest: dict[str, Any] = json.loads(files.pop(MANIFEST_FILE).read_bytes())
    except ValueError as error:
        raise BackupError(f"the archive is damaged ({MANIFEST_FILE}: {error}); use another backup") from None
    digests = {}
    for name, file in files.items():
        with file.open("rb") as content:
            digests[name] = hashlib.file_digest(content, "sha256").hexdigest()
    for name in sorted(digests.keys() | manifest["sha256"].keys()):
        if digests.get(name) != manifest["sha256"].get(name):
            raise BackupError(f"the archive is damaged (SHA-256 of {name}); use another backup")
    return manifest


def restore_tables(database: Database, rows: Path) -> None:
    """Replace the rows of all tables, in one transaction: if a statement fails, nothing has changed."""
    tables = [name for (name,) in database.query("SHOW TABLES")]
    statements = ["SET autocommit = 0;", "SET FOREIGN_KEY_CHECKS = 0;"]
    statements += [f"DELETE FROM `{table}`;" for table in tables]  # noqa: S608 - names from the database
    with tempfile.TemporaryFile() as script:
        script.write("\n".join(statements).encode() + b"\n")
        with rows.open("rb") as content:
            shutil.copyfileobj(content, script)
        script.write(b"\nCOMMIT;\n")
        script.seek(0)
        database.run_client(("mariadb", "mysql"), CLIENT_OPTIONS, stdin=script)


# --- both -----------------------------------------------------------------------------------------------------------


def describe_version(database: Database) -> dict[str, Any]:
    """Return MLflow's version, and the one that its tables say; with equal ones an archive can be restored."""
    ((revision,),) = database.query("SELECT version_num FROM alembic_version")
    return {"mlflow": importlib.metadata.version("mlflow"), "alembic_version": revision}


def get_bucket() -> Any:
    """Return the bucket of the artifacts."""
    store = boto3.resource("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    return store.Bucket(urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]).netloc)


def copy_sqlite(source: str, target: str) -> None:
    """Copy a SQLite database, in one step and while others use it."""
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


if __name__ == "__main__":
    sys.exit(main())
