"""Sources that somebody else has made: links that lead away, special files, small files that unpack to much."""

import gzip
import os
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import predict
import pytorch_demo
from pipeline.cleaning import label_issues
from pipeline.data.images import MAX_FILE_SIZE, MAX_MEMORY
from support.bombs import (
    frames_bomb,
    gzip_zeros,
    idx_header,
    measure_peak,
    npy_header,
    picture_bomb,
    text_bomb,
    write_idx_source,
    write_npz,
)
from support.damaged_datasets import save_prepared
from support.files import png_bomb
from support.own_images import ImageFolder, call_prepare, count_images, list_reported, read_report, read_tree
from support.pipelines import PipelineRun
from support.prepared import make_dataset, save_dataset, save_idx_dataset
from support.scripts import call_main

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----"
PIXELS = make_dataset(26, 2).images[:, 0].numpy()


@pytest.fixture(autouse=True)
def no_label_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not check the labels: that trains three models."""
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of 26 images in two classes."""
    images = ImageFolder(tmp_path / "photos")
    for index, pixels in enumerate(PIXELS):
        images.add(f"{'ab'[index % 2]}/{index:02d}.png", pixels)
    return images.folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a private key outside the source."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id_ed25519").write_bytes(SECRET)
    return tmp_path / "home" / "id_ed25519"


def find_reasons(photos: Path) -> dict[str, str]:
    """Prepare the photos, all of which have to be there; return what was refused, and why."""
    output = photos.parent / "cleaned"
    result = call_prepare(photos, output)
    assert result.code == 0, result.stderr
    assert sum(count_images(output).values()) == len(PIXELS)
    assert not any(SECRET in content for content in read_tree(output).values())
    files = read_report(output)["source"]["files_refused"]
    lines = [line for line in result.stderr.splitlines() if line.startswith("not read: ")]
    assert len(lines) == bool(files)
    return {file["file"]: file["reason"] for file in files}


# --- links ----------------------------------------------------------------------------------------------------------


def test_link_to_a_private_file_is_not_read(photos: Path, secret: Path) -> None:
    (photos / "a" / "key.png").symlink_to(secret)
    (photos / "home").symlink_to(secret.parent)
    reason = "a link that leaves the source"
    assert find_reasons(photos) == {"a/key.png": reason, "home": reason}


def test_links_that_point_up_end(photos: Path) -> None:
    (photos / "a" / "up").symlink_to("..")
    (photos / "b" / "up").symlink_to("../a")
    reason = "a link to a folder that is read under its own name"
    assert find_reasons(photos) == {"a/up": reason, "b/up": reason}


def test_links_in_a_circle_are_listed(photos: Path) -> None:
    (photos / "a" / "x.png").symlink_to("y.png")
    (photos / "a" / "y.png").symlink_to("x.png")
    (photos / "a" / "z.png").symlink_to("nowhere")
    itself = "a link that leads to itself"
    expected = {"a/x.png": itself, "a/y.png": itself, "a/z.png": "a link that leads nowhere"}
    assert find_reasons(photos) == expected


def test_link_below_the_source_is_read(photos: Path) -> None:
    (photos / "a" / "copy.png").symlink_to("00.png")
    assert find_reasons(photos) == {}
    assert list_reported(photos.parent / "cleaned", "duplicate") == ["a/copy.png"]


def test_idx_and_numpy_links_are_not_read(tmp_path: Path, secret: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "X.npy").symlink_to(secret)
    (source / "train-images-idx3-ubyte").symlink_to(secret)
    assert "there are no images in" in call_prepare(source, tmp_path / "cleaned").error


