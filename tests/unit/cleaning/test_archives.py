"""Archives that are unpacked into a temporary directory, and those that are refused."""

import gzip
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cleaning.archives import open_source
from pipeline.errors import UserError

FILES = {"cat/1.png": b"one", "dog/2.png": b"two"}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which archives are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write_zip(file: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name) if name.endswith("/") else name, content)
    return file


def write_tar(file: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def write_tar_member(file: Path, kind: bytes, target: str = "") -> Path:
    """Write an archive with one member of a kind."""
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.type = kind
        member.linkname = target
        archive.addfile(member)
    return file


def read_tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def read_error(file: Path) -> str:
    with pytest.raises(UserError) as refused, open_source(file):
        pass
    text = str(refused.value)
    assert text.startswith((f"{file} ", f"cannot unpack {file} "))
    assert "\n" not in text
    return text


WRITERS = pytest.mark.parametrize(
    ("write", "name"),
    [(write_zip, "a.zip"), (write_zip, "A.ZIP"), (write_tar, "a.tar"), (write_tar, "a.tar.gz"), (write_tar, "a.tgz")],
)
Write = Callable[[Path, dict[str, bytes]], Path]


@WRITERS
def test_archive_is_unpacked_and_removed(write: Write, name: str, tmp_path: Path, temporary: Path) -> None:
    with open_source(write(tmp_path / name, FILES)) as folder:
        assert folder.is_relative_to(temporary)
        assert read_tree(folder) == FILES
    assert list(temporary.iterdir()) == []


@WRITERS
def test_one_wrapper_is_entered(write: Write, name: str, tmp_path: Path) -> None:
    wrapped = {f"photos/{file}": content for file, content in FILES.items()}
    wrapped |= {"__MACOSX/photos/._1.png": b"?", "photos/.DS_Store": b"?", "._photos": b"?"}
    with open_source(write(tmp_path / name, wrapped)) as folder:
        assert folder.name == "photos"
        assert read_tree(folder) == FILES


def test_other_paths_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    for path in (tmp_path, tmp_path / "photos.zip", tmp_path / "missing.zip", tmp_path / "a.npz"):
        with open_source(path) as source:
            assert source == path


def test_folder_is_removed_after_an_error_that_names_the_archive(tmp_path: Path, temporary: Path) -> None:
    file = write_zip(tmp_path / "a.zip", FILES)
    with pytest.raises(UserError) as refused, open_source(file) as folder:
        raise UserError(f"no images in {folder}/cat")
    assert str(refused.value) == f"no images in {file}/cat"
    with pytest.raises(KeyboardInterrupt), open_source(file):
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


# --- what is refused ------------------------------------------------------------------------------------------------


@WRITERS
@pytest.mark.parametrize("member", ["../1.png", "a/../../1.png", "/1.png", "..\\1.png", "C:\\1.png"])
def test_name_that_leads_out_is_refused(write: Write, name: str, member: str, tmp_path: Path, temporary: Path) -> None:
    assert "leads out of the archive" in read_error(write(tmp_path / name, {"0.png": b"", member: b"!"}))
    assert not list(tmp_path.rglob("1.png"))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is no regular file"),
        (tarfile.BLKTYPE, "is no regular file"),
        (tarfile.FIFOTYPE, "is no regular file"),
    ],
)
def test_special_member_of_tar_is_refused(kind: bytes, message: str, tmp_path: Path) -> None:
    assert f"'cat/1.png' {message}" in read_error(write_tar_member(tmp_path / "a.tar", kind, "/etc/passwd"))


def test_link_in_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("cat/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "'cat/1.png' is a link" in read_error(tmp_path / "a.zip")


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"1.png": b"one"})
    content = file.read_bytes()
    directory = content.index(b"PK\1\2")
    file.write_bytes(content[: directory + 8] + b"\1" + content[directory + 9 :])
    assert "is encrypted; unpack it by hand" in read_error(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", "one")
        archive.writestr("1.png", "two")
    assert "'1.png' is there twice" in read_error(tmp_path / "a.zip")


@WRITERS
def test_too_many_files_are_refused(write: Write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cleaning.archives.MAX_MEMBERS", 1)
    assert "has more than 1 files" in read_error(write(tmp_path / name, FILES))


@WRITERS
def test_full_disk_is_named(write: Write, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000_005)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "6 bytes or more, and 5 can be used" in read_error(write(tmp_path / name, FILES))


@pytest.mark.parametrize(("write", "name"), [(write_zip, "a.zip"), (write_tar, "a.tar.gz")])
def test_bomb_is_named(write: Write, name: str, tmp_path: Path, temporary: Path) -> None:
    assert "is a zip bomb: its " in read_error(write(tmp_path / name, {"1.png": bytes(110_000_000)}))
    assert list(temporary.iterdir()) == []


def test_huge_header_of_tar_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = 2**34
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(2**20)))
    assert "is damaged, or no archive" in read_error(tmp_path / "a.tar.gz")


@WRITERS
@pytest.mark.parametrize("size", [0, 3, -30])
def test_damaged_archive_is_refused(write: Write, name: str, size: int, tmp_path: Path) -> None:
    noise = {f"{index}.png": bytes(range(256)) * 50 for index in range(3)}
    file = write(tmp_path / name, noise)
    if file.suffix == ".tar" and size == -30:
        size = -12_000  # of the zeros at its end
    file.write_bytes(file.read_bytes()[:size])
    read_error(file)
