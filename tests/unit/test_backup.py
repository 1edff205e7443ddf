"""The archive of deploy/backup.py: what is refused before anything changes; tests/slow/test_server.py restores one."""

import hashlib
import io
import json
import random
import sqlite3
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import backup
import backup_archive

URI = "mysql+pymysql://me:p%40ss@db:3307/mlflow"
NAMES = ["manifest.json", "tables.sql", "accounts.db", "files/1/model.pt2", "files/1/report.md"]
VERSION = {"mlflow": "3.0", "alembic_version": "abc"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand in for a server with two files; return its accounts."""
    accounts = tmp_path / "accounts.db"
    with closing(sqlite3.connect(accounts)) as database, database:
        database.execute("CREATE TABLE users (name TEXT)")
        database.execute("INSERT INTO users VALUES ('admin')")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", URI)
    monkeypatch.setenv("ACCOUNTS", str(accounts))
    monkeypatch.setattr(backup.Database, "run_client", write_dump)
    monkeypatch.setattr(backup, "get_bucket", lambda: SimpleNamespace(objects=SimpleNamespace(all=list_objects)))
    monkeypatch.setattr(backup, "describe_version", lambda database: VERSION)
    return accounts


@pytest.fixture
def archive(server: Path) -> bytes:
    """Return an archive as `save` makes it."""
    output = io.BytesIO()
    backup.save(output)
    return output.getvalue()


def write_dump(database: object, programs: object, options: object, stdout: Any) -> None:
    stdout.write(b"INSERT INTO runs VALUES (1);\n")


def list_objects() -> list[Any]:
    """Return two objects of a bucket, as far as `save` uses them."""
    objects = []
    for key in ("1/model.pt2", "1/report.md"):
        content = SimpleNamespace(download_fileobj=lambda file, key=key: file.write(key.encode()))
        objects.append(SimpleNamespace(key=key, Object=lambda content=content: content))
    return objects


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the files of an intact archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: content.read() for name, content in members if content}


def pack(files: Mapping[str, bytes | None]) -> bytes:
    """Return an archive of these files; None leaves one out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def describe(contents: Mapping[str, bytes], **changes: object) -> bytes:
    """Return the manifest that fits the files."""
    described = {}
    for name, content in contents.items():
        if name != "manifest.json":
            described[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps({"format": backup_archive.FORMAT, **VERSION, "files": described} | changes).encode()


def refuse(archive: bytes, folder: Path) -> str:
    """Return the one line of the refusal, for which nothing but ``folder`` was written."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(backup_archive.BackupError) as refused:
        backup_archive.read_archive(io.BytesIO(archive), folder)
    message = str(refused.value)
    assert message
    assert message.isprintable()
    return message


# --- save -----------------------------------------------------------------------------------------------------------


def test_an_archive_has_tables_accounts_and_files(archive: bytes, tmp_path: Path) -> None:
    assert list(unpack(archive)) == NAMES
    manifest, files = backup_archive.read_archive(io.BytesIO(archive), tmp_path)
    assert list(manifest["files"]) == list(files) == NAMES[1:]
    assert files["tables.sql"].read_bytes() == b"INSERT INTO runs VALUES (1);\n"
    assert files["files/1/report.md"].read_bytes() == b"1/report.md"


def remove_accounts(accounts: Path) -> None:
    accounts.unlink()


def remove_users(accounts: Path) -> None:
    with closing(sqlite3.connect(accounts)) as database, database:
        database.execute("DELETE FROM users")


def overwrite(accounts: Path) -> None:
    accounts.write_bytes(b"no database" * 1000)


@pytest.mark.parametrize("damage", [remove_accounts, remove_users, overwrite])
def test_a_save_that_fails_writes_nothing(server: Path, damage: Callable[[Path], None]) -> None:
    damage(server)
    output = io.BytesIO()
    with pytest.raises(backup_archive.BackupError, match="the accounts"):
        backup.save(output)
    assert output.getvalue() == b""


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables.sql": b"INSERT INTO runs VALUES (2);\n"}, "the content of 'tables.sql'"),
        ({"files/1/report.md": b""}, "the size of 'files/1/report.md'"),
        ({"files/1/report.md": b"x" * 10_000}, "the size of 'files/1/report.md'"),
        ({"files/1/model.pt2": None}, "'files/1/model.pt2' is missing"),
        ({"files/2/new": b"new"}, "'files/2/new' is not a file of its manifest"),
        ({"manifest.json": None}, "does not begin with manifest.json"),
        ({"manifest.json": b'{"sha256": '}, "manifest.json"),
        ({"manifest.json": b"[" * 100_000}, "manifest.json"),
        ({"manifest.json": b"[]"}, "manifest.json"),
        ({"manifest.json": b'{"format": 1}'}, "has format 1"),
        ({"manifest.json": describe({})}, "lacks tables.sql or accounts.db"),
        ({"manifest.json": describe({}, files={"tables.sql": {"size": -1, "sha256": ""}})}, "manifest.json"),
        ({"manifest.json": describe({}, mlflow=3)}, "manifest.json"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)
def test_a_changed_archive_is_refused(
    archive: bytes, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    assert message in refuse(pack(unpack(archive) | changes), tmp_path / "folder")


def test_an_archive_cut_anywhere_is_refused(archive: bytes, tmp_path: Path) -> None:
    for length in range(0, len(archive), 97):
        refuse(archive[:length], tmp_path / "folder")
    refuse(archive[:-1], tmp_path / "folder")


def test_an_archive_with_more_after_its_end_is_refused(
    archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "its end is missing, or more follows" in refuse(archive + archive, tmp_path / "folder")
    monkeypatch.setattr(backup_archive, "MAX_MANIFEST", 2**16)
    assert "more bytes than its manifest announces" in refuse(archive + bytes(2**20), tmp_path / "folder")


def test_no_flipped_byte_changes_what_is_restored(archive: bytes, tmp_path: Path) -> None:
    intact = unpack(archive)
    choose = random.Random(0)
    refused = 0
    for _ in range(300):
        position = choose.randrange(len(archive))
        flipped = bytearray(archive)
        flipped[position] ^= 1 << choose.randrange(8)
        try:
            _, files = backup_archive.read_archive(io.BytesIO(flipped), tmp_path)
        except backup_archive.BackupError:
            refused += 1
            continue
        assert {name: file.read_bytes() for name, file in files.items()} == {name: intact[name] for name in NAMES[1:]}
    assert refused > 100


@pytest.mark.parametrize("name", ["files/../../outside", "files//etc/passwd", "files/./x", "/etc/passwd", "files/"])
def test_names_that_lead_elsewhere_are_refused(archive: bytes, tmp_path: Path, name: str) -> None:
    files = unpack(archive) | {name: b"!"}
    files["manifest.json"] = describe(files)
    assert "leads elsewhere" in refuse(pack(files), tmp_path / "folder")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_anything_but_files_is_refused(archive: bytes, tmp_path: Path, kind: bytes) -> None:
    files = unpack(archive)
    changed = io.BytesIO()
    with tarfile.open(fileobj=changed, mode="w") as tar:
        for name in NAMES:
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            if name == "files/1/report.md":
                member.type, member.linkname, member.size = kind, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(files[name]))
    assert "'files/1/report.md' is not a file of its manifest" in refuse(changed.getvalue(), tmp_path / "folder")


def test_a_file_that_comes_twice_is_refused(archive: bytes, tmp_path: Path) -> None:
    twice = archive.index(b"tables.sql\0")
    doubled = archive[:twice] + archive[twice : twice + 1024] + archive[twice:]
    assert "is there twice" in refuse(doubled, tmp_path / "folder")


def test_an_archive_without_accounts_is_refused(archive: bytes, tmp_path: Path) -> None:
    files = unpack(archive) | {"accounts.db": b""}
    files["manifest.json"] = describe(files)
    assert "the accounts cannot be read" in refuse(pack(files), tmp_path / "folder")


def test_an_archive_too_large_for_the_disk_is_refused(archive: bytes, tmp_path: Path) -> None:
    files = unpack(archive)
    described = json.loads(files["manifest.json"])["files"]
    described["tables.sql"]["size"] = 2**60
    files["manifest.json"] = describe(files, files=described)
    assert "set TMPDIR" in refuse(pack(files), tmp_path / "folder")
    assert not list((tmp_path / "folder").iterdir())


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_address_of_the_database_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", URI)
    assert backup.Database.from_environment() == backup.Database("db", 3307, "me", "p@ss", "mlflow")


def test_a_missing_client_program_is_named() -> None:
    database = backup.Database("db", 3306, "me", "secret", "mlflow")
    with pytest.raises(backup_archive.BackupError, match="no-such-program or nor-this is not installed"):
        database.run_client(("no-such-program", "nor-this"), ())


@pytest.mark.parametrize("argv", [[], ["delete"], ["save", "now"]])
def test_any_other_command_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert backup.main(argv) == 2
    assert capsys.readouterr().err.startswith("error: say save, check or restore")


def test_check_answers_by_its_exit_code(
    archive: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for content, code in ((archive, 0), (archive[: len(archive) // 2], 2), (b"", 2)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert backup.main(["check"]) == code
        assert len(capsys.readouterr().err.splitlines()) == (1 if code else 0)
