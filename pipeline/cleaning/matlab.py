"""Read the images of MATLAB files: EMNIST's, those of SVHN's cropped digits, and others with X and y."""

import faulthandler
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.cleaning.array_files import EMNIST_REMARK, list_array_images
from pipeline.cleaning.arrays import Arrays, LabelledArray, find_role, find_split, pair_arrays
from pipeline.cleaning.raw_images import FoundImages
from pipeline.data.memory import check_array_size
from pipeline.data.parallel import call_in_process
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile, file_size, open_real_file
from pipeline.text import printable

HEADER_SIZE = 128  # bytes of a file of level 5: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
BYTE_ORDERS = {b"IM": "little", b"MI": "big"}  # the last two bytes of the header
COMPRESSED = 15  # miCOMPRESSED, a type of data element
BLOCK_SIZE = 2**20  # bytes that are unpacked at once
SVHN_SHAPE = (32, 32, 3)
EXTRA = "extra"  # SVHN's name for more training images
COLUMNS_REMARK = "{}: one row an image, taken as MATLAB orders it, column by column"


def read_matlab_source(files: Sequence[ListedFile], source: Path) -> FoundImages:
    """Return the images of .mat files, upright.

    EMNIST's struct ``dataset`` has images and labels of both splits, and a table of the characters that the labels
    stand for. SVHN has ``X`` [32, 32, 3, N] and ``y``, where 10 stands for the digit 0. Other files have variables that
    are called as in `pair_arrays`: images [height, width, N] or [height, width, 3, N], or [N, pixels] with the pixels
    column by column, as MATLAB orders them, or [pixels, N] with the pixels row by row.

    Raises
    ------
    UserError
        A file is of version 7.3, which is HDF5, or `pair_arrays` refuses its arrays.
    ValueError, OSError
        A file is damaged, or does not fit into the memory.
    """
    labelled: list[LabelledArray] = []
    remarks: list[str] = []
    for listed in files:
        name = listed.path.as_posix()
        split = _find_split(listed.path)
        try:
            arrays, more = call_in_process(_read_file, listed)  # SciPy crashes on some damaged files
        except BrokenProcessPool:
            raise ValueError(f"{name} is not a complete MATLAB file") from None
        remarks.extend(more)
        for array in pair_arrays(arrays, source):
            labelled.append(replace(array, name=f"{name}:{array.name}", split=array.split or split))
    return list_array_images("mat", labelled, list(dict.fromkeys(remarks)))


def _read_file(listed: ListedFile) -> tuple[Arrays, list[str]]:
    """Return arrays and remarks of a file; it runs in a process of its own."""
    faulthandler.disable()  # a crash is reported in one line
    with open_real_file(listed.real_path) as file:
        variables = _load(file, listed.path)
    return _list_arrays(variables, printable(listed.path.as_posix()))


def _find_split(path: Path) -> str:
    return "train" if path.name.lower().startswith(EXTRA) else find_split(path)


# --- the file -------------------------------------------------------------------------------------------------------


