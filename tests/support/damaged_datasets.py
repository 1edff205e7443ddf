"""Data sets with one damage each, the same ones for the same seed."""

import gzip
import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from pipeline.data.catalog import SPLITS
from pipeline.data.datasets import load_splits
from support.prepared import make_dataset, save_dataset, save_idx_dataset

PIXELS = make_dataset(28, 2).images[:, 0].numpy()
LABELS = make_dataset(28, 2).labels.numpy()
CLASSES = ("class 0", "class 1")

DEEP = "[" * 100_000
HOSTILE_JSON = [
    *("", "null", "true", "3", '"text"', "[]", "{}", "[[]]", "[null, 1]", "[{}]", '["a"]', '["a", "a"]', '["a", ""]'),
    *(
        '["a", "b\\u0000"]',
        '["a", "\\ud800"]',
        '["a", NaN]',
        "[NaN, Infinity]",
        "[1e999, 2]",
        "[true, false]",
        "[1, 2]",
    ),
    *("[" + "9" * 5_000 + ", 1]", "[" + "9" * 4_000 + ", 1]", DEEP, '{"a":' * 100_000, '["a", "b"', '["a", "b"]]'),
    *(
        json.dumps([str(index) for index in range(5_000)]),
        '["' + "a" * 100_000 + '", "b"]',
        "\ufeff[]",
        "\0",
        "\x1b[2J",
    ),
    *('["e\u0301", "\u00e9"]', '{"class 0": 0, "class 1": 1}', '["a", "  "]', '["a", "a "]', '["\\u202e", "\\u2028"]'),
]
VALUES: list[Any] = [None, True, -1, 0, 2**63, 10**400, 0.5, "", "x", "\ud800", "\0", [], {}, [[]], {"a": None}, ["a"]]
DTYPES = ("?", "i1", "u2", ">i4", "u8", "f2", ">f8", "g", "c16", "S3", "U2", "M8[s]", "m8[D]", "V5", "u1,u1", "(2,3)u1")
ODD_NAMES = (
    "a'b",
    "$x$",
    "\x1b[31mred",
    "new\nline",
    "::error::x",
    "-rf",
    "a|b`c",
    "\u202ecod",
    " ",
    "x" * 250,
    "…",
    "#",
)


def save_prepared(folder: Path) -> None:
    """Write a data set of 22 and 6 images in two classes, as prepare_data.py does, with a report."""
    train, test = make_dataset(22, 2), make_dataset(6, 2)
    save_dataset(folder, train, test)
    report: dict[str, Any] = {"classes": {name: {"train": 11, "test": 3} for name in train.classes}}
    report["form"] = json.loads((folder / "form.json").read_text())
    for name, split in zip(SPLITS, load_splits(str(folder), Path("unused")), strict=True):
        report[name] = {"images": len(split), "sha256": split.digest}
    (folder / "cleaning_report.json").write_text(json.dumps(report))


def save_earlier(folder: Path) -> None:
    """Write the same data set as earlier releases did."""
    train, test = make_dataset(22, 2), make_dataset(6, 2)
    save_idx_dataset(folder, train, test)
    report = {
        "classes": {name: {"train": 11, "test": 3} for name in train.classes},
        "train": {"images": 22, "sha256": train.digest},
        "test": {"images": 6, "sha256": test.digest},
    }
    (folder / "cleaning_report.json").write_text(json.dumps(report))


def choose_idx(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted((folder / "MNIST" / "raw").iterdir()))


def flip_bytes(content: bytes, rng: random.Random, count: int = 3, start: int = 0) -> bytes:
    changed = bytearray(content)
    for _ in range(count):
        if start < len(changed):
            changed[rng.randrange(start, min(len(changed), start + 400))] = rng.randrange(256)
    return bytes(changed)


def damage_idx_header(folder: Path, rng: random.Random) -> None:
    """Change the header of an IDX file: type, number of dimensions, lengths."""
    save_earlier(folder)
    file = choose_idx(folder, rng)
    content = bytearray(gzip.decompress(file.read_bytes()))
    position = rng.choice((2, 3, *range(4, 4 + 4 * content[3], 4)))
    if position < 4:
        content[position] = rng.choice((0, 1, 2, 4, 9, 11, 13, 14, 65, 255, rng.randrange(256)))
    else:
        value = rng.choice((0, 1, 27, 2**16, 2**31, 2**32 - 1, rng.randrange(2**32)))
        content[position : position + 4] = struct.pack(">I", value)
    (folder / "cleaning_report.json").unlink()
    file.write_bytes(gzip.compress(bytes(content)))


