"""Files and directories that appear complete or not at all, also if the power fails."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.context import user_name
from pipeline.errors import UserError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty directory inside ``directory``; at the end its files move up, so that each appears complete.

    After an exception nothing remains of it, nor of the directories that were created for it.

    Raises
    ------
    UserError
        The directory cannot be created or written, or its disk is full.
    """
    created = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    try:
        with _temporary_directory(directory) as temporary:
            yield temporary
            files = sorted(temporary.iterdir())
            for file in files:
                _flush(file)  # before it has its name: a name without content is what a power failure could leave
            for file in files:
                file.replace(directory / file.name)
            _flush_names(directory)
            for parent in created:
                _flush_names(parent.parent)
            created = []
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise UserError(f"cannot write to {directory} ({error.strerror}); make room or choose another one") from None
    finally:
        for parent in created:
            if parent.exists():
                parent.rmdir()


@contextmanager
def _temporary_directory(directory: Path) -> Iterator[Path]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory, prefix="."))
    except OSError as error:
        reason = _describe_refusal(error, directory)
        raise UserError(f"cannot write to {directory} ({reason}); choose another directory") from None
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

    Raises
    ------
    UserError
        The directory of ``path`` cannot be created or written, or its disk is full.
    """
    with atomic_directory(path.parent) as folder:
        yield folder / path.name


def read_text(path: Path) -> str:
    """Return the text of ``path``, which is UTF-8.

    Raises
    ------
    UserError
        The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
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