@pytest.mark.parametrize(
    "name", ["classes.json", "cleaning_report.json", "form.json", "test_images.npy", "train_labels.npy"]
)
def test_prepared_data_set_may_not_lead_elsewhere(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    save_prepared(folder)
    (folder / name).replace(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    result = call_main(pytorch_demo.main, "--dataset", folder, folder=tmp_path)
    assert f"cannot read {folder / name} (a link that leaves {folder})" in result.error


def test_named_source_may_be_a_link(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    assert call_prepare(tmp_path / "link", tmp_path / "cleaned").code == 0


# --- no regular files -----------------------------------------------------------------------------------------------


def test_special_files_are_listed(photos: Path) -> None:
    os.mkfifo(photos / "a" / "fifo.png")
    (photos / "a" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(photos / "a" / "socket.png"))
    reason = "not a regular file"
    expected = {"a/fifo.png": reason, "a/socket.png": reason, "a/zero.png": "a link that leaves the source"}
    assert find_reasons(photos) == expected


@pytest.mark.parametrize("name", ["fifo", "fifo.npz", "zero.npy", "circle", "x" * 300])
def test_source_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    if name.startswith("fifo"):
        os.mkfifo(tmp_path / name)
    elif name == "zero.npy":
        (tmp_path / name).symlink_to("/dev/zero")
    elif name == "circle":
        (tmp_path / name).symlink_to(name)
    assert call_prepare(tmp_path / name, tmp_path / "cleaned").error
    assert not (tmp_path / "cleaned").exists()


@pytest.mark.parametrize(("name", "problem"), [("circle", "choose another"), ("x" * 300, "is too long")])
def test_output_that_cannot_be_is_refused(name: str, problem: str, photos: Path) -> None:
    (photos.parent / "circle").symlink_to("circle")
    assert problem in call_prepare(photos, photos.parent / name).error


def test_predict_refuses_what_is_no_picture(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "bomb.png").write_bytes(png_bomb(5_008))
    with (tmp_path / "sparse.webp").open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    files = ("fifo.png", "/dev/zero", "bomb.png", "sparse.webp")
    result = call_main(predict.main, *(tmp_path / name for name in files), folder=digits_pipeline.folder)
    assert result.code == 2
    assert [image["error"] for image in result.json["images"]] == [
        "not a regular file",
        "not a regular file",
        "5,008 x 5,008 pixels are more than 25,000,000",
        "200,000,001 bytes are more than 200,000,000",
    ]


# --- names ----------------------------------------------------------------------------------------------------------


def test_long_and_similar_names_are_kept(photos: Path) -> None:
    for name in ("x" * 251, "Copy", "copy", "\x1b[31m", "two\nlines"):
        (photos / "a" / f"{name}.png").write_bytes(b"damaged")
    names = list(read_tree(photos / "a"))
    assert find_reasons(photos) == {}
    kept = read_tree(photos.parent / "cleaned" / "quarantine" / "unreadable" / "a")
    assert set(kept) == {name for name in names if len(name) > 6 or not name[0].isdigit()}


def test_endless_folders_are_listed(photos: Path) -> None:
    folder = photos / "a"
    for _ in range(70):
        folder /= "b"
    folder.mkdir(parents=True)
    (reason,) = find_reasons(photos).values()
    assert reason == "it is more than 64 folders deep"


def test_classes_that_look_the_same_are_refused(photos: Path) -> None:
    (photos / "a").rename(photos / unicodedata.normalize("NFC", "é"))
    (photos / "b").rename(photos / unicodedata.normalize("NFD", "é"))
    assert "give every class a name of its own" in call_prepare(photos, photos.parent / "cleaned").error


def test_large_file_is_not_copied(photos: Path) -> None:
    with (photos / "a" / "sparse.png").open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    assert find_reasons(photos) == {}
    assert list_reported(photos.parent / "cleaned", "unreadable") == ["a/sparse.png"]
    assert not (photos.parent / "cleaned" / "quarantine").exists()


# --- bombs ----------------------------------------------------------------------------------------------------------

SIZE = 1_000_000_000  # bytes that a bomb unpacks to


def picture_bombs() -> Iterator[tuple[str, bytes]]:
    yield "bomb.png", png_bomb(12_000)
    yield "bomb.gif", picture_bomb("GIF", 7_000)
    yield "bomb.tif", picture_bomb("TIFF", 7_000)
    yield "bomb.webp", picture_bomb("WEBP", 7_000)
    yield "text.png", text_bomb(300_000_000)


@pytest.mark.parametrize(("name", "content"), [pytest.param(*bomb, id=bomb[0]) for bomb in picture_bombs()])
def test_picture_bomb_is_not_unpacked(name: str, content: bytes, tmp_path: Path) -> None:
    assert len(content) < 1_000_000
    (tmp_path / name).write_bytes(content)
    peak, reason = measure_peak(tmp_path / name)
    assert reason
    assert peak < 50e6


@pytest.mark.parametrize("mode", ["RGBA", "F"])
def test_largest_picture_keeps_the_promised_memory(mode: str, tmp_path: Path) -> None:
    (tmp_path / "large.tif").write_bytes(picture_bomb("TIFF", 5_000, mode))
    peak, reason = measure_peak(tmp_path / "large.tif")
    assert reason == ""
    assert peak < MAX_MEMORY


def test_only_the_first_frame_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "frames.gif").write_bytes(frames_bomb("GIF", 400, 500))
    peak, reason = measure_peak(tmp_path / "frames.gif")
    assert reason == ""
    assert peak < 50e6


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(gzip_zeros(idx_header(1, 28, 28), SIZE), "more values than its header says", id="more"),
        pytest.param(gzip_zeros(idx_header(1, 20_000, 50_000), SIZE), "more than 25,000,000", id="large image"),
        pytest.param(gzip.compress(idx_header(2**30, 28, 28)), "not a complete IDX file", id="fewer"),
    ],
)
def test_gzip_bomb_is_not_unpacked(images: bytes, message: str, tmp_path: Path) -> None:
    write_idx_source(tmp_path / "source", images)
    peak, reason = measure_peak(tmp_path / "source")
    assert message in reason
    assert peak < 50e6


