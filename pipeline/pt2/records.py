"""The ZIP file of an archive, in the one form that `pack_records` writes."""

import io
import struct
import zipfile
from collections.abc import Mapping

MAX_ARCHIVE_SIZE = 512 * 2**20  # bytes; 100 million weights are 400 MB
MAX_RECORDS = 4096  # one for each weight, and nine
_END = struct.Struct("<4s4H2IH")  # the end of the central directory, PKWARE's APPNOTE.TXT, section 4.3.16
_HEADER_SIZE = 30  # bytes before the name of a record, section 4.3.7
_MAX_ENTRY_SIZE = 256  # bytes of the central directory for one record


def pack_records(records: Mapping[str, bytes]) -> bytes:
    """Return a ZIP file of the records: nothing compressed, no dates, one after the other without a gap."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # the same bytes on every system
            archive.writestr(info, content)
    return buffer.getvalue()


def unpack_records(content: bytes) -> dict[str, bytes]:
    """Return the records of a ZIP file that `pack_records` wrote.

    The records are written anew and compared with the file, so nothing else is in it: no bytes before, between or
    after them, no second directory, no name that another reader would find elsewhere.

    Raises
    ------
    ValueError
        It is not such a file.
    """
    records: dict[str, bytes] = {}
    names = set()
    position = 0
    for info in _list_entries(content):
        name = info.filename
        if name.casefold() in names:
            raise ValueError(f"record {name!r} is there twice")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"record {name!r} is compressed")
        if info.flag_bits & 1:
            raise ValueError(f"record {name!r} is encrypted")
        names.add(name.casefold())
        start = position + _HEADER_SIZE + len(name)
        position = start + info.file_size
        records[name] = content[start:position]
    _check_form(records, content)
    return records


def _list_entries(content: bytes) -> list[zipfile.ZipInfo]:
    """Return the entries of the central directory, which has to end the file."""
    if len(content) > MAX_ARCHIVE_SIZE:
        raise ValueError(f"it has {len(content):,} bytes, more than {MAX_ARCHIVE_SIZE:,}")
    if len(content) < _END.size:
        raise ValueError("it is not a ZIP file")
    signature, *_, count, size, offset, _ = _END.unpack(content[-_END.size :])
    if signature != b"PK\x05\x06" or offset + size + _END.size != len(content):
        raise ValueError("it is not a ZIP file that begins with its first record and ends with its directory")
    if count > MAX_RECORDS or size > count * _MAX_ENTRY_SIZE:
        raise ValueError(f"its directory is larger than one of {MAX_RECORDS:,} records")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.infolist()
    except Exception as error:  # zipfile raises many classes for what it does not understand
        raise ValueError(f"its directory is damaged: {error}") from None


def _check_form(records: Mapping[str, bytes], content: bytes) -> None:
    try:
        packed = pack_records(records)
    except Exception as error:  # such as a name that cannot be written
        raise ValueError(f"its records cannot be written anew: {error}") from None
    if packed != content:
        raise ValueError("it holds more than its records, or not in the form that is written here")
