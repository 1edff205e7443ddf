import functools
import gzip
import hashlib
import http.server
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_idx
from sklearn.datasets import load_digits
from torchvision.datasets import MNIST, FashionMNIST

from pipeline import UserError, data

Write = Callable[[], Path]


def test_digits_are_split_1257_180_360_without_a_download(tmp_path: Path) -> None:
    splits = data.load("digits", tmp_path / "absent")
    assert [len(split) for split in splits] == [1257, 180, 360]
    assert not (tmp_path / "absent").exists()


def test_images_are_uint8_28x28_and_labels_int64() -> None:
    for split in data.load("digits", Path()):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 1, 28, 28)
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)


def test_enlarged_digits_span_the_full_range_and_keep_the_scan() -> None:
    splits = data.load("digits", Path())
    images = torch.cat([split.images for split in splits])
    assert (int(images.min()), int(images.max())) == (0, 255)
    # the mean grey of all scans, 0 to 16, becomes the mean of all pixels, 0 to 255
    assert images.double().mean().item() == pytest.approx(load_digits().images.mean() * 255 / 16, rel=0.02)


def test_digits_have_the_digest_that_every_machine_gets() -> None:
    test = data.load("digits", Path()).test
    assert test.digest == "ac7fe0d7b46fa6be794371dcfb021875d760c320551b1e63e59d5f30c33d8baa"


def test_splits_share_no_image_and_are_stratified() -> None:
    splits = data.load("digits", Path())
    assert sum(len(split) for split in splits) == 1797
    for split in splits:
        counts = torch.bincount(split.labels, minlength=10) / len(split)
        assert counts.sub(0.1).abs().max() < 0.01
    rows = [{image.numpy().tobytes() for image in split.images} for split in splits]
    scans = len({scan.tobytes() for scan in load_digits().images})
    assert len(set.union(*rows)) == scans


def test_the_test_split_alone_equals_the_test_split_of_all() -> None:
    assert data.load_test("digits", Path()).digest == data.load("digits", Path()).test.digest


def test_digest_changes_with_a_pixel_and_with_a_label() -> None:
    dataset = data.load_test("digits", Path())
    digests = {dataset.digest}
    for tensor in ("images", "labels"):
        changed = dataset.take(torch.arange(len(dataset)))  # a copy
        getattr(changed, tensor).view(-1)[0] += 1
        digests.add(changed.digest)
    assert len(digests) == 3


def test_digest_does_not_depend_on_how_the_memory_lies() -> None:
    dataset = data.load_test("digits", Path())
    backwards = torch.arange(len(dataset) - 1, -1, -1)
    assert dataset.take(backwards).take(backwards).digest == dataset.digest


def test_mnist_is_read_from_torchvisions_files(small_mnist: Write) -> None:
    splits = data.load("mnist", small_mnist())
    assert [len(split) for split in splits] == [1000, 5000, 100]
    assert splits.test.labels.tolist() == [i % 10 for i in range(100)]
    expected = np.random.default_rng(0).integers(0, 256, (6_000, 28, 28))
    assert {image.numpy().tobytes() for image in splits.train.images} <= {
        image.astype(np.uint8).tobytes() for image in expected
    }


def test_nothing_is_written_into_the_data_directory(small_mnist: Write) -> None:
    data_dir = small_mnist()
    before = sorted(data_dir.rglob("*"))
    data.load("mnist", data_dir)
    assert sorted(data_dir.rglob("*")) == before


def test_files_that_torchvision_unpacked_are_read_too(small_mnist: Write) -> None:
    data_dir = small_mnist()
    digest = data.load_test("mnist", data_dir).digest
    for packed in (data_dir / "MNIST" / "raw").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert data.load_test("mnist", data_dir).digest == digest


