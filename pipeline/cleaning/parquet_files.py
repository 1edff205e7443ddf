"""Read Parquet files as Hugging Face has them: picture files in a column, labels in another; or columns of pixels."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pipeline.cleaning.arrays import find_split, label_array, split_array
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.cleaning.scratch import ScratchFile
from pipeline.cleaning.tables import LABEL_COLUMNS, PIXEL_TYPES, find_pixel_columns, name_labels, read_pixel_rows
from pipeline.data.class_names import parse_class_names
from pipeline.data.memory import check_array_size
from pipeline.documents import parse_json
from pipeline.regular_files import ListedFile, open_real_file
from pipeline.text import printable

IMAGE_COLUMNS = ("image", "img", "picture", "photo")
CLASS_COLUMNS = (*LABEL_COLUMNS, "fine_label")  # of CIFAR-100
BYTES_FIELD = "bytes"  # of a column of images, beside "path"
FEATURES_KEY = b"huggingface"  # of the schema's metadata
ROWS_AT_ONCE = 256
NO_LABEL = -1  # as Hugging Face marks images of a test set whose labels are secret


def read_parquet_source(files: Sequence[ListedFile], source: Path) -> FoundImages:
    """Return the images of Parquet files. A file or row without labels is passed over, and named in the remarks.

    The labels get the names in the metadata that Hugging Face writes, if there are any. The name of the file, or of its
    folder, says which split it is: ``train-00000-of-00001.parquet``.

    Raises
    ------
    UserError
        The values are normalised.
    ValueError, OSError
        A file is damaged, has no images or does not fit into the memory.
    """
    images: list[RawImage] = []
    ignored: list[str] = []
    remarks: list[str] = []
    for listed in files:
        name = listed.path.as_posix()
        with open_real_file(listed.real_path) as file:
            try:
                table = parquet.ParquetFile(file)
                read = _read_file(table, name, find_split(listed.path), source)
            except (pa.ArrowException, OSError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ValueError(f"{name} is not a complete Parquet file: {reason}") from None
        labelled = [image for image in read if image.label != str(NO_LABEL)]
        images.extend(labelled)
        if not labelled:
            ignored.append(name)
        if len(labelled) < len(read) or not read:
            count = f"{len(read) - len(labelled):,} of its images have" if labelled else "it has"
            remarks.append(f"{printable(name)} is passed over: {count} no labels")
    return FoundImages("parquet", images, ignored, remarks=remarks)


def _read_file(table: parquet.ParquetFile, name: str, split: str, source: Path) -> list[RawImage]:
    """Return the images of a file; none if it has no labels."""
    groups = [table.metadata.row_group(index) for index in range(table.metadata.num_row_groups)]
    check_array_size(max((group.total_byte_size for group in groups), default=0))
    schema = table.schema_arrow
    image_column = _find_image_column(schema)
    if image_column is None:
        return _read_pixels(table, name, split, source)
    label_column = _find_label_column(schema, image_column)
    if label_column is None:
        return []
    names = _read_class_names(schema, label_column)
    labels, pictures = _read_pictures(table, image_column, label_column, name)
    images = []
    for index, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
        images.append(RawImage(f"{name}[{index}]", names.get(label, label), split, picture))
    return images


def _read_pixels(table: parquet.ParquetFile, name: str, split: str, source: Path) -> list[RawImage]:
    columns = find_pixel_columns(table.schema_arrow.names)
    if columns is None:
        shown = ", ".join(table.schema_arrow.names[:5])
        raise ValueError(f"{name} has no column of images, such as 'image', but {printable(shown)}")
    if columns.label is None:
        return []
    for pixel_type in PIXEL_TYPES:
        try:
            batches = table.iter_batches(ROWS_AT_ONCE)
            labels, pixels = read_pixel_rows(batches, columns, pixel_type)
            return list(split_array(label_array(name, pixels, labels, split, source)))
        except pa.ArrowInvalid:
            if pixel_type == PIXEL_TYPES[-1]:
                raise
    raise AssertionError


# --- columns --------------------------------------------------------------------------------------------------------


def _find_image_column(schema: pa.Schema) -> str | None:
    """Return the column of picture files: a known name before the first of a fitting type."""
    fitting = [field.name for field in schema if _holds_pictures(field.type)]
    named = [name for name in fitting if name.lower() in IMAGE_COLUMNS]
    return next(iter([*named, *fitting]), None)


def _holds_pictures(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        index = data_type.get_field_index(BYTES_FIELD)
        return index >= 0 and _is_binary(data_type.field(index).type)
    return _is_binary(data_type)


def _is_binary(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))


def _find_label_column(schema: pa.Schema, image_column: str) -> str | None:
    """Return the column of labels: a known name, else the only column of integers or texts."""
    fitting = []
    for field in schema:
        is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if field.name != image_column and (pa.types.is_integer(field.type) or is_text):
            fitting.append(field.name)
    for known in CLASS_COLUMNS:
        for name in fitting:
            if name.lower() == known:
                return str(name)
    return str(fitting[0]) if len(fitting) == 1 else None


def _read_class_names(schema: pa.Schema, column: str) -> dict[str, str]:
    """Return the name of each label by Hugging Face's metadata; nothing if they have none."""
    metadata = (schema.metadata or {}).get(FEATURES_KEY)
    if metadata is None:
        return {}
    try:
        features: Any = parse_json(metadata)["info"]["features"]
        names = parse_class_names(features[column]["names"])
    except (ValueError, KeyError, TypeError):  # other features have no names
        return {}
    return {str(label): name for label, name in enumerate(names)}


# --- rows -----------------------------------------------------------------------------------------------------------


def _read_pictures(
    table: parquet.ParquetFile, image_column: str, label_column: str, name: str
) -> tuple[list[str], Iterator[np.ndarray]]:
    """Return the labels and the bytes of the picture files, uint8 [size] each, in a temporary file."""
    scratch = ScratchFile()
    labels: list[str] = []
    starts = [0]
    for batch in table.iter_batches(ROWS_AT_ONCE, columns=[image_column, label_column]):
        column = batch.column(batch.schema.get_field_index(image_column))
        if pa.types.is_struct(column.type):
            column = column.field(column.type.get_field_index(BYTES_FIELD))
        if column.null_count == len(column) > 0:
            raise ValueError(f"{name} has the paths of its images only, not the images")
        label_values = batch.column(batch.schema.get_field_index(label_column)).to_pylist()
        labels.extend(name_labels(label_values, len(labels)))
        for value in column:
            content = value.as_buffer()
            start = scratch.write(b"" if content is None else content.to_pybytes())
            starts[-1] = start
            starts.append(start + (0 if content is None else content.size))
    content = scratch.map(np.dtype(np.uint8), (starts[-1],))
    return labels, (content[start:end] for start, end in pairwise(starts))
