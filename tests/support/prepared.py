"""Data sets of random images."""

import numpy as np
import torch

from pipeline.data.splits import Dataset


def make_dataset(size: int, class_count: int = 3) -> Dataset:
    """Return ``size`` random images, the same for the same size, of classes in turn."""
    random = np.random.default_rng(size)
    pixels = random.integers(0, 256, (size, 1, 28, 28), np.uint8)
    labels = torch.arange(size) % class_count
    classes = tuple(f"class {index}" for index in range(class_count))
    return Dataset("made", torch.from_numpy(pixels), labels, classes, "")
