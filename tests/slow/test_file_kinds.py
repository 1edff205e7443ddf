"""The same digits of MNIST in each kind of file give the same data set, digest for digest."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from scipy.io import savemat

from pipeline.cleaning import label_issues
from pipeline.data.datasets import load_splits
from pipeline.data.idx import name_idx_files, write_idx
from support.own_images import call_prepare, read_report

TRAIN_SIZE, TEST_SIZE = 4_000, 1_000
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]  # images and labels by split


@pytest.fixture(scope="module")
def arrays(real_data: Path) -> Arrays:
    splits = load_splits("mnist", real_data)
    result = {}
    for name, split, size in (("train", splits.train, TRAIN_SIZE), ("test", splits.test, TEST_SIZE)):
        result[name] = split.images[:size, 0].numpy(), split.labels[:size].numpy().astype(np.uint8)
    return result


@pytest.fixture(scope="module")
def expected(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the IDX files give."""
    folder = tmp_path_factory.mktemp("idx")
    (folder / "raw").mkdir()
    return prepare(write_idx_files(folder / "raw", arrays), folder / "cleaned")


def prepare(source: Path, output: Path) -> dict[str, Any]:
    """Run prepare_data.py; return what may not depend on the kind of file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_issues, "TRAINING_STEPS", 30)
        assert call_prepare(source, output).code == 0
    report = read_report(output)
    counts = {name: problem["count"] for name, problem in report["findings"].items()}
    splits = {name: report[name] for name in ("train", "validation", "test")}
    return {**splits, "classes": report["classes"], "form": report["form"], "counts": counts}


def write_idx_files(folder: Path, arrays: Arrays) -> Path:
    for split, (images, labels) in arrays.items():
        for name, array in zip(name_idx_files(split), (images, labels), strict=True):
            write_idx(folder / f"{name}.gz", array)
    return folder


def write_csv(folder: Path, arrays: Arrays) -> Path:
    for split, (images, labels) in arrays.items():
        pixels = {f"pixel{index}": column for index, column in enumerate(images.reshape(len(images), -1).T)}
        pd.DataFrame({"label": labels, **pixels}).to_csv(folder / f"{split}.csv", index=False)
    return folder


def write_parquet(folder: Path, arrays: Arrays) -> Path:
    for split, (images, labels) in arrays.items():
        values = [{"bytes": encode_png(image), "path": None} for image in images]
        image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(values, image_type), "label": labels.astype(np.int64)})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def write_keras(folder: Path, arrays: Arrays) -> Path:
    named: dict[str, np.ndarray] = {}
    for split, (images, labels) in arrays.items():
        named |= {f"x_{split}": images, f"y_{split}": labels}
    np.savez_compressed(folder / "mnist.npz", allow_pickle=True, **named)
    return folder / "mnist.npz"


def write_matlab(folder: Path, arrays: Arrays) -> Path:
    dataset = {}
    for split, (images, labels) in arrays.items():
        rows = images.transpose(0, 2, 1).reshape(len(images), -1)
        dataset[split] = {"images": rows, "labels": labels[:, None]}
    savemat(folder / "emnist-mnist.mat", {"dataset": dataset}, do_compression=True)
    return folder / "emnist-mnist.mat"


def write_labels(folder: Path, arrays: Arrays) -> Path:
    (folder / "images").mkdir()
    lines = ["id,label,split"]
    for split, (images, labels) in arrays.items():
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            name = f"{split}-{index:05d}"
            (folder / "images" / f"{name}.png").write_bytes(encode_png(image))
            lines.append(f"{name},{label},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def write_zip(folder: Path, arrays: Arrays) -> Path:
    (folder / "csv").mkdir()
    write_csv(folder / "csv", arrays)
    return Path(shutil.make_archive(str(folder / "mnist"), "zip", folder, "csv"))


def write_tar(folder: Path, arrays: Arrays) -> Path:
    (folder / "idx").mkdir()
    write_idx_files(folder / "idx", arrays)
    with tarfile.open(folder / "mnist.tar.gz", "w:gz") as archive:
        archive.add(folder / "idx", "mnist/raw")
    return folder / "mnist.tar.gz"


def encode_png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


WRITERS = [write_csv, write_parquet, write_keras, write_matlab, write_labels, write_zip, write_tar]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_kind_of_file_gives_the_digests_of_idx(
    write: Callable[[Path, Arrays], Path], arrays: Arrays, expected: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    result = prepare(write(tmp_path / "raw", arrays), tmp_path / "cleaned")
    assert result["train"]["images"] > 3_000
    assert result == expected
