"""The operators that a network may use: their arguments, and the shape of what they return.

The list is what the networks of `pipeline.training.models` use, and a test compares both. A new network may need a new
line here and in `pipeline.pt2.network`. The shapes are known before PyTorch computes anything, so that no archive
makes it allocate more than `pipeline.pt2.archive.MAX_RESULTS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.pt2.program import BATCH

Shape = tuple[int, ...]

# What an argument may be. A result is the input or what an earlier node returned; a weight is float32.
RESULT = ("result",)
TENSOR = ("result", "weight")
WEIGHT = ("weight",)
OPTIONAL_WEIGHT = ("weight", "none")
INT = ("int",)
INTS = ("ints",)
FLOAT = ("float",)
BOOL = ("bool",)
NONE = ("none",)


@dataclass(frozen=True)
class Operator:
    """What is known of an operator.

    Attributes
    ----------
    arguments : the kinds that each may have, by their names in the operator's order.
    required : how many of them have no default.
    infer_shape : called with the arguments, tensors replaced by their shapes; it returns the shape of the result, or
        raises ValueError if the operator cannot take them.
    """

    arguments: Mapping[str, tuple[str, ...]]
    required: int
    infer_shape: Callable[..., Shape]


def _broadcast(first: Shape, second: Shape) -> Shape:
    if len(second) > len(first):
        raise ValueError(f"shapes {first} and {second} do not fit")
    padded = (1,) * (len(first) - len(second)) + second
    return tuple(_broadcast_size(*sizes) for sizes in zip(first, padded, strict=True))


def _broadcast_size(first: int, second: int) -> int:
    if second in (first, 1):
        return first
    if first == 1 and second != BATCH:
        return second
    raise ValueError(f"sizes {first} and {second} do not fit")


def _convolution(
    images: Shape,
    weight: Shape,
    bias: Shape | None = None,
    stride: Shape = (1, 1),
    padding: Shape = (0, 0),
    dilation: Shape = (1, 1),
    groups: int = 1,
) -> Shape:
    _check_rank(images, 4)
    _check_rank(weight, 4)
    batch, channels, *sizes = images
    filters, group_channels, *kernel = weight
    if groups < 1 or channels != groups * group_channels or filters % groups:
        raise ValueError(f"a weight of shape {weight} in {groups} groups does not fit {channels} channels")
    if bias not in (None, (filters,)):
        raise ValueError(f"a bias of shape {bias} does not fit {filters} filters")
    return (batch, filters, *_slide(sizes, kernel, stride, padding, dilation))


def _max_pool(
    images: Shape, kernel: Shape, stride: Shape | None = None, padding: Shape = (0, 0), dilation: Shape = (1, 1)
) -> Shape:
    _check_rank(images, 4)
    _check_rank(kernel, 2)
    if len(padding) == 2 and (2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]):
        raise ValueError(f"padding {padding} is more than half of {kernel}")
    batch, channels, *sizes = images
    return (batch, channels, *_slide(sizes, kernel, stride or kernel, padding, dilation))


def _slide(
    sizes: list[int], kernel: list[int] | Shape, stride: Shape, padding: Shape, dilation: Shape
) -> tuple[int, int]:
    """Return height and width of what a window gives that moves over an image."""
    for numbers in (kernel, stride, padding, dilation):
        _check_rank(tuple(numbers), 2)
    if min(*kernel, *stride, *dilation) < 1:
        raise ValueError("kernel, stride and dilation have to be at least 1")
    steps = [
        (sizes[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] for axis in (0, 1)
    ]
    for axis in (0, 1):
        if padding[axis] > dilation[axis] * (kernel[axis] - 1):
            raise ValueError(f"the padding {padding} is wider than the window {tuple(kernel)}")
    if min(steps) < 0:
        raise ValueError(f"the window {tuple(kernel)} is larger than the image {tuple(sizes)}")
    return steps[0] + 1, steps[1] + 1


def _batch_norm(images: Shape, *statistics_and_options: object) -> Shape:
    *statistics, training, _momentum, _eps, _cudnn = statistics_and_options
    if training:
        raise ValueError("it trains while it is used")
    if len(images) < 2:
        raise ValueError(f"there are no channels in the shape {images}")
    for shape in statistics:
        if shape not in (None, (images[1],)):
            raise ValueError(f"a shape {shape} does not fit {images[1]} channels")
    return images


def _in_place_sum(first: Shape, second: Shape) -> Shape:
    if second != first:
        raise ValueError(f"shapes {first} and {second} do not fit")
    return first


def _adaptive_pool(images: Shape, sides: Shape) -> Shape:
    _check_rank(images, 4)
    _check_rank(sides, 2)
    if min(sides) < 1:
        raise ValueError(f"there is no image of {sides} pixels")
    return (*images[:2], *sides)


def _resize(images: Shape, sides: Shape, align_corners: object, scale_factors: None) -> Shape:
    return _adaptive_pool(images, sides)


def _unchanged(images: Shape) -> Shape:
    return images


def _flatten(images: Shape, start: int) -> Shape:
    if not 0 < start < len(images):
        raise ValueError(f"it flattens {images} from dimension {start} on")
    size = 1
    for factor in images[start:]:
        size *= factor
    return (*images[:start], size)


def _linear(inputs: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    _check_rank(inputs, 2)
    _check_rank(weight, 2)
    if inputs[1] != weight[1]:
        raise ValueError(f"a weight of shape {weight} does not fit {inputs[1]} inputs")
    if bias not in (None, (weight[0],)):
        raise ValueError(f"a bias of shape {bias} does not fit {weight[0]} outputs")
    return (inputs[0], weight[0])


def _check_rank(shape: Shape, rank: int) -> None:
    if len(shape) != rank:
        raise ValueError(f"{shape} has {len(shape)} numbers, not {rank}")


_ELEMENTWISE = Operator({"self": RESULT, "other": TENSOR}, 2, _broadcast)
_ACTIVATION = Operator({"self": RESULT}, 1, _unchanged)

OPERATORS: Mapping[str, Operator] = {
    "torch.ops.aten.sub.Tensor": _ELEMENTWISE,
    "torch.ops.aten.div.Tensor": _ELEMENTWISE,
    "torch.ops.aten.add.Tensor": _ELEMENTWISE,
    "torch.ops.aten.mul.Tensor": _ELEMENTWISE,
    "torch.ops.aten.add_.Tensor": Operator({"self": RESULT, "other": RESULT}, 2, _in_place_sum),
    "torch.ops.aten.conv2d.default": Operator(
        {
            "input": RESULT,
            "weight": WEIGHT,
            "bias": OPTIONAL_WEIGHT,
            "stride": INTS,
            "padding": INTS,
            "dilation": INTS,
            "groups": INT,
        },
        2,
        _convolution,
    ),
    "torch.ops.aten.batch_norm.default": Operator(
        {
            "input": RESULT,
            "weight": OPTIONAL_WEIGHT,
            "bias": OPTIONAL_WEIGHT,
            "running_mean": WEIGHT,
            "running_var": WEIGHT,
            "training": BOOL,
            "momentum": FLOAT,
            "eps": FLOAT,
            "cudnn_enabled": BOOL,
        },
        9,
        _batch_norm,
    ),
    "torch.ops.aten.relu_.default": _ACTIVATION,
    "torch.ops.aten.relu.default": _ACTIVATION,
    "torch.ops.aten.hardswish_.default": _ACTIVATION,
    "torch.ops.aten.hardsigmoid.default": _ACTIVATION,
    "torch.ops.aten.max_pool2d.default": Operator(
        {"self": RESULT, "kernel_size": INTS, "stride": INTS, "padding": INTS, "dilation": INTS}, 2, _max_pool
    ),
    "torch.ops.aten.adaptive_avg_pool2d.default": Operator({"self": RESULT, "output_size": INTS}, 2, _adaptive_pool),
    "torch.ops.aten.upsample_bilinear2d.vec": Operator(
        {"input": RESULT, "output_size": INTS, "align_corners": BOOL, "scale_factors": NONE}, 4, _resize
    ),
    "torch.ops.aten.flatten.using_ints": Operator({"self": RESULT, "start_dim": INT}, 2, _flatten),
    "torch.ops.aten.linear.default": Operator({"input": RESULT, "weight": WEIGHT, "bias": OPTIONAL_WEIGHT}, 2, _linear),
}
# They change their first argument.
IN_PLACE = ("torch.ops.aten.relu_.default", "torch.ops.aten.hardswish_.default", "torch.ops.aten.add_.Tensor")
VIEW = "torch.ops.aten.flatten.using_ints"  # its result may share the memory of its argument
