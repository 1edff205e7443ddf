"""The JSON records of an archive. Whatever torch.export does not write for our networks has no field here.

The names are those of PyTorch's `torch/_export/serde/schema.py`, version 8.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_JSON_SIZE = 4 * 2**20  # bytes; the resnet's graph has 45,000
MAX_ITEMS = 8192  # of an object or a list; the resnet has 79 tensors
MAX_NUMBER = 2**16  # of an operator's argument
MAX_SIZE = 2**31  # of a dimension
FLOAT32, INT64 = 7, 5  # torch._export.serde.schema.ScalarType

Identifier = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
StateName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=200)]
Number = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Nothing = Annotated[dict[str, Any], Field(max_length=0)]
Items = Field(max_length=MAX_ITEMS, fail_fast=True)  # thousands of errors would take a minute to collect


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class _OneOf(_Strict):
    """An object with exactly one key, which says what its value is."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.value is None:
            raise ValueError("exactly one kind of value is needed")
        return self

    @property
    def kind(self) -> str:
        """The only key, without ``as_``."""
        (key,) = self.model_fields_set
        return key.removeprefix("as_")

    @property
    def value(self) -> Any:
        """What stands under the only key."""
        (key,) = self.model_fields_set
        return getattr(self, key)


# --- tensors --------------------------------------------------------------------------------------------------------


class Name(_Strict):
    """The name of a tensor."""

    name: Identifier


class Int(_Strict):
    """A number."""

    as_int: Annotated[int, Field(ge=0, le=MAX_SIZE)]


class Zero(_Strict):
    """The number 0."""

    as_int: Literal[0]


class BatchSymbol(_Strict):
    """The number of images, such as ``s31``, with that of the examples."""

    expr_str: Annotated[str, Field(pattern=r"^Symbol\('s[0-9]{1,6}', positive=True, integer=True\)$")]
    hint: Int

    @property
    def symbol(self) -> str:
        """Its name."""
        return self.expr_str.split("'")[1]


class Dimension(_OneOf):
    """A size: a number or the batch."""

    as_int: Size | None = None
    as_expr: BatchSymbol | None = None


class Device(_Strict):
    """Where a tensor is: archives are written on the CPU."""

    type: Literal["cpu"]
    index: None


class TensorMeta(_Strict):
    """What is known of a tensor beside its values."""

    dtype: Literal[7, 5]
    sizes: Annotated[list[Dimension], Field(max_length=8)]
    requires_grad: bool
    device: Device
    strides: Annotated[list[Int], Field(max_length=8)]
    storage_offset: Zero
    layout: Literal[7]  # strided, in torch._export.serde.schema.Layout


# --- model_weights_config.json ------------------------------------------------------------------------------------


