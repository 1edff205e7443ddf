"""The images of a source, as they are found: nothing is changed before they are read."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from pipeline.data.forms import Form
from pipeline.data.images import UNREADABLE, UnusableImageError, convert_image, scale_to_bytes
from pipeline.data.preparation import read_picture, working_side
from pipeline.regular_files import RefusedFile, open_real_file


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image of the source.

    Attributes
    ----------
    name : the path of its file below the source; of an array or a table, also the index, ``X_train.npy[17]``.
    label : the name of its class.
    split : "train", "test", or "" if the source has no splits.
    content : the file, by its real path; or pixels of any numeric type, [height, width] or [height, width, 3]; or the
        bytes of a picture file, uint8 [size].
    white : the value of white in the pixels, see `pipeline.data.images.scale_to_bytes`; None for a picture file.
    """

    name: str
    label: str
    split: str
    content: Path | np.ndarray
    white: float | None = None

    @property
    def is_encoded(self) -> bool:
        """Whether it is a picture file, on the disk or as bytes."""
        return isinstance(self.content, Path) or self.content.ndim == 1

    def read(self, form: Form) -> np.ndarray:
        """Return the picture as `pipeline.data.preparation.prepare_image` needs it for the form.

        Raises
        ------
        UnusableImageError
            The file cannot be read, or the pixels are not finite or out of range.
        """
        if self.is_encoded:
            with self.open() as file:
                return read_picture(file, form)
        assert isinstance(self.content, np.ndarray)
        picture = Image.fromarray(scale_to_bytes(self.content, self.white))
        return convert_image(picture, channels=form.shape[0], side=working_side(form))

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the picture file of an image that `is_encoded`.

        Raises
        ------
        UnusableImageError
            It cannot be opened, or cannot be read to its end.
        """
        if isinstance(self.content, np.ndarray):
            yield io.BytesIO(self.content.tobytes())
            return
        try:
            with open_real_file(self.content) as file:
                yield file
        except OSError as error:
            raise UnusableImageError(UNREADABLE, error.strerror or "the file cannot be read") from None


@dataclass(frozen=True)
class FoundImages:
    """The content of a source.

    Attributes
    ----------
    kind : "folders", "labels" (a table of file names and classes), "idx", "arrays", "csv", "parquet" or "mat".
    images : all images, in the order of their files or of their arrays.
    ignored_files : the files that are not images by their suffix, or that are in no class folder.
    refused : what is not read because it is no regular file, or a link that leads elsewhere.
    remarks : what was assumed or passed over, each in one sentence for people.
    """

    kind: str
    images: list[RawImage]
    ignored_files: list[str]
    refused: Sequence[RefusedFile] = ()
    remarks: Sequence[str] = ()


def sort_classes(labels: Iterable[str]) -> list[str]:
    """Return the classes among ``labels``: integers by value, names in the order of torchvision's ImageFolder."""
    classes = set(labels)
    if all(name.isdecimal() for name in classes):
        return sorted(classes, key=lambda name: (int(name), name))
    return sorted(classes)
