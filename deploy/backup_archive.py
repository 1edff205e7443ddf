"""The archive of backup.py: written, and read with every check before anything of it is used.

It is a tar file. Its first file, manifest.json, has the versions, and the size and SHA-256 of every other file: the
rows of all tables (tables.sql, from mysqldump), the accounts (accounts.db, SQLite), all objects of the bucket (files/).
"""

import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

FORMAT = 2
TABLES_FILE = "tables.sql"
ACCOUNTS_FILE = "accounts.db"
FILES_PREFIX = "files/"
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST = 2**28  # bytes: two million files
MAX_HEADERS = 8192  # bytes of tar headers for one file; the longest key of S3 has 1,024 bytes


class BackupError(Exception):
    """The text says what is wrong, and what to do."""


def write_archive(output: IO[bytes], version: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Write the manifest, then the files."""
    described = {}
    for name, file in files.items():
        described[name] = {"size": file.stat().st_size, "sha256": hash_file(file)}
    manifest = json.dumps({"format": FORMAT, **version, "files": described}).encode()
    with tarfile.open(fileobj=output, mode="w|") as archive:
        entry = tarfile.TarInfo(MANIFEST_FILE)
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
        for name, file in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)
    output.flush()


class LimitedStream:
    """A stream that refuses to give more bytes than announced, so that no archive fills disk or memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.position = 0
        self.limit = MAX_MANIFEST

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        content = self.stream.read(size)
        self.position += len(content)
        if self.position > self.limit:
            raise damaged("more bytes than its manifest announces")
        return content


def read_archive(stream: IO[bytes], folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Write the files of the archive to ``folder``; return the manifest, and their paths by their names.

    Raises
    ------
    BackupError
        The archive has another file, size or content than its manifest, anything but files, or no end.
    """
    limited = LimitedStream(stream)
    files: dict[str, Path] = {}
    end = 0
    try:
        with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|") as archive:
            manifest = read_manifest(archive)
            described = manifest["files"]
            total = sum(item["size"] for item in described.values())
            check_space(folder, total)
            limited.limit = MAX_MANIFEST + total + MAX_HEADERS * (len(described) + 1)
            while entry := archive.next():
                if entry.name in files or entry.name not in described or not is_plain(entry):
                    raise damaged(f"{entry.name!r} is not a file of its manifest, or is there twice")
                if entry.size != described[entry.name]["size"]:
                    raise damaged(f"the size of {entry.name!r}")
                files[entry.name] = folder / str(len(files))  # its own name could lead out of the folder
                with files[entry.name].open("wb") as copy:
                    shutil.copyfileobj(cast(IO[bytes], archive.extractfile(entry)), copy)
                if hash_file(files[entry.name]) != described[entry.name]["sha256"]:
                    raise damaged(f"the content of {entry.name!r}")
                end = entry.offset_data + entry.size
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise damaged(str(error)) from None
    missing = sorted(described.keys() - files.keys())
    if missing:
        raise damaged(f"{missing[0]!r} is missing")
    while limited.read(tarfile.RECORDSIZE):
        pass
    # A tar file ends with two blocks of zeros, and is filled up to a whole record.
    blocks = -(-end // tarfile.BLOCKSIZE) + 2
    if limited.position != -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE:
        raise damaged("its end is missing, or more follows")
    check_accounts(files[ACCOUNTS_FILE])
    return manifest, files


def read_manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    """Return the manifest, the first file of the archive, after a check of its form."""
    entry = archive.next()
    if entry is None or entry.name != MANIFEST_FILE or not is_plain(entry) or entry.size > MAX_MANIFEST:
        raise BackupError(
            f"this is no archive of this version of backup.py (it does not begin with {MANIFEST_FILE}); "
            "use one that is, or the version that made it"
        )
    try:
        manifest = json.loads(archive.extractfile(entry).read())  # type: ignore[union-attr]  # a file has content
        if manifest["format"] != FORMAT:
            raise BackupError(
                f"the archive has format {manifest['format']!r}; use the version of backup.py that made it"
            )
        if not all(isinstance(manifest[key], str) for key in ("mlflow", "alembic_version")):
            raise damaged(MANIFEST_FILE)
        for name, item in manifest["files"].items():
            if name not in (TABLES_FILE, ACCOUNTS_FILE):
                check_key(name.removeprefix(FILES_PREFIX) if name.startswith(FILES_PREFIX) else "")
            if type(item["size"]) is not int or item["size"] < 0 or not isinstance(item["sha256"], str):
                raise damaged(MANIFEST_FILE)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise damaged(MANIFEST_FILE) from None
    if not {TABLES_FILE, ACCOUNTS_FILE} <= manifest["files"].keys():
        raise damaged(f"{MANIFEST_FILE} lacks {TABLES_FILE} or {ACCOUNTS_FILE}")
    return dict(manifest)


def is_plain(entry: tarfile.TarInfo) -> bool:
    """Return whether it is a file with all its bytes: no link, device, directory or sparse file."""
    return entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()


def check_key(key: str) -> None:
    """Refuse the name of an object that is no relative path."""
    if any(part in ("", ".", "..") for part in key.split("/")) or not key.isprintable():
        raise BackupError(f"the name {key!r} of a file leads elsewhere; remove that file")


def check_accounts(file: Path) -> None:
    """Refuse accounts that nobody could use: no database, a damaged one, or one without accounts."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as accounts:
            ((state,),) = accounts.execute("PRAGMA integrity_check(1)").fetchall()
            ((count,),) = accounts.execute("SELECT COUNT(*) FROM users").fetchall()
    except sqlite3.Error as error:
        raise BackupError(f"the accounts cannot be read ({error})") from None
    if state != "ok" or not count:
        raise BackupError(f"the accounts are damaged ({state}, {count} accounts)")


def check_space(folder: Path, size: int) -> None:
    """Refuse to unpack more than there is room for."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise BackupError(f"{folder.parent} has room for {free:,} bytes and the archive has {size:,}; set TMPDIR")


def damaged(reason: str) -> BackupError:
    """Return the error for an archive that is not as it was made."""
    return BackupError(f"the archive is damaged ({reason}); use another backup")


def hash_file(file: Path) -> str:
    """Return the SHA-256."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
