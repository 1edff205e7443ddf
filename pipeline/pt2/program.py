"""A network as data: its weights, and the operators that compute the logits."""

import math
from dataclasses import dataclass
from typing import Literal

BATCH = -1  # in a shape: any number of images


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of the network.

    Attributes
    ----------
    name : in the state dict, such as ``1.0.weight``.
    tensor : its name among the arguments of the nodes.
    shape, dtype : of its values.
    is_parameter : whether it was trained; the others are buffers.
    content : the values, little-endian and contiguous.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"]
    is_parameter: bool
    content: bytes


@dataclass(frozen=True)
class Reference:
    """An argument of a node: the weight, input or earlier result of that name."""

    name: str


Argument = Reference | None | bool | int | float | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A call of an operator.

    Attributes
    ----------
    operator : one of `pipeline.pt2.operators.OPERATORS`.
    arguments : in the operator's order; what is left out at the end has the operator's default.
    result : the name of what it returns.
    shape : of the result, which is float32; the first dimension is the batch.
    """

    operator: str
    arguments: tuple[Argument, ...]
    result: str
    shape: tuple[int, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the arguments that are tensors."""
        return tuple(argument.name for argument in self.arguments if isinstance(argument, Reference))


@dataclass(frozen=True)
class Program:
    """A checked network.

    Attributes
    ----------
    origin : where it comes from, for error messages.
    weights : parameters and buffers.
    input_name, input_shape : of the images, float32; the first dimension is the batch.
    nodes : in the order of the computation; each uses weights, the input, and results of earlier ones.
    output_name : the result that holds the logits, float32 [N, classes].
    classes : number of the logits.
    """

    origin: str
    weights: tuple[Weight, ...]
    input_name: str
    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    output_name: str
    classes: int

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(math.prod(weight.shape) for weight in self.weights if weight.is_parameter)
