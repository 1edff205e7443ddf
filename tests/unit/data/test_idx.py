import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.idx import DTYPES, name_idx_files, read_idx, write_idx

COMPLETE = struct.pack(">HBBII", 0, 8, 2, 3, 4) + bytes(12)  # uint8 [3, 4]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
def test_array_is_read_back_from_its_file(dtype: type, shape: tuple[int, ...], tmp_path: Path) -> None:
    bounds = np.iinfo(dtype)
    array = np.random.default_rng(0).integers(bounds.min, bounds.max, shape, dtype, endpoint=True)
    write_idx(tmp_path / "a.gz", array)
    restored = read_idx((tmp_path / "a.gz").open("rb"))
    assert restored.dtype == dtype
    assert np.array_equal(restored, array)


def test_equal_arrays_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(1_000, dtype=np.uint8).reshape(10, 100)
    write_idx(tmp_path / "a.gz", array)
    monkeypatch.setattr("time.time", lambda: 0.0)
    write_idx(tmp_path / "b.gz", np.asfortranarray(array))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize("code", DTYPES)
def test_each_type_is_read_in_native_order(code: int) -> None:
    big_endian = np.array([1, 2, 100], DTYPES[code])
    array = read_idx(io.BytesIO(struct.pack(">HBBI", 0, code, 1, 3) + big_endian.tobytes()))
    assert array.tolist() == [1, 2, 100]
    assert array.dtype == np.dtype(DTYPES[code]).newbyteorder("=")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(COMPLETE[:3], id="no header"),
        pytest.param(COMPLETE[:10], id="half a header"),
        pytest.param(COMPLETE[:-1], id="one byte short"),
        pytest.param(COMPLETE + b"\0", id="one byte too long"),
        pytest.param(b"\x1f\x8b" + COMPLETE[2:], id="another format"),
        pytest.param(COMPLETE[:2] + b"\x07" + COMPLETE[3:], id="unknown type"),
        pytest.param(COMPLETE[:3] + b"\0" + COMPLETE[4:], id="no dimension"),
        pytest.param(COMPLETE[:4] + b"\xff" + COMPLETE[5:], id="too many rows"),
        pytest.param(struct.pack(">HBB4I", 0, 8, 4, *[2**31] * 4), id="product beyond 64 bits"),
    ],
)
def test_damaged_content_is_refused(content: bytes) -> None:
    assert read_idx(io.BytesIO(COMPLETE)).shape == (3, 4)
    with pytest.raises(ValueError, match=r"not an IDX file|not a complete|values than its header says"):
        read_idx(io.BytesIO(content))


@given(st.binary(max_size=40), st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x0c\x02"]))
def test_any_bytes_are_read_or_refused(content: bytes, start: bytes) -> None:
    try:
        array = read_idx(io.BytesIO(start + content))
    except ValueError:
        return
    assert array.nbytes <= len(content)


def test_file_names_are_those_of_mnist() -> None:
    assert name_idx_files("train") == ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    assert name_idx_files("test") == ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
