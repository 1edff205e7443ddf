"""Open and list files that somebody else may have made: regular files only, and never behind a link that leads away.

A FIFO would wait for ever, a device such as /dev/zero never ends, and a link can lead to a private file.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_RECORD_SIZE = 10_000_000  # bytes of a record that is read as a whole
MAX_DEPTH = 64  # folders below a source
MAX_PATH_SIZE = 1_000  # bytes of a path below a source: with a folder in front, it stays below what a system takes
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # not to wait for the other end of a FIFO
FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, order=True)
class ListedFile:
    """A regular file below a folder.

    Attributes
    ----------
    path : below the folder.
    real_path : absolute and without links, for `open_real_file`.
    """

    path: Path
    real_path: Path


@dataclass(frozen=True, order=True)
class RefusedFile:
    """What is below a folder and is not read.

    Attributes
    ----------
    path : below the folder.
    reason : for people.
    """

    path: Path
    reason: str


def open_regular_file(file: Path) -> BinaryIO:
    """Open a file that a person has named, to read bytes; it may be a link to a regular file.

    Raises
    ------
    OSError
        It cannot be opened, or is not a regular file.
    """
    return _open_checked(os.open(file, OPEN_FLAGS), file)


def open_real_file(file: Path) -> BinaryIO:
    """Open the regular file at an absolute path in which nothing is a link, to read bytes.

    Every folder is opened from the one above it, so that a link that has just been put there is not followed.

    Raises
    ------
    OSError
        It cannot be opened, is not a regular file, or something in its path is a link.
    """
    *folders, name = file.parts
    folder = os.open(folders[0], FOLDER_FLAGS)
    try:
        for part in folders[1:]:
            parent = folder
            folder = os.open(part, FOLDER_FLAGS, dir_fd=parent)
            os.close(parent)
        return _open_checked(os.open(name, OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=folder), file)
    finally:
        os.close(folder)


def open_file_below(folder: Path, name: str | Path) -> BinaryIO:
    """Open a regular file whose real path is below ``folder``, to read bytes.

    Raises
    ------
    OSError
        It cannot be opened, is not a regular file, or is a link that leaves the folder.
    """
    real_folder = Path(os.path.realpath(folder, strict=True))
    real_file = Path(os.path.realpath(real_folder / name, strict=True))
    if not real_file.is_relative_to(real_folder):
        raise OSError(errno.EPERM, f"a link that leaves {folder}", str(real_folder / name))
    return open_real_file(real_file)


def _open_checked(number: int, file: Path) -> BinaryIO:
    """Return the open file of a descriptor if it is a regular one; else close it."""
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(file))
        os.set_blocking(number, True)
        return os.fdopen(number, "rb")
    except OSError:
        os.close(number)
        raise


def read_limited(file: BinaryIO, limit: int) -> bytes:
    """Return the content of an open file.

    Raises
    ------
    OSError
        It cannot be read, or has more than ``limit`` bytes.
    """
    content = file.read(min(limit, file_size(file)) + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes")
    return content


def read_file(file: Path, limit: int = MAX_RECORD_SIZE) -> bytes:
    """Return the content of a file that a person has named, see `open_regular_file`.

    Raises
    ------
    OSError
        It cannot be read, is not a regular file, or has more than ``limit`` bytes.
    """
    with open_regular_file(file) as opened:
        return read_limited(opened, limit)


def file_size(file: BinaryIO) -> int:
    """Return the size of an open file in bytes; it is read from where it was before."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def list_files(folder: Path) -> tuple[list[ListedFile], list[RefusedFile]]:
    """Return the regular files below a real folder, and what else is there, both in order of their paths.

    Hidden files and folders are left out, such as macOS adds to a USB stick. A link to a file below the folder counts
    as that file. A link to a folder is not followed: what it leads to is read under its own name, or is elsewhere.
    """
    files: list[ListedFile] = []
    refused: list[RefusedFile] = []
    folders = [Path()]
    while folders:
        path = folders.pop()
        try:
            with os.scandir(folder / path) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            refused.append(RefusedFile(path, error.strerror or "unreadable"))
            continue
        for entry in visible:
            child = path / entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            try:
                _check_length(child, is_folder=is_folder)
                if is_folder:
                    folders.append(child)
                else:
                    files.append(ListedFile(child, _find_real_path(entry, folder)))
            except OSError as error:
                refused.append(RefusedFile(child, error.strerror or "unreadable"))
    return sorted(files), sorted(refused)


def _check_length(path: Path, *, is_folder: bool) -> None:
    """Raise OSError if a path below a source is too long to be copied to another folder."""
    if len(os.fsencode(path)) > MAX_PATH_SIZE:
        raise OSError(errno.ENAMETOOLONG, f"its path has more than {MAX_PATH_SIZE:,} bytes")
    if is_folder and len(path.parts) > MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, f"it is more than {MAX_DEPTH} folders deep")


def _find_real_path(entry: "os.DirEntry[str]", folder: Path) -> Path:
    """Return the real path of a regular file below ``folder``; raise OSError that says why it is not one."""
    path = Path(entry.path)
    if entry.is_symlink():
        path = _resolve_link(path)
        if not path.is_relative_to(folder):
            raise OSError(errno.EPERM, "a link that leaves the source")
        if path.is_dir():
            raise OSError(errno.EISDIR, "a link to a folder that is read under its own name")
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return path


def _resolve_link(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "a link that leads nowhere") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link that leads to itself") from None
        raise
