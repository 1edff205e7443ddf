"""Parquet files, as `find_images` reads them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pipeline.cleaning.importers import find_images
from pipeline.data.forms import MNIST_FORM
from pipeline.data.images import UnusableImageError
from support.sources import read_all, read_error

X = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
Y = (np.arange(12) % 3).tolist()
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["ant", "bee", "cat"]


def encode_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = [encode_png(pixels) for pixels in X]


def write_parquet(
    file: Path,
    pictures: Sequence[bytes | None] = PICTURES,
    labels: Sequence[Any] | None = Y,
    image_type: pa.DataType = IMAGE_TYPE,
    image_name: str = "image",
    class_names: Sequence[str] = (),
) -> Path:
    """Write a file as Hugging Face's library does."""
    is_struct = pa.types.is_struct(image_type)
    values = [{"bytes": picture, "path": "1.png"} if is_struct else picture for picture in pictures]
    columns = {image_name: pa.array(values, image_type)}
    if labels is not None:
        columns["label"] = pa.array(labels)
    table = pa.table(columns)
    if class_names:
        features = {image_name: {"_type": "Image"}, "label": {"names": class_names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file, row_group_size=5)
    return file


@pytest.mark.parametrize("image_type", [IMAGE_TYPE, pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("image_name", ["image", "img", "scan"])
def test_pictures_are_read(image_type: pa.DataType, image_name: str, tmp_path: Path) -> None:
    source = find_images(write_parquet(tmp_path / "a.parquet", image_type=image_type, image_name=image_name))
    assert source.kind == "parquet"
    assert [image.label for image in source.images] == [str(label) for label in Y]
    assert np.array_equal(read_all(source), X)


def test_metadata_name_the_classes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", class_names=NAMES)
    assert [image.label for image in find_images(tmp_path).images] == NAMES * 4


def test_labels_may_be_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", labels=NAMES * 4)
    assert [image.label for image in find_images(tmp_path).images] == NAMES * 4


@pytest.mark.parametrize("name", ["data/{}-00000-of-00001.parquet", "mnist/{}/0000.parquet"])
def test_names_say_the_split(name: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# MNIST")
    for split in ("train", "test", "validation"):
        write_parquet(tmp_path / name.format(split))
    images = find_images(tmp_path).images
    splits = {image.name.rsplit("[")[0]: image.split for image in images}
    assert splits == {
        name.format("test"): "test",
        name.format("train"): "train",
        name.format("validation"): "train",
    }
    assert len(images) == 36


def test_columns_of_pixels_are_read(tmp_path: Path) -> None:
    columns = {f"pixel{index}": X.reshape(12, 784)[:, index] for index in range(784)}
    parquet.write_table(pa.table({"label": Y, **columns}), tmp_path / "train.parquet")
    source = find_images(tmp_path)
    assert [image.label for image in source.images] == [str(label) for label in Y]
    assert np.array_equal(read_all(source), X)


def test_picture_that_is_missing_or_damaged_is_unusable(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [None, b"no picture", *PICTURES[2:]])
    images = find_images(tmp_path).images
    for image in images[:2]:
        with pytest.raises(UnusableImageError):
            image.read(MNIST_FORM)
    assert np.array_equal(images[2].read(MNIST_FORM), X[2])


@pytest.mark.parametrize("labels", [None, [-1] * 12])
def test_images_without_labels_are_passed_over(labels: list[int] | None, tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet")
    write_parquet(tmp_path / "test.parquet", labels=labels)
    source = find_images(tmp_path)
    assert len(source.images) == 12
    assert source.ignored_files == ["test.parquet"]
    assert source.remarks == ["test.parquet is passed over: it has no labels"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param({"text": ["a"], "label": [1]}, "a.parquet has no column of images", id="no images"),
        pytest.param(
            {"image": pa.array([{"bytes": None, "path": "/tmp/1.png"}], IMAGE_TYPE), "label": [1]},
            "has the paths of its images only",
            id="paths",
        ),
    ],
)
def test_table_without_images_is_refused(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    assert message in read_error(tmp_path)


@pytest.mark.parametrize("size", [0, 3, -20])
def test_damaged_file_is_refused(size: int, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet")
    file.write_bytes(file.read_bytes()[:size])
    assert f"cannot read {tmp_path} as Parquet (a.parquet is not a complete Parquet file" in read_error(tmp_path)
