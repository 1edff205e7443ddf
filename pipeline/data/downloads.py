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
    with _socket_timeout(DOWNLOAD_TIMEOUT):
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
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit how long a connection waits for an answer; torchvision sets no limit."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
