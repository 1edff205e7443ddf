import functools
import gzip
import hashlib
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import KMNIST, MNIST

from pipeline.data import known_files
from pipeline.data.idx import write_idx
from pipeline.data.known_files import KNOWN_FILES, KnownFiles
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


# --- files that are packed in another way ---------------------------------------------------------------------------


@pytest.fixture
def known(raw: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the digests of the content be known, too; return the folder with the four files."""
    digests = {}
    for packed in raw.glob("*.gz"):
        digests[packed.name.removesuffix(".gz")] = hashlib.sha256(gzip.decompress(packed.read_bytes())).hexdigest()
    monkeypatch.setitem(KNOWN_FILES, "mnist", KnownFiles({"train": 6_000, "test": 100}, digests))
    return raw


def unpack(raw: Path) -> None:
    """Replace the four packed files by the unpacked ones."""
    for packed in list(raw.glob("*.gz")):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()


def test_unpacked_files_are_read_too(known: Path) -> None:
    digest = read_test(known)
    unpack(known)
    assert read_test(known) == digest


def test_file_packed_again_is_right(known: Path) -> None:
    digest = read_test(known)
    for packed in known.glob("*.gz"):
        content = gzip.decompress(packed.read_bytes())
        packed.write_bytes(gzip.compress(content, compresslevel=1, mtime=1))
    assert read_test(known) == digest


@pytest.mark.parametrize(
    ("file", "other", "difference"),
    [
        (IMAGES, LABELS, "it holds 100 labels, not images"),
        (LABELS, IMAGES, "it holds 100 images, not labels"),
        (LABELS, "train-labels-idx1-ubyte", "it holds 6,000 labels, not 100"),
        (IMAGES, "train-images-idx3-ubyte", "it holds 6,000 images, not 100"),
    ],
)
def test_exchanged_files_are_named(known: Path, file: str, other: str, difference: str) -> None:
    unpack(known)
    (known / file).write_bytes((known / other).read_bytes())
    with pytest.raises(UserError) as refused:
        read_test(known)
    assert str(refused.value) == f"{known / file} is not that of mnist: {difference}; delete it and run again"


def test_exchanged_packed_files_are_named(known: Path) -> None:
    (known / f"{LABELS}.gz").write_bytes((known / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(UserError, match=rf"{LABELS}\.gz is not that of mnist: it holds 6,000 labels, not 100; delete"):
        read_test(known)


def test_labels_of_other_images_are_refused(known: Path) -> None:
    unpack(known)
    content = (known / LABELS).read_bytes()
    (known / LABELS).write_bytes(content[:8] + content[8:][::-1])
    expected = hashlib.sha256(content).hexdigest()
    with pytest.raises(UserError, match=rf"{LABELS} is not that of mnist: its content has the SHA-256 .* {expected}"):
        read_test(known)


@pytest.mark.parametrize(
    ("array", "difference"),
    [
        (np.zeros((100, 32, 32), np.uint8), r"it holds an array of shape \(100, 32, 32\)"),
        (np.zeros((100, 28, 28), np.int16), "it holds int16 values, not bytes"),
    ],
)
def test_images_of_another_kind_are_refused(known: Path, array: np.ndarray, difference: str) -> None:
    unpack(known)
    write_idx(known / "other.gz", array)
    (known / IMAGES).write_bytes(gzip.decompress((known / "other.gz").read_bytes()))
    with pytest.raises(UserError, match=f"{IMAGES} is not that of mnist: {difference}"):
        read_test(known)


def test_another_sets_file_is_named_without_a_digest(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(known)
    monkeypatch.setattr(known_files, "TEST_SIZE", 100)
    raw = known.parent.parent / "KMNIST" / "raw"
    shutil.copytree(known, raw)
    monkeypatch.setattr(KMNIST, "mirrors", [NO_SERVER])
    message = f"{raw / IMAGES} is not that of kmnist: it is {IMAGES} of mnist; delete it and run again"
    with pytest.raises(UserError) as refused:
        read_torchvision_dataset("kmnist", "test", raw.parent.parent)
    assert str(refused.value) == message


def test_packed_file_without_a_digest_needs_its_md5(known: Path) -> None:
    raw = known.parent.parent / "KMNIST" / "raw"
    shutil.copytree(known, raw)
    with pytest.raises(UserError, match=r"is damaged \(MD5 .*, expected 5c965bf0a639b31b8f53240b1b52f4d7\)"):
        read_torchvision_dataset("kmnist", "test", raw.parent.parent)


# --- downloads ------------------------------------------------------------------------------------------------------


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
