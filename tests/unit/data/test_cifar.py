"""CIFAR-10, in an archive of its form."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data import cifar
from pipeline.data.cifar import ARCHIVE, CLASSES, Archive, read_cifar10_dataset
from pipeline.data.datasets import load_splits
from pipeline.data.forms import PhotoForm
from pipeline.errors import UserError

RECORDS = 20
TRAIN_FILES = [f"data_batch_{number}.bin" for number in range(1, 6)]


def build_batches() -> dict[str, np.ndarray]:
    """Return the records of each file, uint8 [20, 3073]; labels count up, pixels are random."""
    random = np.random.default_rng(0)
    batches = {}
    for name in (*TRAIN_FILES, "test_batch.bin"):
        records = random.integers(0, 256, (RECORDS, 3073), np.uint8)
        records[:, 0] = np.arange(RECORDS) % 10
        batches[name] = records
    return batches


BATCHES = build_batches()
KNOWN = replace(
    ARCHIVE,
    records=RECORDS,
    sha256={name: hashlib.sha256(records.tobytes()).hexdigest() for name, records in BATCHES.items()},
)


def write_archive(data_dir: Path, contents: Mapping[str, bytes]) -> Path:
    """Write an archive in the layout of the official one."""
    file = data_dir / "CIFAR10" / "cifar-10-binary.tar.gz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def all_contents() -> dict[str, bytes]:
    """Return the files of the archive, in an order that is not that of their names."""
    contents = {"batches.meta.txt": "\n".join(CLASSES).encode()}
    for name in ("data_batch_4.bin", "test_batch.bin", *TRAIN_FILES):
        contents[name] = BATCHES[name].tobytes()
    return contents


def test_pixels_are_three_planes(tmp_path: Path) -> None:
    write_archive(tmp_path, all_contents())
    test = read_cifar10_dataset("test", tmp_path, KNOWN)
    assert test.images.shape == (RECORDS, 3, 32, 32)
    assert test.images.dtype == torch.uint8
    record = BATCHES["test_batch.bin"][7]
    assert test.images[7, 0, 0, :3].tolist() == record[1:4].tolist()  # red, the first row
    assert test.images[7, 1, 0, 0] == record[1 + 1024]  # green
    assert test.images[7, 2, 31, 31] == record[3072]  # blue, the last pixel
    assert test.labels.tolist() == [*range(10), *range(10)]


def test_training_images_are_in_the_order_of_their_files(tmp_path: Path) -> None:
    write_archive(tmp_path, all_contents())
    train = read_cifar10_dataset("train", tmp_path, KNOWN)
    expected = np.concatenate([BATCHES[name] for name in TRAIN_FILES])
    assert np.array_equal(train.images.flatten(1).numpy(), expected[:, 1:])
    assert train.labels.tolist() == expected[:, 0].tolist()


def test_images_are_photos_of_named_classes(tmp_path: Path) -> None:
    write_archive(tmp_path, all_contents())
    train = read_cifar10_dataset("train", tmp_path, KNOWN)
    assert train.form == PhotoForm((3, 32, 32))
    assert train.classes[3] == "cat"
    assert train.source == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


def test_archive_packed_again_is_right(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", all_contents())
    write_archive(tmp_path / "b", dict(reversed(all_contents().items())))
    digests = [read_cifar10_dataset("train", tmp_path / name, KNOWN).digest for name in "ab"]
    assert digests[0] == digests[1]


def test_data_set_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path, all_contents())
    monkeypatch.setattr(cifar.read_cifar10_dataset, "__defaults__", (KNOWN,))
    monkeypatch.setattr("pipeline.data.datasets.MAX_VALIDATION_SIZE", 10)
    splits = load_splits("cifar10", tmp_path)
    assert [len(split) for split in splits] == [90, 10, 20]


def cut(contents: dict[str, bytes]) -> None:
    contents["test_batch.bin"] = contents["test_batch.bin"][:-1]


def alter(contents: dict[str, bytes]) -> None:
    contents["test_batch.bin"] = b"\x01" + contents["test_batch.bin"][1:]


def exchange(contents: dict[str, bytes]) -> None:
    contents["test_batch.bin"] = contents["data_batch_1.bin"]


def remove(contents: dict[str, bytes]) -> None:
    del contents["test_batch.bin"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (cut, "test_batch.bin is not a file of 61,460 bytes"),
        (alter, f"test_batch.bin has the SHA-256 .*, expected {KNOWN.sha256['test_batch.bin']}"),
        (exchange, f"test_batch.bin has the SHA-256 {KNOWN.sha256['data_batch_1.bin']}, expected"),
        (remove, "it has no test_batch.bin"),
    ],
)
def test_other_content_is_refused(change: Callable[[dict[str, bytes]], None], reason: str, tmp_path: Path) -> None:
    contents = all_contents()
    change(contents)
    file = write_archive(tmp_path, contents)
    with pytest.raises(UserError, match=rf"{file} is damaged \({reason}.*\); delete it and run again"):
        read_cifar10_dataset("test", tmp_path, KNOWN)


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_incomplete_archive_is_named(keep: int, tmp_path: Path) -> None:
    file = write_archive(tmp_path, all_contents())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=f"{file} is damaged"):
        read_cifar10_dataset("train", tmp_path, KNOWN)


def test_link_in_the_archive_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(BATCHES["test_batch.bin"].tobytes())
    file = write_archive(tmp_path, {})
    with tarfile.open(file, "w:gz") as archive:
        member = tarfile.TarInfo("test_batch.bin")
        member.type = tarfile.SYMTYPE
        member.linkname = str(tmp_path / "secret.bin")
        archive.addfile(member)
    with pytest.raises(UserError, match=r"test_batch.bin is not a file of 61,460 bytes"):
        read_cifar10_dataset("test", tmp_path, KNOWN)


# --- downloads ------------------------------------------------------------------------------------------------------


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """Start a server of the files in a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever).start()
    return server


@pytest.mark.parametrize("is_right", [True, False])
def test_download_needs_the_published_md5(is_right: bool, tmp_path: Path) -> None:
    file = write_archive(tmp_path / "server", all_contents())
    md5 = hashlib.md5(file.read_bytes()).hexdigest() if is_right else "0" * 32
    with serve(file.parent) as server:
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        known: Archive = replace(KNOWN, url=url, md5=md5)
        if is_right:
            assert len(read_cifar10_dataset("test", tmp_path / "data", known)) == RECORDS
            assert (tmp_path / "data" / "CIFAR10" / file.name).read_bytes() == file.read_bytes()
        else:
            with pytest.raises(
                UserError, match=f"put {file.name} from {url} into {tmp_path}/data/CIFAR10, or run with"
            ):
                read_cifar10_dataset("test", tmp_path / "data", known)
            assert not (tmp_path / "data").exists()
        server.shutdown()
