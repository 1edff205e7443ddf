"""Where `infer_shape` gives a shape, PyTorch gives the same; where it cannot compute, `infer_shape` has to refuse."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pt2.network import FUNCTIONS
from pipeline.pt2.operators import OPERATORS
from pipeline.pt2.program import BATCH

COUNT = 3  # images
SMALL = st.integers(0, 4)
SIZE = st.integers(1, 6)
PAIR = st.tuples(SMALL, SMALL)
IMAGE = st.tuples(SIZE, SIZE, SIZE)


def check_shape(target: str, *arguments: Any) -> None:
    """Compare the shapes; a list among the arguments is the shape of a tensor."""
    shapes = [tuple(value) if isinstance(value, list) else value for value in arguments]
    try:
        inferred = OPERATORS[target].infer_shape(*shapes)
    except ValueError:
        return
    tensors = [
        torch.zeros([COUNT if size == BATCH else size for size in value]) if isinstance(value, list) else value
        for value in arguments
    ]
    result = FUNCTIONS[target](*tensors)
    assert tuple(result.shape) == tuple(COUNT if size == BATCH else size for size in inferred)
    assert inferred[0] == BATCH
    assert result.dtype == torch.float32


@given(IMAGE, st.lists(SIZE, min_size=1, max_size=4), st.booleans())
def test_elementwise_operators_give_the_inferred_shape(image: Any, other: list[int], batch: bool) -> None:
    other = [BATCH, *other[1:]] if batch else other
    for target in ("sub", "div", "add"):
        check_shape(f"torch.ops.aten.{target}.Tensor", [BATCH, *image], other)


@given(IMAGE, st.tuples(SIZE, SIZE, SIZE, SIZE), st.none() | SIZE, PAIR, PAIR, PAIR, SMALL)
def test_convolution_gives_the_inferred_shape(
    image: Any, weight: Any, bias: int | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    biases = None if bias is None else [bias]
    target = "torch.ops.aten.conv2d.default"
    check_shape(target, [BATCH, *image], list(weight), biases, stride, padding, dilation, groups)
    filters, _, *kernel = weight
    fitting = [filters, image[0], *kernel]  # most of the above does not fit
    check_shape(target, [BATCH, *image], fitting, [filters], stride, padding, dilation, 1)
    check_shape(target, [BATCH, *image], [image[0] * filters, 1, *kernel], None, stride, padding, dilation, image[0])


@given(IMAGE, PAIR, PAIR, PAIR, PAIR)
def test_pooling_gives_the_inferred_shape(image: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    target = "torch.ops.aten.max_pool2d.default"
    check_shape(target, [BATCH, *image], kernel, stride, padding, dilation)
    check_shape(target, [BATCH, *image], kernel, stride)
    check_shape(target, [BATCH, *image], kernel)


@given(st.lists(SIZE, max_size=4), SIZE, SIZE)
def test_batch_norm_gives_the_inferred_shape(image: list[int], channels: int, others: int) -> None:
    target = "torch.ops.aten.batch_norm.default"
    options = (False, 0.1, 1e-5, False)
    check_shape(target, [BATCH, *image], [channels], [channels], [channels], [others], *options)
    check_shape(target, [BATCH, channels, *image[1:]], [channels], None, [channels], [channels], *options)


@given(st.lists(SIZE, max_size=4), SMALL)
def test_flatten_gives_the_inferred_shape(image: list[int], start: int) -> None:
    check_shape("torch.ops.aten.flatten.using_ints", [BATCH, *image], start)


@given(st.lists(SIZE, min_size=1, max_size=2), st.tuples(SIZE, SIZE), st.none() | SIZE)
def test_linear_gives_the_inferred_shape(inputs: list[int], weight: Any, bias: int | None) -> None:
    target = "torch.ops.aten.linear.default"
    check_shape(target, [BATCH, *inputs], list(weight), None if bias is None else [bias])
    check_shape(target, [BATCH, weight[1]], list(weight), [weight[0]])