class PayloadMeta(_Strict):
    """Where the values of a weight are."""

    path_name: Annotated[str, Field(pattern="^weight_(0|[1-9][0-9]{0,5})$")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: TensorMeta


class PayloadConfig(_Strict):
    """The weights, by their names in the state dict."""

    config: dict[StateName, PayloadMeta]


# --- model.json -----------------------------------------------------------------------------------------------------


class TensorArgument(_Strict):
    """A tensor, by its name."""

    as_tensor: Name


class Argument(_OneOf):
    """An argument of an operator. There are no strings, symbols, graphs, operators or objects."""

    as_tensor: Name | None = None
    as_none: Literal[True] | None = None
    as_int: Number | None = None
    as_ints: Annotated[list[Number], Field(max_length=2)] | None = None
    as_float: Annotated[float, Field(ge=0, le=1)] | None = None
    as_bool: bool | None = None


class NamedArgument(_Strict):
    """An argument with its name; all of them are positional."""

    name: Identifier
    arg: Argument
    kind: Literal[1]  # positional, in torch._export.serde.schema.ArgumentKind


class NodeRecord(_Strict):
    """A call of an operator."""

    target: Annotated[str, Field(max_length=100)]
    inputs: Annotated[list[NamedArgument], Field(max_length=16)]
    outputs: Annotated[list[TensorArgument], Field(min_length=1, max_length=1)]
    metadata: Nothing
    is_hop_single_tensor_return: None
    name: Identifier


class Graph(_Strict):
    """Inputs, operators, the output, and what is known of every tensor."""

    inputs: Annotated[list[TensorArgument], Items]
    outputs: Annotated[list[TensorArgument], Field(min_length=1, max_length=1)]
    nodes: Annotated[list[NodeRecord], Items]
    tensor_values: dict[Identifier, TensorMeta]
    sym_int_values: Nothing
    sym_bool_values: Nothing
    is_single_tensor_return: Literal[False]
    custom_obj_values: Nothing
    sym_float_values: Nothing


class ParameterSpec(_Strict):
    """An input of the graph that is a parameter."""

    arg: Name
    parameter_name: StateName


class BufferSpec(_Strict):
    """An input of the graph that is a buffer."""

    arg: Name
    buffer_name: StateName
    persistent: Literal[True]


class UserSpec(_Strict):
    """An input that the caller gives, or an output that the caller gets."""

    arg: TensorArgument


class InputSpec(_OneOf):
    """What an input of the graph is."""

    parameter: ParameterSpec | None = None
    buffer: BufferSpec | None = None
    user_input: UserSpec | None = None


class OutputSpec(_Strict):
    """What the output of the graph is."""

    user_output: UserSpec


class Signature(_Strict):
    """What inputs and output of the graph are."""

    input_specs: Annotated[list[InputSpec], Items]
    output_specs: Annotated[list[OutputSpec], Field(min_length=1, max_length=1)]


class CallSignature(_Strict):
    """How the network is called: with one tensor, which gives one tensor."""

    inputs: Annotated[list[Any], Field(max_length=0)]
    outputs: Annotated[list[Any], Field(max_length=0)]
    in_spec: Literal[
        '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", '
        '"context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, '
        '{"type": "builtins.dict", "context": "[]", "children_spec": []}]}]'
    ]
    out_spec: Literal['[1, {"type": null, "context": null, "children_spec": []}]']
    forward_arg_names: Annotated[list[Identifier], Field(min_length=1, max_length=1)]


class ModuleCall(_Strict):
    """How a module is called; only that of the whole network is kept."""

    fqn: Literal[""]
    signature: CallSignature


class GraphModule(_Strict):
    """The graph and how it is called."""

    graph: Graph
    signature: Signature
    module_call_graph: Annotated[list[ModuleCall], Field(min_length=1, max_length=1)]
    metadata: Nothing
    treespec_namedtuple_fields: Nothing


class OpsetVersion(_Strict):
    """The version of PyTorch's operators, which have kept their meaning since."""

    aten: Literal[10]


class RangeConstraint(_Strict):
    """How many images there may be; torch.export takes 2 for the least, although one image works too."""

    min_val: Annotated[int, Field(ge=0, le=2)]
    max_val: None


class SchemaVersion(_Strict):
    """The version of these records."""

    major: Literal[8]
    minor: Annotated[int, Field(ge=0, le=1000)]


class ExportedProgram(_Strict):
    """The network without its weights."""

    graph_module: GraphModule
    opset_version: OpsetVersion
    range_constraints: Annotated[dict[Identifier, RangeConstraint], Field(min_length=1, max_length=1)]
    schema_version: SchemaVersion
    verifiers: Annotated[list[Literal["TRAINING"]], Field(max_length=1)]
    torch_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+_-]+$", max_length=60)]
    guards_code: Annotated[list[Any], Field(max_length=0)]


# --- reading --------------------------------------------------------------------------------------------------------


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text in ASCII; an object may not have two values of one name.

    Raises
    ------
    ValueError
        It is no JSON, larger than `MAX_JSON_SIZE`, nested too deeply, or an object has more than `MAX_ITEMS` names.
    """
    if len(content) > MAX_JSON_SIZE:
        raise ValueError(f"it has {len(content):,} bytes, more than {MAX_JSON_SIZE:,}")
    try:
        return json.loads(content.decode("ascii"), object_pairs_hook=_build_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_ITEMS:
        raise ValueError(f"an object has more than {MAX_ITEMS:,} names")
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("an object has two values of one name")
    return names
