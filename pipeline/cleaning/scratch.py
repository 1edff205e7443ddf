"""A temporary file for the pixels or pictures of a table, which may be more than the memory holds."""

import os
import tempfile

import numpy as np


class ScratchFile:
    """An unnamed temporary file that is written once and then mapped. The system removes it with its last use."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as it is mapped
        self._size = 0

    def write(self, values: np.ndarray | bytes) -> int:
        """Append values; return where they begin, in bytes."""
        start = self._size
        data = np.ascontiguousarray(values).data.cast("B") if isinstance(values, np.ndarray) else values
        self._size += self._file.write(data)
        return start

    def map(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return all that was written as an array; its values are read when they are used."""
        self._file.flush()
        if os.fstat(self._file.fileno()).st_size == 0:  # cannot be mapped
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(self._file, dtype, "r", 0, shape))