@pytest.mark.parametrize(("shape", "zeros"), [((1, 20_000, 50_000), SIZE), ((1, 28, 28), SIZE), ((10**9, 28, 28), 0)])
def test_numpy_bomb_is_not_unpacked(shape: tuple[int, ...], zeros: int, tmp_path: Path) -> None:
    write_npz(tmp_path / "bomb.npz", npy_header(shape), zeros)
    peak, reason = measure_peak(tmp_path / "bomb.npz")
    assert reason.startswith(f"cannot read {tmp_path}/bomb.npz as NumPy (")
    assert peak < 50e6


def test_endless_report_is_not_read(tmp_path: Path) -> None:
    save_dataset(tmp_path / "own", make_dataset(30), make_dataset(12))
    with (tmp_path / "own" / "cleaning_report.json").open("wb") as file:
        file.truncate(10**12)
    result = call_main(pytorch_demo.main, "--dataset", tmp_path / "own", folder=tmp_path)
    assert "cleaning_report.json (it has more than 64,000,000 bytes)" in result.error


def test_deep_json_is_refused(tmp_path: Path) -> None:
    save_dataset(tmp_path / "own", make_dataset(30), make_dataset(12))
    (tmp_path / "own" / "classes.json").write_text("[" * 100_000)
    result = call_main(pytorch_demo.main, "--dataset", tmp_path / "own", folder=tmp_path)
    assert "classes.json is damaged (it is nested more than 20 deep)" in result.error


def test_tiny_class_is_refused(tmp_path: Path) -> None:
    train = make_dataset(21, 2).subset(torch.tensor([0, 1, *range(2, 20, 2)]))
    save_idx_dataset(tmp_path / "tiny", train, make_dataset(6, 2))
    result = call_main(pytorch_demo.main, "--dataset", tmp_path / "tiny", folder=tmp_path)
    assert "class 'class 1' has 1 training images, and 2 are needed" in result.error