def damage_gzip(folder: Path, rng: random.Random) -> None:
    """Cut, change, empty or unpack a packed file."""
    save_earlier(folder)
    file = choose_idx(folder, rng)
    content = file.read_bytes()
    cut = rng.randrange(len(content))
    damaged = (
        content[:cut],
        flip_bytes(content, rng, 1),
        content[cut:],
        b"",
        content + content,
        gzip.decompress(content),
    )
    file.write_bytes(rng.choice(damaged))


def damage_idx_values(folder: Path, rng: random.Random) -> None:
    """Write arrays that do not fit: no images, tiny classes, other sizes and types, labels out of range."""
    save_earlier(folder)
    if rng.random() < 0.8:
        (folder / "cleaning_report.json").unlink()
    count = rng.choice((0, 1, 2, 3, 4, 22))
    shape = rng.choice(((28, 28), (28, 28), (28, 28), (0, 0), (28, 27), (1,), (28, 28, 3), ()))
    labels = np.array([rng.choice((0, 0, 0, 1, 1, 255)) for _ in range(rng.choice((count, count, count, count + 1)))])
    code, dtype = rng.choice(((8, "u1"), (8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")))
    split = rng.choice(("train", "t10k"))
    for name, array in (("images-idx3", np.zeros((count, *shape))), ("labels-idx1", labels)):
        header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
        content = header + array.astype(np.uint8).astype(dtype).tobytes()
        (folder / "MNIST" / "raw" / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(content))


def damage_npy(folder: Path, rng: random.Random) -> None:
    """Replace a file of images or labels by a damaged one, or by one of another type, shape or length."""
    save_prepared(folder)
    if rng.random() < 0.7:
        (folder / "cleaning_report.json").unlink()
    file = rng.choice(sorted(folder.glob("*.npy")))
    array = np.load(file)
    others = (array, array[:1], array[:0], array[::-1], array.astype(rng.choice(DTYPES[:8])), array - 3, array[:, None])
    file.write_bytes(_npy_file(rng.choice(others), rng))


def damage_form(folder: Path, rng: random.Random) -> None:
    """Replace or change form.json."""
    save_prepared(folder)
    if rng.random() < 0.7:
        (folder / "cleaning_report.json").unlink()
    file = folder / "form.json"
    if rng.random() < 0.3:
        file.write_bytes(rng.choice(HOSTILE_JSON).encode("utf-8", "surrogatepass"))
        return
    content = json.loads(file.read_text())
    if rng.random() < 0.5:
        content["shape"] = rng.choice(([3, 28, 28], [1, 28], [1, 0, 0], [1, 28, 28.5], [1, 2**70, 28], 28, "x", None))
    else:
        content[rng.choice(sorted(content))] = rng.choice(VALUES)
    file.write_text(json.dumps(content))


def damage_classes(folder: Path, rng: random.Random) -> None:
    """Replace or change classes.json."""
    save_prepared(folder)
    file = folder / "classes.json"
    if rng.random() < 0.7:
        file.write_bytes(rng.choice(HOSTILE_JSON).encode("utf-8", "surrogatepass"))
    elif rng.random() < 0.5:
        file.write_text(json.dumps([rng.choice(VALUES) for _ in range(rng.randrange(4))]))
    else:
        file.write_bytes(flip_bytes(file.read_bytes(), rng))


def damage_report(folder: Path, rng: random.Random) -> None:
    """Replace or change cleaning_report.json."""
    save_prepared(folder)
    file = folder / "cleaning_report.json"
    if rng.random() < 0.4:
        file.write_bytes(rng.choice(HOSTILE_JSON).encode("utf-8", "surrogatepass"))
    elif rng.random() < 0.2:
        file.write_bytes(flip_bytes(file.read_bytes(), rng))
    else:
        content = json.loads(file.read_text())
        keys = rng.choice((["classes"], ["train"], ["test"], ["train", "sha256"], ["test", "sha256"]))
        parent = content[keys[0]] if keys[1:] else content
        parent[keys[-1]] = rng.choice(VALUES)
        file.write_text(json.dumps(content))


def replace_file(folder: Path, rng: random.Random) -> None:
    """Put something else in the place of a file: nothing, a folder, a FIFO, a link to a device or in a circle."""
    save_prepared(folder)
    file = rng.choice([file for file in sorted(folder.iterdir()) if file.is_file()])
    file.unlink()
    kind = rng.choice(("nothing", "folder", "fifo", "/dev/zero", file.name, "..", "/etc/passwd", "nowhere"))
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind != "nothing":
        file.symlink_to(kind)


def _npy_file(array: np.ndarray, rng: random.Random) -> bytes:
    """Return a .npy file, often with another header than it should have."""
    file = io.BytesIO()
    npy.write_array(file, array)
    content = file.getvalue()
    choice = rng.random()
    if choice < 0.25:
        return content
    if choice < 0.4:
        return flip_bytes(content, rng, 2)
    if choice < 0.5:
        return content[: rng.randrange(len(content))]
    shape: Any = rng.choice(((2**62,), (-1, 28, 28), (28, 2**40), (), (28, 28, 28), (2**70,), ("a",), (0, 28, 28), 28))
    descr: Any = rng.choice(
        ("|u1", "|O", "<U99999", [("a", "|O")], "nonsense", "<f8", None, ["x"], "|V0", ("|u1", (3,)))
    )
    text = rng.choice(
        (repr({"descr": descr, "fortran_order": rng.choice((False, True, 3)), "shape": shape}), "(" * 9_000)
    )
    return (
        b"\x93NUMPY"
        + bytes([rng.choice((1, 1, 2, 3, 9)), 0])
        + struct.pack("<H", len(text))
        + text.encode()
        + bytes(99)
    )


def write_arrays(folder: Path, rng: random.Random) -> None:
    """Write .npy or .npz files with strange types, pickles, damaged headers and damaged archives."""
    folder.mkdir()
    pixels, labels = np.array(PIXELS), np.array(LABELS)
    if rng.random() < 0.5:
        kind = np.dtype(rng.choice(DTYPES))
        shape = pixels.shape if rng.random() < 0.5 else (28, 0, 28)
        pixels = np.zeros(shape, kind)
    if rng.random() < 0.3:
        pixels = pixels.astype(object)
    if rng.random() < 0.5:
        labels = rng.choice(
            [
                np.array(["a", "b\0c"])[labels],
                np.array([b"\xff", b"a"])[labels],
                np.array([np.nan, 1])[labels],
                np.array([1e300, 1])[labels],
                np.array(["a" * 300, "\ud800"])[labels],
                np.array([None, 3], object)[labels],
                np.zeros(28, "u1,u1"),
                labels.astype("M8[s]"),
                labels[:, None, None],
                labels[:0],
                labels + 1j,
            ]
        )
    names = rng.choice((("X", "y"), ("x_train", "y_train"), ("../x", "y"), ("X", "X"), ("x\n", "y"), ("x", "y" * 300)))
    files = {"X": _npy_file(pixels, rng), "y": _npy_file(labels, rng)}
    if rng.random() < 0.4:
        for name, content in files.items():
            (folder / f"{name}.npy").write_bytes(content)
        return
    archive_file = io.BytesIO()
    method = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(archive_file, "w") as archive:
        for name, content in zip(names, files.values(), strict=True):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, method)
    content = archive_file.getvalue()
    if rng.random() < 0.4:
        tail = rng.random() < 0.7
        content = flip_bytes(content, rng, 2, max(0, len(content) - 250) if tail else 0)
    (folder / "all.npz").write_bytes(content)


def write_pictures(folder: Path, rng: random.Random) -> None:
    """Write folders of pictures with odd names, damaged pictures, and what is no picture."""
    for number in range(2):
        name = rng.choice(ODD_NAMES) + (str(number) if rng.random() < 0.8 else "")
        for index in range(rng.choice((0, 1, 13))):
            file = (
                folder
                / name
                / f"{rng.choice(ODD_NAMES)[:20]}{index}.{rng.choice(('png', 'gif', 'tif', 'webp', 'jpg', 'bmp'))}"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            file_format = {"tif": "TIFF", "jpg": "JPEG"}.get(file.suffix[1:], file.suffix[1:].upper())
            Image.fromarray(PIXELS[number * 13 + index]).save(content, file_format)
            is_damaged = rng.random() < 0.15
            file.write_bytes(flip_bytes(content.getvalue(), rng, 4) if is_damaged else content.getvalue())
    folder.mkdir(exist_ok=True)
    if rng.random() < 0.3:
        (folder / "labels.csv").write_bytes(rng.randbytes(100))
    if rng.random() < 0.3:
        (folder / "empty").mkdir(exist_ok=True)
    if rng.random() < 0.3:
        (folder / "up").symlink_to("..")


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    damage_idx_header,
    damage_gzip,
    damage_idx_values,
    damage_npy,
    damage_form,
    damage_classes,
    damage_report,
    replace_file,
    write_arrays,
    write_pictures,
)
