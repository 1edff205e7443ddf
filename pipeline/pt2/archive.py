"""From the bytes of a ``.pt2`` file to a checked network. Needs no PyTorch, and runs nothing of what it reads."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import UserError
from pipeline.pt2 import schema
from pipeline.pt2.operators import IN_PLACE, OPERATORS, VIEW
from pipeline.pt2.program import BATCH, Argument, Node, Program, Reference, Weight
from pipeline.pt2.records import pack_records, unpack_records

MAX_RESULTS = 2**26  # numbers of one image and of what all nodes return for it; a cnn for 1024x1024 has 35 million

GRAPH_RECORD = "archive/models/model.json"
WEIGHTS_RECORD = "archive/data/weights/model_weights_config.json"
SAMPLE_INPUTS_RECORD = "archive/data/sample_inputs/model.pt"

# torch.export.load and MLflow insist on a pickle of examples: this is torch.save's file of the tuple ((0,), {}).
NO_SAMPLE_INPUTS = pack_records({"archive/data.pkl": b"\x80\x02K\x00\x85}\x86.", "archive/version": b"3\n"})
FIXED_RECORDS: Mapping[str, bytes] = {
    "archive/archive_format": b"pt2",
    "archive/archive_version": b"0",
    "archive/byteorder": b"little",
    "archive/.data/version": b"6\n",
    "archive/data/constants/model_constants_config.json": b'{"config": {}}',
    SAMPLE_INPUTS_RECORD: NO_SAMPLE_INPUTS,
}

_DTYPES: Mapping[int, Literal["float32", "int64"]] = {schema.FLOAT32: "float32", schema.INT64: "int64"}
_ITEM_SIZES = {"float32": 4, "int64": 8}
_Model = TypeVar("_Model", bound=BaseModel)


def read_archive(content: bytes, origin: str) -> Program:
    """Return the network in a ``.pt2`` file that `pipeline.pt2.export.rewrite_archive` wrote.

    Parameters
    ----------
    content
        The file.
    origin
        Where it comes from, such as "models:/digits-classifier/3", for error messages.

    Raises
    ------
    UserError
        It holds anything else than weights and calls of `OPERATORS` that fit together.
    """
    try:
        return _read_program(unpack_records(content), origin)
    except ValueError as error:  # pydantic's and json's errors are of this class too
        raise refuse_model(origin, str(error)) from None


def find_problem(content: bytes) -> str | None:
    """Return why `read_archive` refuses the content, or None if it does not."""
    try:
        _read_program(unpack_records(content), "")
    except ValueError as error:
        return str(error)
    return None


def refuse_model(origin: str, reason: str) -> UserError:
    """Return the error for a model that is not loaded; the reason may quote the model's author."""
    printable = "".join(character if character.isprintable() else " " for character in reason[:200])
    return UserError(
        f"{origin} is refused, because its model.pt2 is not one that save_model writes ({printable}); "
        "choose another model, or train it again"
    )


def _read_program(records: Mapping[str, bytes], origin: str) -> Program:
    _check_fixed_records(records)
    config = _parse_record(schema.PayloadConfig, records, WEIGHTS_RECORD).config
    exported = _parse_record(schema.ExportedProgram, records, GRAPH_RECORD)
    graph = exported.graph_module.graph
    (symbol,) = exported.range_constraints
    tensors = {name: _read_tensor(name, meta, symbol) for name, meta in graph.tensor_values.items()}
    specs = exported.graph_module.signature.input_specs
    weights = _read_weights(specs, config, graph.tensor_values, tensors, records)
    input_name = _read_input(specs, graph.inputs, tensors)
    nodes = _read_nodes(graph.nodes, weights, input_name, tensors)
    (output,) = graph.outputs
    _check_output(output, exported.graph_module.signature.output_specs, nodes)
    _check_in_place(nodes, output.as_tensor.name)
    _, classes = _output_shape(tensors[output.as_tensor.name].shape)
    return Program(
        origin=origin,
        weights=weights,
        input_name=input_name,
        input_shape=tensors[input_name].shape,
        nodes=nodes,
        output_name=output.as_tensor.name,
        classes=classes,
    )


# --- records --------------------------------------------------------------------------------------------------------


