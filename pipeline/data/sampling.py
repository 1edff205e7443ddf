"""A part of many things that is the same every time."""

import numpy as np


def choose_evenly(count: int, limit: int) -> np.ndarray:
    """Return the indices of at most ``limit`` of ``count`` things, evenly spaced from the first to the last: int64."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64)
