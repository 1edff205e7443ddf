"""Open tables that are text, and look at their first rows."""

import csv
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.regular_files import ListedFile, open_real_file

TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz")
SEPARATORS = (",", ";", "\t")
SNIFFED_SIZE = 2**22  # bytes of a table that are looked at first
SNIFFED_ROWS = 200


def is_table(path: Path) -> bool:
    """Return whether a file is a table by its name."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


@contextmanager
def open_table(listed: ListedFile) -> Iterator[BinaryIO]:
    """Open a table to read bytes, unpacked."""
    with open_real_file(listed.real_path) as file:
        if listed.path.suffix.lower() != ".gz":
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast("BinaryIO", unpacked)


def read_first_rows(listed: ListedFile) -> tuple[str, list[list[str]]]:
    """Return the separator of a table and its first rows, as text; no rows if it is no text."""
    try:
        with open_table(listed) as file:
            content = file.read(SNIFFED_SIZE)
    except (OSError, EOFError, ValueError):  # reading all of it says why
        return SEPARATORS[0], []
    lines = content.decode("utf-8-sig", "replace").splitlines()
    if len(content) == SNIFFED_SIZE:
        lines.pop()  # it may go on
    lines = [line for line in lines[:SNIFFED_ROWS] if line.strip()]
    if not lines or "\0" in lines[0]:
        return SEPARATORS[0], []
    separator = max(SEPARATORS, key=lines[0].count)
    try:
        return separator, list(csv.reader(lines, delimiter=separator))
    except csv.Error:
        return separator, []