def _load(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Return the variables of a file; objects of MATLAB's classes are data for SciPy, and no code is run."""
    from scipy.io import loadmat  # slow to import

    header = file.read(HEADER_SIZE)
    if header.startswith(b"MATLAB 7.3") or header[:8] == b"\x89HDF\r\n\x1a\n":
        raise UserError(
            f"{printable(str(path))} is a MATLAB file of version 7.3 (HDF5), which is not read; "
            "in MATLAB, load it and save it again with: save('new.mat', '-v7')"
        )
    check_array_size(_measure_content(file, header))
    file.seek(0)
    try:
        content: dict[str, Any] = loadmat(file, struct_as_record=True, squeeze_me=False, mat_dtype=False)
    except Exception as error:  # each kind of damage has its own exception
        reason = printable(str(error)) or type(error).__name__
        raise ValueError(f"{path.as_posix()} is not a complete MATLAB file: {reason}") from None
    return {name: value for name, value in content.items() if not name.startswith("__")}


def _measure_content(file: BinaryIO, header: bytes) -> int:
    """Return how many bytes the variables of a file have when they are unpacked, which the file does not say."""
    order = BYTE_ORDERS.get(header[126:128])
    size = file_size(file)
    if order is None:
        return size  # of level 4, which packs nothing
    total = 0
    position = HEADER_SIZE
    while position + 8 <= size:
        file.seek(position)
        tag = file.read(8)
        kind = int.from_bytes(tag[:4], order)  # type: ignore[arg-type]
        length = int.from_bytes(tag[4:], order)  # type: ignore[arg-type]
        total += _measure_packed(file, length) if kind == COMPRESSED else length
        check_array_size(total)
        position += 8 + length
    return total


def _measure_packed(file: BinaryIO, length: int) -> int:
    unpacker = zlib.decompressobj()
    total = 0
    while length > 0 and not unpacker.eof:
        packed = file.read(min(BLOCK_SIZE, length))
        if not packed:
            break
        length -= len(packed)
        while packed:
            try:
                total += len(unpacker.decompress(packed, BLOCK_SIZE))
            except zlib.error as error:
                raise ValueError(f"not a complete MATLAB file: {error}") from None
            packed = unpacker.unconsumed_tail
        check_array_size(total)
    return total


# --- what is in it --------------------------------------------------------------------------------------------------


def _list_arrays(variables: Mapping[str, Any], name: str) -> tuple[Arrays, list[str]]:
    """Return arrays of images [N, ...] and of labels by their names, and what was assumed."""
    dataset = variables.get("dataset")
    if dataset is not None and _fields(dataset) >= {"train", "test"}:
        return _list_emnist_arrays(dataset), [EMNIST_REMARK]
    numeric = {name: array for name, array in _list_numeric(variables) if find_role(name)}
    counts = {array.size for name, array in numeric.items() if find_role(name) == "labels"}
    arrays: Arrays = {}
    remarks: list[str] = []
    for variable, array in numeric.items():
        if find_role(variable) == "labels":
            arrays[variable] = array.reshape(-1)
            continue
        arrays[variable] = _put_images_first(array, counts)
        if array.ndim == 2 and array.shape[0] in counts:
            remarks.append(COLUMNS_REMARK.format(name))
    if arrays and set(arrays) == {"X", "y"} and arrays["X"].shape[1:] == SVHN_SHAPE:
        arrays["y"] = np.where(arrays["y"] == 10, 0, arrays["y"])
        remarks.append(f"{name}: label 10 means the digit 0, as in SVHN")
    return arrays, remarks


def _list_numeric(variables: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in variables.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "buif" and value.ndim >= 2:
            yield name, value


def _put_images_first(array: np.ndarray, counts: set[int]) -> np.ndarray:
    """Return images as [N, ...], upright; ``counts`` has the numbers of labels."""
    if array.ndim == 2 and array.shape[0] in counts:
        return _exchange_axes(array)
    has_colours_third = array.ndim == 4 and array.shape[2] in (1, 3)
    if array.shape[-1] in counts and (has_colours_third or array.shape[0] not in counts):
        return np.moveaxis(array, -1, 0)
    return array


def _exchange_axes(rows: np.ndarray) -> np.ndarray:
    """Return rows of square images, whose pixels are ordered by columns, as [N, height, width]."""
    side = round(rows.shape[1] ** 0.5)
    if side * side != rows.shape[1]:
        return rows  # `pair_arrays` says what is wrong
    return rows.reshape(len(rows), side, side).transpose(0, 2, 1)


def _list_emnist_arrays(dataset: np.ndarray) -> Arrays:
    characters = _read_mapping(_field(dataset, "mapping")) if "mapping" in _fields(dataset) else {}
    arrays: Arrays = {}
    for split in ("train", "test"):
        part = _field(dataset, split)
        labels = np.asarray(_field(part, "labels")).reshape(-1)
        names = [characters.get(int(label), str(int(label))) for label in labels]
        arrays[f"{split}_images"] = _exchange_axes(np.asarray(_field(part, "images")))
        arrays[f"{split}_labels"] = np.array(names, str)
    return arrays


def _read_mapping(mapping: np.ndarray) -> dict[int, str]:
    """Return the character of each label: a row has the label and the code of the character, of letters two codes."""
    result = {}
    for label, code, *_ in np.asarray(mapping).tolist():
        result[int(label)] = chr(int(code))
    return result


def _fields(value: Any) -> set[str]:
    names = value.dtype.names if isinstance(value, np.ndarray) else None
    return set(names or ())


def _field(struct: Any, name: str) -> Any:
    """Return a field of a struct, which SciPy gives as an array [1, 1]."""
    if name not in _fields(struct) or struct.size != 1:
        raise ValueError(f"the struct 'dataset' has no field {name!r}, as EMNIST's has it")
    return struct.reshape(-1)[0][name]
