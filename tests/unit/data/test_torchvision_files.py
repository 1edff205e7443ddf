import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torchvision.datasets import MNIST

from pipeline.data.torchvision_files import read_torchvision_dataset
from pipeline.errors import UserError

IMAGES = "t10k-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"
NO_SERVER = "http://127.0.0.1:9/"  # the discard port, where no server answers


@pytest.fixture
def raw(small_mnist: Callable[[], Path]) -> Path:
    """Return the folder with MNIST's four files."""
    return small_mnist() / "MNIST" / "raw"


@pytest.fixture
def server(raw: Path) -> Iterator[str]:
    """Serve MNIST's files, and yield the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(raw))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def read_test(raw: Path) -> str:
    """Return the digest of the test split in the folder."""
    return read_torchvision_dataset("mnist", "test", raw.parent.parent).digest


def test_reading_writes_nothing(raw: Path) -> None:
    before = sorted(raw.rglob("*"))
    read_test(raw)
    assert sorted(raw.rglob("*")) == before


def test_mnist_classes_are_digits(raw: Path) -> None:
    dataset = read_torchvision_dataset("mnist", "test", raw.parent.parent)
    assert dataset.classes == tuple("0123456789")
    assert dataset.source == MNIST.mirrors[0]


def test_unpacked_files_are_read_too(raw: Path) -> None:
    digest = read_test(raw)
    for packed in raw.glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert read_test(raw) == digest


def truncate(content: bytes) -> bytes:
    return content[:-100]


def alter(content: bytes) -> bytes:
    return content[:100] + b"?" + content[101:]


@pytest.mark.parametrize("damage", [truncate, alter])
def test_damaged_file_is_named_with_both_md5s(raw: Path, damage: Callable[[bytes], bytes]) -> None:
    file = raw / f"{IMAGES}.gz"
    content = file.read_bytes()
    expected = hashlib.md5(content).hexdigest()
    actual = hashlib.md5(damage(content)).hexdigest()
    file.write_bytes(damage(content))
    with pytest.raises(UserError, match=rf"{file} is damaged \(MD5 {actual}, expected {expected}\); delete it"):
        read_test(raw)


def test_incompletely_unpacked_file_is_named(raw: Path) -> None:
    (raw / f"{IMAGES}.gz").unlink()
    (raw / IMAGES).write_bytes(b"\0\0\x08\x03" + bytes(50))
    with pytest.raises(UserError, match=f"{IMAGES} is damaged"):
        read_test(raw)


def test_unreadable_file_is_named(raw: Path) -> None:
    file = raw / f"{IMAGES}.gz"
    file.unlink()
    file.mkdir()  # unlike a missing permission, this fails for root too
    with pytest.raises(UserError, match=rf"cannot read {file} \(Is a directory\); check --data-dir"):
        read_test(raw)


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [NO_SERVER])
    raw = tmp_path / "new" / "MNIST" / "raw"
    with pytest.raises(UserError, match=rf"put the four .gz files into {raw}.*--dataset digits"):
        read_test(raw)
    assert not (tmp_path / "new").exists()


def test_second_mirror_helps(raw: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [NO_SERVER, server])
    target = tmp_path / "new" / "MNIST" / "raw"
    assert read_test(target) == read_test(raw)
    names = sorted(file.name for file in target.iterdir())
    assert names == [f"{IMAGES}.gz", f"{LABELS}.gz"]


def test_download_with_wrong_md5_is_refused(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [(name, "0" * 32) for name, _ in MNIST.resources]
    monkeypatch.setattr(MNIST, "mirrors", [server])
    monkeypatch.setattr(MNIST, "resources", wrong)
    with pytest.raises(UserError, match="could not be downloaded"):
        read_test(tmp_path / "new" / "MNIST" / "raw")
    assert not (tmp_path / "new").exists()