def _check_fixed_records(records: Mapping[str, bytes]) -> None:
    for name, content in FIXED_RECORDS.items():
        if records.get(name) != content:
            raise ValueError(f"record {name} is missing or another one")


def _parse_record(model: type[_Model], records: Mapping[str, bytes], name: str) -> _Model:
    if name not in records:
        raise ValueError(f"record {name} is missing")
    try:
        return model.model_validate(schema.parse_json(records[name]))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        location = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{name}: {location}: {problem['msg']}") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


# --- tensors --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"]


def _read_tensor(name: str, meta: schema.TensorMeta, symbol: str) -> _Tensor:
    shape = tuple(_read_size(size, symbol) for size in meta.sizes)
    strides = [stride.as_int for stride in meta.strides]
    if BATCH in shape[1:] or strides != [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]:
        raise ValueError(f"tensor {name!r} is not contiguous, or the batch is not its first dimension")
    return _Tensor(shape, _DTYPES[meta.dtype])


def _read_size(size: schema.Dimension, symbol: str) -> int:
    if size.as_int is not None:
        return size.as_int
    if size.as_expr is None or size.as_expr.symbol != symbol:
        raise ValueError(f"a size is not a number or the batch, which is {symbol!r}")
    return BATCH


def _read_weights(
    specs: Sequence[schema.InputSpec],
    config: Mapping[str, schema.PayloadMeta],
    metas: Mapping[str, schema.TensorMeta],
    tensors: Mapping[str, _Tensor],
    records: Mapping[str, bytes],
) -> tuple[Weight, ...]:
    """Return all weights; each has an input of the graph, an entry of the configuration and a record of its own."""
    weights = []
    for name, tensor, is_parameter in _list_weights(specs):
        payload = config.get(name)
        if payload is None or payload.is_param != is_parameter or payload.tensor_meta != metas.get(tensor):
            raise ValueError(f"weight {name!r} is described in two ways")
        content = records.get(_weight_record(payload))
        shape, dtype = tensors[tensor].shape, tensors[tensor].dtype
        if content is None or BATCH in shape or len(content) != math.prod(shape) * _ITEM_SIZES[dtype]:
            raise ValueError(f"the values of weight {name!r} are missing, or not as many as its shape says")
        weights.append(Weight(name, tensor, shape, dtype, is_parameter, content))
    names = sorted(weight.name for weight in weights)
    if names != sorted(config):
        raise ValueError("a weight is there twice, or it is no input of the graph")
    for name, following in pairwise(names):
        if following.startswith(f"{name}."):
            raise ValueError(f"{name!r} is both a weight and a module")
    _check_record_names(records, config)
    return tuple(weights)


def _list_weights(specs: Sequence[schema.InputSpec]) -> list[tuple[str, str, bool]]:
    """Return for each weight its name in the state dict, its name in the graph, and whether it is a parameter."""
    weights = []
    for spec in specs:
        if spec.parameter:
            weights.append((spec.parameter.parameter_name, spec.parameter.arg.name, True))
        elif spec.buffer:
            weights.append((spec.buffer.buffer_name, spec.buffer.arg.name, False))
    return weights


def _weight_record(payload: schema.PayloadMeta) -> str:
    return f"archive/data/weights/{payload.path_name}"


def _check_record_names(records: Mapping[str, bytes], config: Mapping[str, schema.PayloadMeta]) -> None:
    expected = [*FIXED_RECORDS, WEIGHTS_RECORD, GRAPH_RECORD, *map(_weight_record, config.values())]
    if len(set(expected)) != len(expected):
        raise ValueError("two weights have the same record")
    surplus = sorted(set(records) - set(expected))
    if surplus:
        raise ValueError(f"there is a record {surplus[0]!r}")


def _read_input(
    specs: Sequence[schema.InputSpec], inputs: Sequence[schema.TensorArgument], tensors: Mapping[str, _Tensor]
) -> str:
    """Return the name of the images, which are the last input; the others are the weights."""
    images = [spec.user_input for spec in specs if spec.user_input]
    if len(images) != 1 or not specs[-1].user_input:
        raise ValueError("the inputs are not the weights and then one tensor of images")
    input_name = images[0].arg.as_tensor.name
    names = [*(tensor for _, tensor, _ in _list_weights(specs)), input_name]
    if [tensor.as_tensor.name for tensor in inputs] != names or len(set(names)) != len(names):
        raise ValueError("the inputs of the graph are described in two ways")
    if input_name not in tensors:
        raise ValueError(f"nothing is known of the input {input_name!r}")
    return input_name


