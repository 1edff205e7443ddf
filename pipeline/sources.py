"""Images as people keep them, in folders, IDX files or arrays: found and named one by one. Nothing is changed here."""

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from pipeline import UserError, images

# What the folders above the classes, and the arrays, call their parts. There is one validation set: load() cuts it.
PARTS = {name: "train" for name in ("train", "training", "val", "valid", "validation")}
PARTS |= {name: "test" for name in ("test", "testing", "t10k")}
EXPECTED = "a folder for each class, IDX files, or X_train.npy and y_train.npy (or one .npz)"


@dataclass(frozen=True, slots=True)
class Raw:
    """An image as it was found.

    Attributes
    ----------
    name : its file, below the source; of an array the array's file and the place in it, ``X_train.npy[17]``.
    label : the name of its class.
    part : "train", "test", or "" where the source has no parts.
    picture : the file; or the pixels of any type, [height, width] or [height, width, 3], 0 to ``white``.
    white : see `pipeline.images.to_bytes`.
    """

    name: str
    label: str
    part: str
    picture: Path | np.ndarray
    white: float | None = None

    def grey(self) -> np.ndarray:
        """Return its grey levels, uint8 [height, width]; raise images.UnusableError where there are none."""
        if isinstance(self.picture, Path):
            return images.read(self.picture)
        levels = images.to_bytes(self.picture, self.white)
        return levels if levels.ndim == 2 else np.array(Image.fromarray(levels).convert("L"))


def find(source: Path) -> tuple[str, list[Raw], list[str]]:
    """Return the kind of the source ("folders", "idx" or "arrays"), its images, and the files that are none by name.

    Raises UserError where there is nothing of the kind, or what there is does not fit together.
    """
    if not source.exists():
        raise UserError(f"{source} is not there; name the folder with your images")
    try:
        ignored: list[str] = []
        if source.is_file() and source.suffix in (".npz", ".npy"):
            kind, found = "arrays", _arrays(_stored([source]), source)
        elif idx := _shown(file for file in source.rglob("*idx[1-9]-ubyte*") if file.is_file()):
            kind, found = "idx", _arrays(_idx(idx, source), source)
        elif stored := _shown([*source.glob("*.npz"), *source.glob("*.npy")]):
            kind, found = "arrays", _arrays(_stored(stored), source)
        else:
            kind, (found, ignored) = "folders", _folders(source)
    except (OSError, ValueError, EOFError, zlib.error, BadZipFile) as error:
        raise UserError(f"cannot read {source} ({error}); it takes {EXPECTED}") from None
    if not found:
        raise UserError(f"there are no images in {source}; it takes {EXPECTED}")
    return kind, found, ignored


def _shown(files: Iterable[Path]) -> list[Path]:
    """Return the files in order, without hidden ones, such as macOS leaves behind."""
    return sorted(file for file in files if not file.name.startswith("."))


def order(labels: Iterable[str]) -> list[str]:
    """Return the classes of ``labels``: whole numbers by size, names as torchvision's ImageFolder sorts them."""
    names = set(labels)
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name), name) if numbers else (0, name))


def _folders(source: Path) -> tuple[list[Raw], list[str]]:
    """Read torchvision's ImageFolder layout, with or without parts above the classes."""
    tops = _shown(each for each in source.iterdir() if each.is_dir())
    parts = {top: PARTS.get(top.name.lower(), "") for top in tops}
    has_parts = all(parts.values()) and "train" in parts.values()
    found: list[Raw] = []
    ignored: list[str] = []
    walk = os.walk(source, followlinks=True)  # as ImageFolder does
    for file in sorted(Path(folder, name) for folder, _, names in walk for name in names):
        name = file.relative_to(source)
        if any(each.startswith(".") for each in name.parts):
            continue
        try:
            text = name.as_posix().encode().decode()
        except UnicodeEncodeError:
            raise UserError(f"the name {name.as_posix()!a} in {source} is not UTF-8; rename it") from None
        classes = name.parts[has_parts:-1]
        if file.suffix.lower() in images.SUFFIXES and classes:
            found.append(Raw(text, classes[0], parts[source / name.parts[0]] if has_parts else "", file))
        else:
            ignored.append(text)
    return found, ignored


