"""The form of the images that a model was trained on: what a picture has to become before the model is asked."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

INK, PHOTO = "ink", "photo"
MAX_SIDE = 1024  # pixels
MNIST_STROKE = 1.9  # pixels
Shape = tuple[int, int, int]  # channels, height, width


def _check_shape(shape: Shape, channels: tuple[int, ...]) -> None:
    if shape[0] not in channels or not all(1 <= side <= MAX_SIDE for side in shape[1:]):
        raise ValueError(f"{shape} is not the shape of an image")


@dataclass(frozen=True)
class InkForm:
    """Ink on paper: bright ink on a black background.

    The defaults are those of MNIST, as its authors made it: LeCun et al. 1998, section III.A. Its stroke width is
    measured on its training images, see `pipeline.data.ink_form.measure_ink_form`.

    Attributes
    ----------
    shape : channels (always 1), height and width of an image.
    box : pixels of the longer side of the ink.
    centring : what is in the middle of the image: the centre of "mass" of the ink, or of the "box" around it.
    stroke : thinner strokes are widened to this width, in pixels; 0 if the training images are not made of strokes.

    Raises
    ------
    ValueError
        A value cannot be one.
    """

    shape: Shape
    box: int
    centring: Literal["mass", "box"] = "mass"
    stroke: float = MNIST_STROKE
    kind: Literal["ink"] = "ink"

    def __post_init__(self) -> None:
        _check_shape(self.shape, (1,))
        if not 0 <= self.stroke < self.box:
            raise ValueError(f"strokes of {self.stroke} pixels do not fit into a box of {self.box}")
        if not 1 <= self.box <= min(self.shape[1:]):
            raise ValueError(f"a box of {self.box} pixels does not fit into {self.shape}")


@dataclass(frozen=True)
class PhotoForm:
    """A photo: its largest middle part of the right proportions, resized. Colours stay, or become grey levels.

    Attributes
    ----------
    shape : channels (1 or 3), height and width of an image.

    Raises
    ------
    ValueError
        The shape cannot be one.
    """

    shape: Shape
    kind: Literal["photo"] = "photo"

    def __post_init__(self) -> None:
        _check_shape(self.shape, (1, 3))


Form = InkForm | PhotoForm

# Models of earlier releases say "ink" and mean this.
MNIST_FORM = InkForm((1, 28, 28), 20)

_PARSER: TypeAdapter[Form] = TypeAdapter(
    Annotated[Form, Field(discriminator="kind")], config=ConfigDict(strict=True, extra="forbid")
)


def describe_form(form: Form) -> dict[str, Any]:
    """Return what a model's metadata say of the form, beside the shape."""
    description = asdict(form)
    del description["shape"]
    return description


def parse_form(shape: Shape, description: Mapping[str, Any] | str) -> Form:
    """Return the form that `describe_form` described.

    Raises
    ------
    ValueError
        There is no such form.
    """
    if description == INK:  # a model of an earlier release
        return InkForm(shape, MNIST_FORM.box)
    if not isinstance(description, Mapping):
        raise ValueError(f"there is no form {description!r}")
    try:
        text = json.dumps({**description, "shape": shape})
    except TypeError as error:  # YAML has dates and bytes, too
        raise ValueError(str(error)) from None
    return _PARSER.validate_json(text)  # strict, but an array becomes a tuple
