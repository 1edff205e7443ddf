"""Save all data of the tracking server in one archive; check an archive; restore it into an empty server.

    python backup.py save > backup.tar
    python backup.py check < backup.tar
    python backup.py restore < backup.tar

It runs beside the server, with the server's environment: `make server-backup` and `make server-restore` call it there.
backup_archive.py describes the archive. It holds the hashes of passwords: protect it as you protect passwords.
"""

import importlib.metadata
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import boto3
import pymysql
from botocore.exceptions import BotoCoreError, ClientError

from backup_archive import (
    ACCOUNTS_FILE,
    FILES_PREFIX,
    TABLES_FILE,
    BackupError,
    check_accounts,
    check_key,
    read_archive,
    write_archive,
)

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
    """Save, check or restore; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments not in (["save"], ["check"], ["restore"]):
        print("error: say save, check or restore; the first lines of this file explain it", file=sys.stderr)
        return 2
    try:
        if arguments == ["save"]:
            save(sys.stdout.buffer)
        elif arguments == ["check"]:
            check(sys.stdin.buffer)
        else:
            restore(sys.stdin.buffer)
    except (BackupError, OSError, sqlite3.Error, pymysql.MySQLError, BotoCoreError, ClientError) as error:
        message = " ".join(str(error).split())
        print(f"error: {message or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


# --- save -----------------------------------------------------------------------------------------------------------


def save(output: IO[bytes]) -> None:
    """Write the archive. Nothing is written before everything has been read: a save that fails leaves no half of one.

    The tables are read first, so that the archive has the files of every run in them.
    """
    database = Database.from_environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {TABLES_FILE: folder / TABLES_FILE, ACCOUNTS_FILE: folder / ACCOUNTS_FILE}
        with files[TABLES_FILE].open("wb") as tables:
            database.run_client(("mariadb-dump", "mysqldump"), DUMP_OPTIONS, stdout=tables)
        copy_sqlite(Path(os.environ["ACCOUNTS"]), files[ACCOUNTS_FILE])
        for item in get_bucket().objects.all():
            check_key(item.key)
            files[FILES_PREFIX + item.key] = folder / str(len(files))
            with files[FILES_PREFIX + item.key].open("wb") as content:
                item.Object().download_fileobj(content)
        write_archive(output, describe_version(database), files)


# --- check ----------------------------------------------------------------------------------------------------------


def check(stream: IO[bytes]) -> None:
    """Read the archive completely.

    Raises
    ------
    BackupError
        It is damaged, incomplete, or of another version of this script.
    """
    with tempfile.TemporaryDirectory() as folder:
        read_archive(stream, Path(folder))


# --- restore --------------------------------------------------------------------------------------------------------


def restore(stream: IO[bytes]) -> None:
    """Restore the archive. It is checked completely before anything is changed, and what fails later is undone.

    Raises
    ------
    BackupError
        The server is not empty, the archive is damaged or of another MLflow version, or the database refuses it.
    """
    database = Database.from_environment()
    for table in DATA_TABLES:
        if database.query(f"SELECT 1 FROM `{table}` LIMIT 1"):  # noqa: S608 - a name from above
            raise BackupError(f"the server is not empty (table {table}); make server-reset empties it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, files = read_archive(stream, folder)
        here = describe_version(database)
        if manifest["alembic_version"] != here["alembic_version"]:
            raise BackupError(
                f"the archive is of another MLflow version ({manifest['mlflow']!r}; this server has {here['mlflow']}); "
                "use that one"
            )
        accounts, before = Path(os.environ["ACCOUNTS"]), folder / "accounts-before.db"
        copy_sqlite(accounts, before)
        bucket, uploaded = get_bucket(), []
        try:
            for file in files:
                if file.startswith(FILES_PREFIX):
                    uploaded.append(file.removeprefix(FILES_PREFIX))
                    bucket.upload_file(str(files[file]), uploaded[-1])
            copy_sqlite(files[ACCOUNTS_FILE], accounts)
            restore_tables(database, files[TABLES_FILE])  # last: it is one transaction
        except BaseException:
            copy_sqlite(before, accounts)
            for key in uploaded:
                bucket.Object(key).delete()
            raise


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


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy the accounts, in one step and while others use them."""
    check_accounts(source)
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


if __name__ == "__main__":
    sys.exit(main())