def _idx(files: list[Path], source: Path) -> dict[str, np.ndarray]:
    """Read IDX files; of one that lies there packed and unpacked, as torchvision leaves it, the packed one."""
    if len(folders := {str(file.parent) for file in files}) > 1:
        raise UserError(f"there are IDX files in {', '.join(sorted(folders))}; name one of them")
    packed = {file.name: file for file in files if file.suffix != ".gz"}
    packed |= {file.stem: file for file in files if file.suffix == ".gz"}
    arrays = {}
    for name, file in packed.items():
        content = file.read_bytes()
        arrays[name] = images.from_idx(gzip.decompress(content) if file.suffix == ".gz" else content)
    for folder in (source, *next(iter(packed.values())).parents[:3]):
        if (folder / "classes.json").is_file():
            names = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
            labels = [array for array in arrays.values() if array.ndim == 1]
            whole = isinstance(names, list) and all(array.dtype.kind in "iu" for array in labels)
            if not whole or any(array.min() < 0 or array.max() >= len(names) for array in labels):
                raise ValueError(f"{folder / 'classes.json'} is no list with a name for every label")
            classes = np.array(names, str)
            return {name: classes[array] if array.ndim == 1 else array for name, array in arrays.items()}
    return arrays


def _stored(files: list[Path]) -> dict[str, np.ndarray]:
    """Read NumPy files; those that hold Python objects (pickle) are refused by NumPy."""
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
        if isinstance(stored, np.ndarray):
            arrays[file.name] = stored
        else:
            with stored:
                arrays |= {name: stored[name] for name in stored.files}
    return arrays


def _arrays(arrays: dict[str, np.ndarray], source: Path) -> list[Raw]:
    """Pair the arrays of images with those of labels, by their names."""
    pairs: dict[str, dict[str, str]] = {}
    for name in arrays:
        words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
        kind = next((kind for kind, names in _KINDS.items() if names & set(words)), None)
        if kind is None:
            raise UserError(f"{source}: the array {name!r} is neither images (X) nor labels (y); take it out")
        named = next((word for word in words if word in PARTS), "")
        if kind in pairs.setdefault(named, {}):
            raise UserError(f"{source}: {name!r} and {pairs[named][kind]!r} both hold {kind}; take one out")
        pairs[named][kind] = name
    found: list[Raw] = []
    for named, pair in sorted(pairs.items()):
        if len(pair) < 2:
            raise UserError(f"{source}: {next(iter(pair.values()))!r} has no partner; it takes images and labels")
        found += _pair(pair["images"], arrays[pair["images"]], _names(arrays[pair["labels"]]), PARTS.get(named, ""))
    return found


_KINDS = {"images": {"x", "images", "image", "data"}, "labels": {"y", "labels", "label", "targets", "target"}}


def _names(labels: np.ndarray) -> list[str]:
    """Return labels of any type as class names."""
    if not labels.ndim:
        raise ValueError("a single number in the place of labels")
    labels = labels.reshape(len(labels), -1)
    if labels.shape[1] != 1:
        raise ValueError(f"labels of {labels.shape[1]} columns; it takes one label for each image")
    flat = labels[:, 0]
    if flat.dtype.kind == "f":
        if not (np.isfinite(flat) & (flat == np.round(flat))).all():
            raise ValueError("labels that are no whole numbers")
        flat = flat.astype(np.int64)
    return [each.decode() if isinstance(each, bytes) else str(each) for each in flat.tolist()]


def _pair(name: str, pixels: np.ndarray, labels: list[str], part: str) -> list[Raw]:
    if not pixels.ndim or len(pixels) != len(labels) or not labels:
        raise ValueError(f"{name}: {len(pixels) if pixels.ndim else 0:,} images and {len(labels):,} labels")
    side = round(np.sqrt(np.prod(pixels.shape[1:])))
    if pixels.ndim == 2 and side * side == pixels.shape[1]:  # one row an image
        pixels = pixels.reshape(len(pixels), side, side)
    elif pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] not in (1, 3):
        pixels = np.moveaxis(pixels, 1, 3)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3) or pixels.dtype.kind not in "buif":
        raise ValueError(f"{name}: {pixels.dtype} {list(pixels.shape)} is no array of images, [N, height, width]")
    # The brightest pixel of each image; NaN only where there is nothing else.
    brightest = np.fmax.reduce(pixels.reshape(len(pixels), -1), 1)
    finite = brightest[np.isfinite(brightest)]
    white = images.scale_of(float(np.median(finite)) if len(finite) else 255)
    if pixels.dtype.kind in "ui" and white == 1 and pixels.max() > 1:
        white = 255
    return [Raw(f"{name}[{i}]", label, part, pixels[i], white) for i, label in enumerate(labels)]
