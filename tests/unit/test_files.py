import errno
import os
import re
import resource
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.context import user_name
from pipeline.errors import UserError
from pipeline.files import atomic_directory, atomic_file, find_target, read_text


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


# --- links and special files ----------------------------------------------------------------------------------------


def write(path: Path, text: str = "new") -> None:
    with atomic_file(path) as file:
        file.write_text(text)


def test_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    target = tmp_path / "real" / "table.csv"
    target.parent.mkdir()
    target.write_text("old")
    for link in (tmp_path / "absolute.csv", tmp_path / "relative.csv"):
        link.symlink_to(target if link.name == "absolute.csv" else Path("real", "table.csv"))
        write(link, link.name)
        assert link.is_symlink()
        assert list_files(target.parent) == {"table.csv": link.name}


def test_target_that_is_missing_is_created(tmp_path: Path) -> None:
    link = tmp_path / "table.csv"
    link.symlink_to(tmp_path / "new" / "table.csv")
    write(link)
    assert link.is_symlink()
    assert list_files(tmp_path / "new") == {"table.csv": "new"}


def test_directory_may_be_a_link(tmp_path: Path) -> None:
    link = tmp_path / "reports"
    link.symlink_to(tmp_path / "elsewhere" / "reports")
    for name in ("a.txt", "b.txt"):  # the first time the directory is missing
        write(link / name)
    assert link.is_symlink()
    assert list_files(tmp_path / "elsewhere" / "reports") == {"a.txt": "new", "b.txt": "new"}


def test_file_of_a_directory_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "a.txt").symlink_to("../real.txt")
    with atomic_directory(tmp_path / "reports") as folder:
        (folder / "a.txt").write_text("new")
    assert (tmp_path / "reports" / "a.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """Return a directory of another file system, or skip."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system in /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def test_link_may_lead_to_another_file_system(tmp_path: Path, other_file_system: Path) -> None:
    (tmp_path / "a.txt").symlink_to(other_file_system / "a.txt")
    with atomic_directory(tmp_path) as folder:
        (folder / "a.txt").write_text("new")
    assert list_files(other_file_system) == {"a.txt": "new"}


@pytest.fixture
def special_files(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Return what is no regular file: the device is a terminal of this test's own."""
    files = {name: tmp_path / name for name in ("a directory", "a named pipe", "a socket", "a device")}
    files["a directory"].mkdir()
    os.mkfifo(files["a named pipe"])
    master, slave = os.openpty()
    files["a device"].symlink_to(os.ttyname(slave))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(files["a socket"]))  # an address has at most 108 bytes
        yield files
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("kind", ["a directory", "a named pipe", "a socket", "a device"])
def test_no_special_file_is_replaced(kind: str, special_files: dict[str, Path], tmp_path: Path) -> None:
    before = special_files[kind].lstat().st_mode
    link = tmp_path / "link"
    link.symlink_to(special_files[kind])
    for path in (special_files[kind], link):
        with pytest.raises(UserError, match=rf"cannot write to .* \(it is {kind}\); choose another file"):
            write(path)
    assert special_files[kind].lstat().st_mode == before
    assert len(list(tmp_path.iterdir())) == len(special_files) + 1


def test_special_file_stops_all_files_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    os.mkfifo(tmp_path / "b.txt")
    with pytest.raises(UserError, match="it is a named pipe"):
        write_two_files(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "old"


def write_two_files(directory: Path) -> None:
    with atomic_directory(directory) as folder:
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("new")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loop/a.txt", "Too many levels of symbolic links"),
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("file/a.txt", "Not a directory"),
    ],
    ids=["loop above", "loop", "long name", "file above"],
)
def test_impossible_path_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match=rf"cannot write to .* \({reason}\); choose another file"):
        find_target(tmp_path / name)
    with pytest.raises(UserError, match="cannot write to"):
        write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_too_long_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"\(File too large\); make room"):
            write(tmp_path / "a.txt", "x" * 2_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list_files(tmp_path) == {"a.txt": "old"}


def test_files_get_the_mode_of_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write(tmp_path / "new" / "a.txt")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new" / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o750


# --- read -----------------------------------------------------------------------------------------------------------


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*gates.toml \(No such file"):
        read_text(tmp_path / "gates.toml")


def test_file_in_other_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_text(tmp_path / "gates.toml")
