"""Files and directories that appear complete or not at all, also if the power fails."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.context import user_name
from pipeline.errors import UserError
from pipeline.regular_files import read_file

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = (*FULL_DISK, errno.EFBIG)  # the last: the file is longer than the limit of this account
SPECIAL_FILES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


# --- write ----------------------------------------------------------------------------------------------------------


def find_target(path: Path) -> Path:
    """Return which regular file is written if ``path`` is: the file that a link leads to. It need not exist.

    Raises
    ------
    UserError
        There is a directory, a device, a pipe or a socket, or there cannot be a file.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except OSError as error:  # a loop of links, a name that is too long, a file where a directory should be
        raise UserError(f"cannot write to {path} ({error.strerror}); choose another file") from None
    if not stat.S_ISREG(mode):
        kind = SPECIAL_FILES.get(stat.S_IFMT(mode), "no regular file")
        raise UserError(f"cannot write to {path} (it is {kind}); choose another file")
    return target


@contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty directory inside ``directory``; at the end its files move up, so that each appears complete.

    After an exception nothing remains of it, nor of the directories that were created for it. Links are followed: they
    stay, and what they lead to is written.

    Raises
    ------
    UserError
        The directory cannot be created or written, one of its files is no regular file, or its disk is full.
    """
    target = Path(os.path.realpath(directory))
    created = [parent for parent in (target, *target.parents) if not os.path.lexists(parent)]
    try:
        with _temporary_directory(target, directory) as temporary:
            yield temporary
            files = sorted(temporary.iterdir())
            targets = [find_target(directory / file.name) for file in files]
            for file in files:
                _flush(file)  # before it has its name: a name without content is what a power failure could leave
            for file, file_target in zip(files, targets, strict=True):
                _move(file, file_target)
            for parent in sorted({target, *(file_target.parent for file_target in targets)}):
                _flush_names(parent)
            for parent in created:
                _flush_names(parent.parent)
            created = []
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(f"cannot write to {directory} ({error.strerror}); make room or choose another one") from None
    finally:
        for parent in created:
            if os.path.isdir(parent):  # noqa: PTH112 - Path.is_dir raises an error if the name is too long
                parent.rmdir()


def _move(source: Path, target: Path) -> None:
    """Rename a file or directory; copy a file first if a link has led to another file system."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise UserError(f"cannot write to {target} ({error.strerror}); choose another place") from None
        with atomic_file(target) as copy:
            shutil.copyfile(source, copy)


@contextmanager
def _temporary_directory(directory: Path, name: Path) -> Iterator[Path]:
    """Yield a new directory inside ``directory``, which people know under ``name``; remove it at the end."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory, prefix="."))
    except OSError as error:
        reason = _describe_refusal(error, directory)
        raise UserError(f"cannot write to {name} ({reason}); choose another directory") from None
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    """Bring the content of a file, or of all files in a directory, from the memory of the system to the disk."""
    if path.is_symlink():
        return
    if path.is_dir():
        for child in path.iterdir():
            _flush(child)
        _flush_names(path)
    else:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _flush_names(directory: Path) -> None:
    """Bring the names in a directory to the disk, if its file system can do that."""
    with suppress(OSError):
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end the file or directory there moves to ``path``.

    If ``path`` is a link, it stays, and the file that it leads to is replaced.

    Raises
    ------
    UserError
        `find_target` refuses ``path``, its directory cannot be created or written, or its disk is full.
    """
    target = find_target(path)
    with atomic_directory(target.parent) as folder:
        file = folder / path.name  # its end may say in which format to write
        yield file
        if path.name != target.name:
            file.rename(folder / target.name)


# --- read -----------------------------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """Return the text of ``path``, which is UTF-8.

    Raises
    ------
    UserError
        The file cannot be read.
    """
    try:
        return read_file(path).decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); restore it") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read {path} (not UTF-8); restore it") from None


def _describe_refusal(error: OSError, directory: Path) -> str | None:
    """Say why the directory cannot be written; for a permission, whose directory it is and who wants to write."""
    if not isinstance(error, PermissionError):
        return error.strerror
    existing = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    try:
        owner = existing.owner()
    except KeyError:  # an account without a name
        owner = f"uid {existing.stat().st_uid}"
    return f"{existing} belongs to {owner}, this is {user_name()}"
