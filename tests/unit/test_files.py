import errno
import os
import re
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.context import user_name
from pipeline.errors import UserError
from pipeline.files import atomic_directory, atomic_file, read_text


def list_files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_appear_complete_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "reports"
    with atomic_directory(target) as folder:
        (folder / "a.txt").write_text("complete")
        assert not (target / "a.txt").exists()
    assert list_files(target) == {"a.txt": "complete"}


def fail_while_writing(folder: Path) -> None:
    with atomic_directory(folder) as temporary:
        (temporary / "a.txt").write_text("half")
        raise RuntimeError


def test_exception_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError):
        fail_while_writing(tmp_path)
    assert list_files(tmp_path) == {"a.txt": "old"}


def test_exception_removes_directories_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_while_writing(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write to .*file/reports"),
        atomic_directory(tmp_path / "file" / "reports"),
    ):
        pass


def test_directory_of_another_account_is_named_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:  # root, who may run the tests, may write everywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    me = re.escape(user_name())
    with (
        pytest.raises(UserError, match=rf"cannot write to .*/reports \(.*/reports belongs to {me}, this is {me}\)"),
        atomic_directory(tmp_path / "reports"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(UserError, match=r"cannot write to .* \(No space left on device\); make room"):
        raise_inside(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert list_files(tmp_path) == {"a.txt": "old"}


def raise_inside(folder: Path, error: OSError) -> None:
    with atomic_directory(folder) as temporary:
        (temporary / "a.txt").write_text("half")
        raise error


def test_file_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []

    def record_flush(number: int) -> None:
        name = Path(f"/dev/fd/{number}").resolve().name
        flushed.append((name, (tmp_path / "model").exists()))

    monkeypatch.setattr("os.fsync", record_flush)
    with atomic_file(tmp_path / "model") as folder:
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "weights").write_text("0")
    assert flushed == [("weights", False), ("data", False), ("model", False), (tmp_path.name, True)]


def test_file_system_that_flushes_no_directory_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def refuse_directory(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(number)

    monkeypatch.setattr("os.fsync", refuse_directory)
    with atomic_file(tmp_path / "a.txt") as file:
        file.write_text("complete")
    assert list_files(tmp_path) == {"a.txt": "complete"}


def test_file_moves_to_its_path(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "table.csv") as file:
        file.write_text("a,b\n")
    assert list_files(tmp_path) == {"table.csv": "a,b\n"}


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*gates.toml \(No such file"):
        read_text(tmp_path / "gates.toml")


def test_file_in_other_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_text(tmp_path / "gates.toml")