# --- nodes ----------------------------------------------------------------------------------------------------------


def _read_nodes(
    records: Sequence[schema.NodeRecord],
    weights: Sequence[Weight],
    input_name: str,
    tensors: Mapping[str, _Tensor],
) -> tuple[Node, ...]:
    """Return the nodes; the shape of each result is inferred, and compared with what the archive says."""
    kinds = {weight.tensor: "weight" if weight.dtype == "float32" else "int64 weight" for weight in weights}
    kinds[input_name] = "result"
    nodes = []
    for record in records:
        node = _read_node(record, kinds, tensors)
        kinds[node.result] = "result"
        nodes.append(node)
    if kinds.keys() != tensors.keys():
        raise ValueError("not every tensor is a weight, the input or a result")
    for name, kind in kinds.items():
        tensor = tensors[name]
        if kind == "result" and (tensor.dtype != "float32" or tensor.shape[:1] != (BATCH,)):
            raise ValueError(f"tensor {name!r} is not float32, or its first dimension is not the batch")
    if sum(math.prod(tensors[name].shape[1:]) for name, kind in kinds.items() if kind == "result") > MAX_RESULTS:
        raise ValueError(f"its results have more than {MAX_RESULTS:,} numbers for one image")
    return tuple(nodes)


def _read_node(record: schema.NodeRecord, kinds: Mapping[str, str], tensors: Mapping[str, _Tensor]) -> Node:
    operator = OPERATORS.get(record.target)
    if operator is None:
        raise ValueError(f"{record.target!r} is not an operator of our networks, which pipeline/pt2/operators.py lists")
    if not operator.required <= len(record.inputs) <= len(operator.arguments):
        raise ValueError(f"{record.target} has {len(record.inputs)} arguments")
    arguments: list[Argument] = []
    for argument, (name, allowed) in zip(record.inputs, operator.arguments.items(), strict=False):
        value = _read_argument(argument.arg)
        kind = kinds.get(value.name, "undefined") if isinstance(value, Reference) else argument.arg.kind
        if argument.name != name or kind not in allowed:
            raise ValueError(f"{record.target} has an argument {argument.name} of kind {kind}")
        arguments.append(value)
    (output,) = record.outputs
    result = output.as_tensor.name
    if result != record.name or result in kinds or result not in tensors:
        raise ValueError(f"the result {result!r} is there twice, or nothing is known of it")
    shapes = [tensors[value.name].shape if isinstance(value, Reference) else value for value in arguments]
    try:
        shape = operator.infer_shape(*shapes)
    except ValueError as error:
        raise ValueError(f"{record.target}: {error}") from None
    if shape != tensors[result].shape:
        raise ValueError(f"the shape of {result!r} is {shape}, not {tensors[result].shape}")
    return Node(record.target, tuple(arguments), result, shape)


def _read_argument(argument: schema.Argument) -> Argument:
    if argument.kind == "tensor":
        return Reference(argument.value.name)
    if argument.kind == "none":
        return None
    if argument.kind == "ints":
        return tuple(argument.value)
    value: bool | int | float = argument.value
    return value


def _check_output(output: schema.TensorArgument, specs: Sequence[schema.OutputSpec], nodes: Sequence[Node]) -> None:
    (spec,) = specs
    if spec.user_output.arg != output or output.as_tensor.name not in [node.result for node in nodes]:
        raise ValueError("the output is not the result of an operator")


def _output_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 2:
        raise ValueError(f"the output has the shape {shape}, not one number for each class")
    return shape


def _check_in_place(nodes: Sequence[Node], output_name: str) -> None:
    """Refuse a network that changes a weight, the caller's images, or a result that is used elsewhere too."""
    uses = Counter(name for node in nodes for name in node.tensors)
    uses[output_name] += 1
    fresh = {node.result for node in nodes if node.operator not in (*IN_PLACE, VIEW)}
    for node in nodes:
        if node.operator in IN_PLACE and (node.tensors[0] not in fresh or uses[node.tensors[0]] > 1):
            raise ValueError(f"{node.result!r} changes {node.tensors[0]!r}, which is not its alone")
