"""Unpack an archive that somebody else may have made into a temporary directory, which is removed afterwards."""

import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, cast

from pipeline.errors import UserError
from pipeline.regular_files import MAX_PATH_SIZE, file_size, open_real_file
from pipeline.text import printable

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (*ZIP_SUFFIXES, *TAR_SUFFIXES)
IGNORED_NAMES = ("__MACOSX",)  # what macOS adds to an archive; names that begin with a dot are left out, too
MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # of the unpacked size to that of the archive: pictures and numbers as text stay below 20
MIN_BOMB_SIZE = 100_000_000  # bytes; below that any ratio is harmless
DISK_RESERVE = 500_000_000  # bytes that stay free
BLOCK_SIZE = 2**20  # bytes that are unpacked at once
MAX_HEADER_SIZE = 2**24  # bytes that tarfile may read at once
ENCRYPTED = 0x1  # of a zip member's flags
TYPE_MASK, LINK_TYPE = 0o170000, 0o120000  # of a Unix mode, which zip files keep in the upper half of an attribute
# What Python's readers raise for damaged archives.
READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    ValueError,
)


@dataclass(frozen=True)
class _Member:
    """A regular file of an archive: its name, its size by the archive, and its content to read."""

    name: str
    size: int
    content: IO[bytes]


@contextmanager
def open_source(path: Path) -> Iterator[Path]:
    """Yield the folder with the content of an archive; a path that is none is yielded as it is.

    A ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz`` file is unpacked into a temporary directory, which is removed at the
    end, also after an error. If the archive has one folder and nothing else, that folder is yielded. ``path`` is a real
    path. An error that is raised inside names the archive where it would name the temporary directory.

    Raises
    ------
    UserError
        The archive is damaged, encrypted or too large for the disk, or has links, devices, or names that lead out.
    """
    if not path.name.lower().endswith(ARCHIVE_SUFFIXES) or not path.is_file():
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="images-")).resolve()
    try:
        _unpack(path, folder)
        yield _enter_wrapper(folder)
    except UserError as error:
        raise UserError(str(error).replace(str(folder), str(path))) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    try:
        with open_real_file(path) as file:
            budget = _Budget(path, folder, file_size(file))
            is_zip = path.name.lower().endswith(ZIP_SUFFIXES)
            members = _list_zip_members(path, file, budget) if is_zip else _list_tar_members(path, file)
            _write_members(members, folder, budget)
    except READ_ERRORS as error:
        reason = printable(str(error)) or type(error).__name__
        raise UserError(f"{path} is damaged, or no archive ({reason}); download it again") from None
    except OSError as error:
        raise UserError(
            f"cannot unpack {path} ({error.strerror or printable(str(error))}); unpack it by hand"
        ) from None


class _Budget:
    """How much of an archive may still be unpacked."""

    def __init__(self, path: Path, folder: Path, packed_size: int) -> None:
        self.path = path
        self.folder = folder
        self.packed_size = packed_size
        self.free = shutil.disk_usage(folder).free - DISK_RESERVE
        self.members = 0
        self.size = 0

    def check_total(self, members: int, size: int) -> None:
        """Raise UserError if so many members of this size are too many."""
        if members > MAX_MEMBERS:
            raise UserError(f"{self.path} has more than {MAX_MEMBERS:,} files; unpack it by hand")
        if size > max(MIN_BOMB_SIZE, MAX_RATIO * self.packed_size):
            raise UserError(
                f"{self.path} is a zip bomb: its {self.packed_size:,} bytes unpack to {size:,} or more; "
                "unpack it by hand if you trust it"
            )
        if size > self.free:
            raise UserError(
                f"{self.path} unpacks to {size:,} bytes or more, and {max(0, self.free):,} can be used in "
                f"{self.folder.parent}; make room, or set TMPDIR to a folder on a larger disk"
            )

    def add(self, size: int, members: int = 0) -> None:
        """Count what has been unpacked, and check it."""
        self.members += members
        self.size += size
        self.check_total(self.members, self.size)


def _write_members(members: Iterable[_Member], folder: Path, budget: _Budget) -> None:
    for member in members:
        budget.add(0, members=1)
        budget.check_total(budget.members, budget.size + member.size)
        name = _check_name(budget.path, member.name)
        if _is_ignored(name):
            continue
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            target = file.open("xb")
        except (FileExistsError, IsADirectoryError):
            raise _refuse(budget.path, member.name, "is there twice") from None
        with target:
            while block := member.content.read(BLOCK_SIZE):
                budget.add(len(block))
                target.write(block)


def _check_name(path: Path, name: str) -> PurePosixPath:
    """Return where a member is written, below the folder."""
    checked = PurePosixPath(name.replace("\\", "/"))
    leads_out = checked.is_absolute() or ".." in checked.parts or PureWindowsPath(name).drive
    if leads_out or not checked.parts:
        raise _refuse(path, name, "leads out of the archive")
    if "\0" in name or len(name.encode("utf-8", "surrogateescape")) > MAX_PATH_SIZE:
        raise _refuse(path, name, "has no name that a file can have")
    return checked


def _is_ignored(name: PurePosixPath) -> bool:
    return any(part.startswith(".") or part in IGNORED_NAMES for part in name.parts)


def _refuse(path: Path, name: str, reason: str) -> UserError:
    return UserError(f"{path} is not unpacked: {printable(name[:200])!r} {reason}; pack the images alone")


def _enter_wrapper(folder: Path) -> Path:
    """Return the only folder in a folder that has nothing else; else the folder itself."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    return folder


# --- zip ------------------------------------------------------------------------------------------------------------


def _list_zip_members(path: Path, file: BinaryIO, budget: _Budget) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        budget.check_total(len(infos), sum(info.file_size for info in infos))
        for info in infos:
            if info.is_dir():
                continue
            if info.external_attr >> 16 & TYPE_MASK == LINK_TYPE:
                raise _refuse(path, info.filename, "is a link")
            if info.flag_bits & ENCRYPTED:
                raise UserError(f"{path} is encrypted; unpack it by hand with its password")
            with archive.open(info) as content:
                yield _Member(info.filename, info.file_size, content)


# --- tar ------------------------------------------------------------------------------------------------------------


class _HeaderLimit:
    """A file for tarfile, which reads a header of any size at once: here the size is limited."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_SIZE:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        return self.file.seek(position, whence)

    def tell(self) -> int:
        return self.file.tell()


def _list_tar_members(path: Path, file: BinaryIO) -> Iterator[_Member]:
    is_packed = file.read(2) == b"\x1f\x8b"  # gzip, RFC 1952
    file.seek(0)
    unpacked = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_packed else file
    with tarfile.open(fileobj=cast("IO[bytes]", _HeaderLimit(unpacked)), mode="r:") as archive:
        for info in archive:
            if info.isdir():
                continue
            if info.issym() or info.islnk():
                raise _refuse(path, info.name, "is a link")
            content = archive.extractfile(info) if info.isreg() and info.sparse is None else None
            if content is None:
                raise _refuse(path, info.name, "is no regular file")
            yield _Member(info.name, info.size, content)
            archive.members = []  # type: ignore[attr-defined] # tarfile would keep them all
