"""The archive of deploy/backup.py: what is refused before anything changes; tests/slow/test_server.py restores one."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import backup

URI = "mysql+pymysql://me:p%40ss@db:3307/mlflow"


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """Return an archive as `save` makes it, of a server with two files."""
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", URI)
    monkeypatch.setenv("ACCOUNTS", str(tmp_path / "accounts.db"))
    monkeypatch.setattr(backup.Database, "run_client", write_dump)
    monkeypatch.setattr(backup, "get_bucket", lambda: SimpleNamespace(objects=SimpleNamespace(all=list_objects)))
    monkeypatch.setattr(backup, "describe_version", lambda database: {"mlflow": "3.0", "alembic_version": "abc"})
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


def read(archive: bytes, folder: Path) -> dict[str, Path]:
    """Return the files of an archive, after every check."""
    files = backup.extract(io.BytesIO(archive), folder)
    backup.read_manifest(files)
    return files


def change(archive: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """Return the archive with other contents for these names; None removes one."""
    changed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as source, tarfile.open(fileobj=changed, mode="w") as target:
        contents = {}
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            contents[member.name] = content.read()
        for name, new in (contents | dict(changes)).items():
            if new is not None:
                member = tarfile.TarInfo(name)
                member.size = len(new)
                target.addfile(member, io.BytesIO(new))
    return changed.getvalue()


def test_an_archive_has_tables_accounts_and_files(archive: bytes, tmp_path: Path) -> None:
    files = read(archive, tmp_path)
    assert list(files) == ["tables.sql", "accounts.db", "files/1/model.pt2", "files/1/report.md"]
    assert files["tables.sql"].read_bytes() == b"INSERT INTO runs VALUES (1);\n"
    assert files["files/1/report.md"].read_bytes() == b"1/report.md"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables.sql": b"INSERT INTO runs VALUES (2);\n"}, "SHA-256 of tables.sql"),
        ({"files/1/report.md": b""}, "SHA-256 of files/1/report.md"),
        ({"files/1/model.pt2": None}, "SHA-256 of files/1/model.pt2"),
        ({"files/2/new": b"new"}, "SHA-256 of files/2/new"),
        ({"manifest.json": None}, "incomplete (no manifest.json)"),
        ({"manifest.json": b'{"sha256": '}, "manifest.json"),
    ],
    ids=["changed", "emptied", "missing", "added", "no manifest", "cut manifest"],
)
def test_a_changed_archive_is_refused(
    archive: bytes, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    with pytest.raises(backup.BackupError) as refused:
        read(change(archive, changes), tmp_path)
    assert message in str(refused.value)


def test_an_archive_cut_anywhere_is_refused(archive: bytes, tmp_path: Path) -> None:
    end = archive.rindex(b"manifest.json")
    for length in range(0, end, 100):
        with pytest.raises(backup.BackupError, match="use another backup"):
            read(archive[:length], tmp_path)


def test_names_in_an_archive_lead_nowhere(archive: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    files = backup.extract(io.BytesIO(change(archive, {"files/../../outside": b"!"})), folder)
    assert files["files/../../outside"].parent == folder
    assert not (tmp_path / "outside").exists()


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        link = tarfile.TarInfo("files/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(backup.BackupError, match="files/link, which is not a file"):
        read(archive.getvalue(), tmp_path)


def test_the_address_of_the_database_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", URI)
    assert backup.Database.from_environment() == backup.Database("db", 3307, "me", "p@ss", "mlflow")


def test_a_missing_client_program_is_named() -> None:
    database = backup.Database("db", 3306, "me", "secret", "mlflow")
    with pytest.raises(backup.BackupError, match="no-such-program or nor-this is not installed"):
        database.run_client(("no-such-program", "nor-this"), ())


@pytest.mark.parametrize("argv", [[], ["delete"], ["save", "now"]])
def test_any_other_command_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert backup.main(argv) == 2
    assert capsys.readouterr().err.startswith("error: say save or restore")
