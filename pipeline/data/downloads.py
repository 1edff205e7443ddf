"""Download a file that a data set needs, and compare it with the MD5 that is published for it."""

import hashlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import UserError
from pipeline.files import atomic_directory

DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer
BLOCK_SIZE = 2**20  # bytes that are read at once


def download_file(file: Path, md5: str, urls: Sequence[str], advice: str) -> None:
    """Download a file from the first address that has it; it appears complete or not at all.

    Raises
    ------
    UserError
        No address has a file with this MD5. ``advice`` says what to do then.
    """
    from torchvision.datasets.utils import download_url  # slow to import

    reason = ""
    with limit_waiting():
        for url in urls:
            try:
                with atomic_directory(file.parent) as folder:
                    download_url(url, folder, file.name, md5)
                return
            except (RuntimeError, OSError) as error:  # a wrong MD5 is torchvision's RuntimeError
                reason = str(error)
    raise UserError(
        f"{file} is missing and could not be downloaded ({reason}); {advice}, "
        "or run with --dataset digits, which needs no download"
    )


def compute_md5(file: BinaryIO) -> str:
    """Return the MD5 of an open file, which is read from its beginning the next time."""
    digest = hashlib.md5(usedforsecurity=False)
    while block := file.read(BLOCK_SIZE):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


@contextmanager
def limit_waiting() -> Iterator[None]:
    """Let a connection wait for an answer for `DOWNLOAD_TIMEOUT` at most; PyTorch and torchvision set no limit."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


@contextmanager
def explain_file_errors(file: Path) -> Iterator[None]:
    """Turn an error of reading a file of a data set into a UserError that names it: an OSError, or a ValueError."""
    try:
        yield
    except OSError as error:
        path = error.filename or file
        raise UserError(f"cannot read {path} ({error.strerror}); check --data-dir or its permissions") from None
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); delete it and run again") from None
