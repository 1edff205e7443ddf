"""From a checked network to a module of PyTorch, by calling its operators one after the other."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.pt2.archive import refuse_model
from pipeline.pt2.program import Argument, Program, Reference, Weight

_aten = torch.ops.aten
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "torch.ops.aten.sub.Tensor": _aten.sub.Tensor,
    "torch.ops.aten.div.Tensor": _aten.div.Tensor,
    "torch.ops.aten.add.Tensor": _aten.add.Tensor,
    "torch.ops.aten.mul.Tensor": _aten.mul.Tensor,
    "torch.ops.aten.add_.Tensor": _aten.add_.Tensor,
    "torch.ops.aten.conv2d.default": _aten.conv2d.default,
    "torch.ops.aten.batch_norm.default": _aten.batch_norm.default,
    "torch.ops.aten.relu_.default": _aten.relu_.default,
    "torch.ops.aten.relu.default": _aten.relu.default,
    "torch.ops.aten.hardswish_.default": _aten.hardswish_.default,
    "torch.ops.aten.hardsigmoid.default": _aten.hardsigmoid.default,
    "torch.ops.aten.adaptive_avg_pool2d.default": _aten.adaptive_avg_pool2d.default,
    "torch.ops.aten.upsample_bilinear2d.vec": _aten.upsample_bilinear2d.vec,
    "torch.ops.aten.max_pool2d.default": _aten.max_pool2d.default,
    "torch.ops.aten.flatten.using_ints": _aten.flatten.using_ints,
    "torch.ops.aten.linear.default": _aten.linear.default,
}
_DTYPES = {"float32": torch.float32, "int64": torch.int64}


class Network(nn.Module):
    """A network that was read from an archive, for answers only.

    Its parameters and buffers have the names that they had when it was trained.

    Raises
    ------
    KeyError
        A weight has a name that PyTorch's modules use otherwise.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._input_name = program.input_name
        self._output_name = program.output_name
        self._weights: list[tuple[str, nn.Module, str]] = []
        self._steps = _plan_steps(program)
        for weight in program.weights:
            owner, attribute = self._register(weight)
            self._weights.append((weight.tensor, owner, attribute))
        self.eval()

    def _register(self, weight: Weight) -> tuple[nn.Module, str]:
        """Add the weight to the module that its name says; return the module and the last part of the name."""
        owner: nn.Module = self
        *path, attribute = weight.name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        values = _read_values(weight)
        if weight.is_parameter:
            owner.register_parameter(attribute, nn.Parameter(values))
        else:
            owner.register_buffer(attribute, values)
        return owner, attribute

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32 [N, classes], for float32 ``images``."""
        values: dict[str, Tensor] = {name: getattr(owner, attribute) for name, owner, attribute in self._weights}
        values[self._input_name] = images
        for function, arguments, result, last_used in self._steps:
            call = [values[value.name] if isinstance(value, Reference) else value for value in arguments]
            values[result] = function(*call)
            del call
            for name in last_used:
                del values[name]
        return values[self._output_name]


def build_network(program: Program) -> nn.Module:
    """Return the network of a checked archive; it answers as torch.export's module does, to the bit.

    It is on the CPU, contiguous, in evaluation mode. It is tried on two black images.

    Raises
    ------
    UserError
        PyTorch refuses it.
    """
    try:
        network = Network(program)
        shape = _try_network(network, program.input_shape)
    except (KeyError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise refuse_model(program.origin, str(error)) from None
    if shape != (2, program.classes):
        raise refuse_model(program.origin, f"it gives {shape} for two images")
    return network


@torch.inference_mode()
def _try_network(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(network(torch.zeros(2, *input_shape[1:])).shape)


def _read_values(weight: Weight) -> Tensor:
    values = torch.frombuffer(bytearray(weight.content), dtype=_DTYPES[weight.dtype])
    return values.reshape(weight.shape).clone()  # in memory that is aligned as PyTorch wants it


_Step = tuple[Callable[..., Any], tuple[Argument, ...], str, list[str]]


def _plan_steps(program: Program) -> list[_Step]:
    """Return for each node its function, arguments, result, and the results that nobody needs after it."""
    steps: list[_Step] = []
    needed = {weight.tensor for weight in program.weights} | {program.output_name}
    for node in reversed(program.nodes):
        last_used = sorted(set(node.tensors) - needed)
        if node.result not in needed:
            last_used.append(node.result)
        needed.update(node.tensors)
        steps.append((FUNCTIONS[node.operator], node.arguments, node.result, last_used))
    return steps[::-1]