def test_what_we_read_is_what_torchvision_reads(real_data: Path, tmp_path: Path) -> None:
    for name, source in (("mnist", MNIST), ("fashion-mnist", FashionMNIST)):
        shutil.copytree(real_data / source.__name__, tmp_path / source.__name__)
        theirs = source(tmp_path, train=False, download=True)  # unpacks; the files are there already
        ours = data.load_test(name, real_data)
        assert torch.equal(ours.images[:, 0], theirs.data)
        assert torch.equal(ours.labels, theirs.targets)


def test_real_mnist_is_split_55000_5000_10000(real_data: Path) -> None:
    for name in ("mnist", "fashion-mnist"):
        splits = data.load(name, real_data)
        assert [len(split) for split in splits] == [55_000, 5_000, 10_000]
        assert torch.bincount(splits.validation.labels).sub(500).abs().max() <= 65  # MNIST's classes differ in size


def test_fashion_mnist_names_its_classes(real_data: Path) -> None:
    classes = data.load_test("fashion-mnist", real_data).classes
    assert (classes[0], classes[9], len(classes)) == ("T-shirt/top", "Ankle boot", 10)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: content[:100] + b"?" + content[101:]]
)
def test_a_truncated_or_altered_file_is_named_with_both_md5s(
    small_mnist: Write, damage: Callable[[bytes], bytes]
) -> None:
    data_dir = small_mnist()
    file = data_dir / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    expected = hashlib.md5(file.read_bytes()).hexdigest()
    file.write_bytes(damage(file.read_bytes()))
    found = hashlib.md5(file.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=rf"{file} is damaged \(MD5 {found}, expected {expected}\); delete it"):
        data.load("mnist", data_dir)


def test_a_half_unpacked_file_is_named(small_mnist: Write) -> None:
    raw = small_mnist() / "MNIST" / "raw"
    (raw / "t10k-images-idx3-ubyte.gz").unlink()
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0" * 50)
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte is damaged"):
        data.load_test("mnist", raw.parent.parent)


def test_missing_files_that_cannot_be_downloaded_say_where_to_put_them_and_name_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nothing answers
    with pytest.raises(UserError, match=rf"put the four .gz files into {tmp_path}/new/MNIST/raw.*--dataset digits"):
        data.load("mnist", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_missing_files_are_downloaded_and_checked(
    small_mnist: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = small_mnist()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served / "MNIST" / "raw"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_port}/"])
        fetched = data.load_test("mnist", tmp_path / "new")
        monkeypatch.setattr(MNIST, "resources", [(name, "0" * 32) for name, _ in MNIST.resources])
        with pytest.raises(UserError, match="could not be downloaded"):
            data.load_test("mnist", tmp_path / "wrong")
        server.shutdown()
    assert fetched.source == "http://127.0.0.1:9/"
    assert sorted(path.name for path in (tmp_path / "new" / "MNIST" / "raw").iterdir()) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]
    assert not (tmp_path / "wrong").exists()


def test_an_unreadable_file_is_named(small_mnist: Write) -> None:
    raw = small_mnist() / "MNIST" / "raw"
    (raw / "t10k-images-idx3-ubyte.gz").unlink()
    (raw / "t10k-images-idx3-ubyte.gz").mkdir()  # fails for root too, unlike a permission
    with pytest.raises(UserError, match=r"cannot read .*t10k-images-idx3-ubyte\.gz"):
        data.load_test("mnist", raw.parent.parent)


def test_an_unknown_data_set_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'cifar', and there is no cifar.*; choose one of mnist, fashion-mnist, digits"
    ):
        data.load("cifar", tmp_path)


def test_write_idx_of_the_tests_matches_the_real_format(real_data: Path, tmp_path: Path) -> None:
    labels = data.load_test("mnist", real_data).labels.numpy()
    write_idx(tmp_path / "labels.gz", labels)
    real = real_data / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    assert gzip.decompress((tmp_path / "labels.gz").read_bytes()) == gzip.decompress(real.read_bytes())
