"""What find_images makes of a source."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.cleaning.importers import find_images
from pipeline.cleaning.raw_images import FoundImages
from pipeline.data.forms import MNIST_FORM
from pipeline.errors import UserError


def read_all(source: FoundImages) -> np.ndarray:
    """Return all images as they are read before they are prepared as MNIST: uint8 [N, height, width]."""
    return np.stack([image.read(MNIST_FORM) for image in source.images])


def read_error(source: Path) -> str:
    """Return why a source is refused."""
    with pytest.raises(UserError) as refused:
        find_images(source)
    return str(refused.value)
