import io
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable

import pytest
from torch import nn

from pipeline.errors import UserError
from pipeline.pt2 import archive as archive_module
from pipeline.pt2 import records as records_module
from pipeline.pt2 import schema
from pipeline.pt2.archive import FIXED_RECORDS, GRAPH_RECORD, SAMPLE_INPUTS_RECORD, WEIGHTS_RECORD, read_archive
from pipeline.pt2.program import Node, Reference
from pipeline.training.config import MODELS
from support.archives import (
    change_graph,
    change_records,
    change_text,
    export_archive,
    make_archive,
    make_network,
    read_graph,
)
from support.scripts import ROOT

WEIGHT = "archive/data/weights/weight_0"
GRAPH = "graph_module/graph"
SPECS = "graph_module/signature/input_specs"
SUB, CONVOLUTION, BATCH_NORM, RELU, FLATTEN, LINEAR = (f"{GRAPH}/nodes/{i}" for i in (0, 2, 3, 4, 12, 13))
VALUES = f"{GRAPH}/tensor_values"
IMAGES = {"as_tensor": {"name": "input"}}
PARAMETER = {"as_tensor": {"name": "p_1_0_weight"}}


def check_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UserError) as raised:
        read_archive(content, "models:/digits/3")
    message = str(raised.value)
    assert message.startswith("models:/digits/3 is refused, because ")
    assert reason in message
    assert message.isprintable()  # one line
    assert len(message) < 500


# --- honest archives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_honest_archive_is_described(name: str) -> None:
    program = read_archive(make_archive(name), "here")
    network = make_network(name)
    assert program.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (program.input_shape, program.classes) == ((-1, 1, 28, 28), 10)
    assert {weight.name for weight in program.weights} == network.state_dict().keys()
    channels = 3 if name == "mobilenet" else 1  # it makes three channels of one
    assert program.nodes[0] == Node(
        "torch.ops.aten.sub.Tensor", (Reference("input"), Reference("b_0_mean")), "sub", (-1, channels, 28, 28)
    )


def test_archive_names_no_folder_of_its_author() -> None:
    assert str(ROOT).encode() not in make_archive("cnn")
    assert b".py" not in make_archive("cnn")


def test_reading_needs_no_pytorch() -> None:
    code = "import pipeline.pt2.archive, pipeline.pt2.export, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- the file -------------------------------------------------------------------------------------------------------


def repack(
    content: bytes, rename: Callable[[str], str] = str, compression: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    """Return the same records in a ZIP file of another form."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(rename(name), old.read(name))
        new.comment = comment
    return buffer.getvalue()


def add_record(content: bytes, name: str, value: bytes = b"") -> bytes:
    """Return the file with one record more, of a name that may be there already."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Duplicate name"
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        archive.writestr(info, value)
    return buffer.getvalue()


def find_directory(content: bytes) -> int:
    """Return where the central directory begins."""
    return int.from_bytes(content[-6:-2], "little")


def encrypt(content: bytes) -> bytes:
    """Return the file with the flag of encryption on its first record."""
    start = find_directory(content)
    return content[: start + 8] + b"\x01" + content[start + 9 :]


def move_to_local_header(content: bytes) -> bytes:
    """Return the file whose first local header has another name than the directory says."""
    name = WEIGHT.encode()
    return content.replace(name, name.replace(b"weights", b"Weights"), 1)


FILES = {
    "no bytes": (lambda content: b"", "is not a ZIP file"),
    "no ZIP file": (lambda content: b"x" * 1000, "is not a ZIP file"),
    "cut in the middle": (lambda content: content[: len(content) // 2], "is not a ZIP file"),
    "cut at the end": (lambda content: content[:-1], "is not a ZIP file"),
    "bytes before": (lambda content: b"x" + content, "begins with its first record"),
    "bytes after": (lambda content: content + b"x", "is not a ZIP file"),
    "a comment": (lambda content: repack(content, comment=b"PK\x05\x06"), "is not a ZIP file"),
    "a second ZIP file after": (lambda content: content + content, "begins with its first record"),
    "another form": (repack, "not in the form"),
    "compressed": (lambda content: repack(content, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "encrypted": (encrypt, "is encrypted"),
    "two names of one record": (move_to_local_header, "not in the form"),
    "a record twice": (lambda content: add_record(content, GRAPH_RECORD), "is there twice"),
    "names that differ in case": (lambda content: add_record(content, GRAPH_RECORD.upper()), "is there twice"),
    "a name that ends early": (lambda content: add_record(content, f"{GRAPH_RECORD}.x\0y"), "there is a record"),
    "a changed weight": (lambda content: content.replace(b"\0\0\x80\x3f", b"\0\0\0\x40", 1), "not in the form"),
}


@pytest.mark.parametrize("case", FILES)
def test_file_of_another_form_is_refused(case: str) -> None:
    change, reason = FILES[case]
    check_refused(change(make_archive("cnn")), reason)


def test_hidden_second_directory_is_refused() -> None:
    content = make_archive("cnn")
    start = find_directory(content)
    directory = content[start:-22]
    offset = (start + len(directory)).to_bytes(4, "little")
    doubled = content[:start] + directory + directory + content[-22:-6] + offset + content[-2:]
    check_refused(doubled, "not in the form")


def test_overlapping_records_are_refused() -> None:
    content = bytearray(make_archive("cnn"))
    entry = find_directory(bytes(content))
    following = content.index(b"PK\x01\x02", entry + 1)
    content[following + 42 : following + 46] = content[entry + 42 : entry + 46]  # both at the same offset
    check_refused(bytes(content), "not in the form")


@pytest.mark.parametrize(
    ("module", "limit", "value", "reason"),
    [
        (records_module, "MAX_ARCHIVE_SIZE", 1000, "bytes, more than 1,000"),
        (records_module, "MAX_RECORDS", 30, "its directory is larger"),
        (schema, "MAX_JSON_SIZE", 1000, "bytes, more than 1,000"),
        (schema, "MAX_ITEMS", 20, "an object has more than 20 names"),
        (archive_module, "MAX_RESULTS", 1000, "its results have more than 1,000 numbers"),
    ],
)
def test_what_exceeds_a_limit_is_refused(
    module: object, limit: str, value: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = make_archive("cnn")
    monkeypatch.setattr(module, limit, value)
    check_refused(content, reason)


def test_hundred_million_parameters_are_within_the_limits() -> None:
    assert records_module.MAX_ARCHIVE_SIZE > 100e6 * 4 + 2 * schema.MAX_JSON_SIZE


# --- the records ----------------------------------------------------------------------------------------------------


def test_another_root_is_refused() -> None:
    def rename(records: dict[str, bytes]) -> None:
        for name in list(records):
            records[name.replace("archive/", "model/", 1)] = records.pop(name)

    check_refused(change_records(make_archive("cnn"), rename), "record archive/archive_format is missing")


def test_second_root_is_refused() -> None:
    def add(records: dict[str, bytes]) -> None:
        for name in list(records):
            records[f"other/{name}"] = records[name]

    check_refused(change_records(make_archive("cnn"), add), "there is a record 'other/archive/.data/version'")


@pytest.mark.parametrize("name", [*FIXED_RECORDS, GRAPH_RECORD, WEIGHTS_RECORD, WEIGHT])
def test_missing_record_is_refused(name: str) -> None:
    check_refused(change_records(make_archive("cnn"), lambda records: records.__delitem__(name)), "missing")


@pytest.mark.parametrize("name", FIXED_RECORDS)
def test_another_value_of_a_fixed_record_is_refused(name: str) -> None:
    changed = change_records(make_archive("cnn"), lambda records: records.update({name: records[name] + b" "}))
    check_refused(changed, f"record {name} is missing or another one")


@pytest.mark.parametrize(
    "name",
    [
        "archive/extra/notes.txt",
        "archive/data/weights/model.pt",
        "archive/data/weights/weight_23",
        "archive/data/constants/model.pt",
        "archive/data/constants/custom_obj_0",
        "archive/data/aotinductor/model/wrapper.so",
        "archive/models/other.json",
        "archive/.data/serialization_id",
        "archive/../model.json",
        "/model.json",
        "archive/models/",
    ],
)
def test_surplus_record_is_refused(name: str) -> None:
    changed = change_records(make_archive("cnn"), lambda records: records.update({name: b"x"}))
    check_refused(changed, f"there is a record {name!r}")


def test_sample_inputs_of_another_file_are_refused() -> None:
    changed = change_records(make_archive("cnn"), lambda records: records.update({SAMPLE_INPUTS_RECORD: b""}))
    check_refused(changed, f"record {SAMPLE_INPUTS_RECORD} is missing or another one")


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [GRAPH_RECORD, WEIGHTS_RECORD])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"config": {}, "config": {}}', "two values of one name"),
        ("[]", "valid dictionary"),
        ('"\\ud800"', "valid dictionary"),
        ("\u00e9", "ascii"),
        ("\x00", "Expecting value"),
    ],
)
def test_text_that_is_no_record_is_refused(record: str, text: str, reason: str) -> None:
    changed = change_records(make_archive("cnn"), lambda records: records.update({record: text.encode("utf-8")}))
    check_refused(changed, reason)


def test_second_value_of_a_name_is_refused() -> None:
    changed = change_text(
        make_archive("cnn"), GRAPH_RECORD, '"guards_code": []', '"guards_code": [], "guards_code": []'
    )
    check_refused(changed, "two values of one name")


# --- the graph ------------------------------------------------------------------------------------------------------

ARGUMENTS: list[tuple[object, str]] = [
    ({"as_string": "x"}, "as_string: Extra inputs"),
    ({"as_strings": ["x"]}, "as_strings: Extra inputs"),
    ({"as_sym_int": {"as_name": "s31"}}, "as_sym_int: Extra inputs"),
    ({"as_sym_bool": {"as_bool": True}}, "as_sym_bool: Extra inputs"),
    ({"as_graph": {"name": "x"}}, "as_graph: Extra inputs"),
    ({"as_operator": "torch.ops.aten.relu.default"}, "as_operator: Extra inputs"),
    ({"as_custom_obj": {"name": "x", "class_fqn": "x"}}, "as_custom_obj: Extra inputs"),
    ({"as_complex": {"real": 1, "imag": 1}}, "as_complex: Extra inputs"),
    ({"as_device": {"type": "cpu", "index": None}}, "as_device: Extra inputs"),
    ({"as_tensors": [{"name": "input"}]}, "as_tensors: Extra inputs"),
    ({"as_ints": [1, 1], "as_none": True}, "exactly one kind"),
    ({"as_ints": None}, "exactly one kind"),
    ({}, "exactly one kind"),
    ({"as_none": False}, "as_none"),
    ({"as_ints": [1, -1]}, "as_ints.1: Input should be greater than or equal to 0"),
    ({"as_ints": [1, 2**63]}, "as_ints.1: Input should be less than or equal to 65536"),
    ({"as_ints": [1, True]}, "as_ints.1: Input should be a valid integer"),
    ({"as_ints": [1, 1.0]}, "as_ints.1: Input should be a valid integer"),
    ({"as_ints": ["1", 1]}, "as_ints.0: Input should be a valid integer"),
    ({"as_ints": [1, 1, 1]}, "at most 2"),
    ({"as_ints": [1]}, "has 1 numbers, not 2"),
    ({"as_ints": [0, 1]}, "at least 1"),
    ({"as_ints": [40, 40]}, "the shape of 'conv2d' is"),
    ({"as_int": 1}, "argument stride of kind int"),
    ({"as_float": 1.0}, "argument stride of kind float"),
    ({"as_float": float("nan")}, "as_float: Input should be a finite number"),
    ({"as_float": float("inf")}, "as_float: Input should be a finite number"),
    ({"as_bool": True}, "argument stride of kind bool"),
    ({"as_none": True}, "argument stride of kind none"),
    (IMAGES, "argument stride of kind result"),
]


@pytest.mark.parametrize(("value", "reason"), ARGUMENTS)
def test_argument_of_another_kind_is_refused(value: object, reason: str) -> None:
    check_refused(change_graph(make_archive("cnn"), f"{CONVOLUTION}/inputs/3/arg", value), reason)


OPERATORS = [
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.sin.default",
    "torch.ops.aten.conv2d.padding",
    "torch.ops.aten.conv2d",
    "torch.ops.higher_order.cond",
    "torch.load",
    "builtins.eval",
    "_operator.getitem",
    "",
    "x\ny",
]


@pytest.mark.parametrize("target", OPERATORS)
def test_operator_that_is_not_listed_is_refused(target: str) -> None:
    check_refused(change_graph(make_archive("cnn"), f"{CONVOLUTION}/target", target), "is not an operator of our")


SPEC = {"arg": {"name": "b_2_value"}}
GRAPHS: list[tuple[str, object, str]] = [
    ("guards_code", ["True"], "guards_code"),
    ("guards_code", None, "guards_code"),
    ("range_constraints", {}, "range_constraints"),
    ("range_constraints", {"s0": {"min_val": 2, "max_val": None}}, "the batch, which is 's0'"),
    ("range_constraints", {"s31+1": {"min_val": 2, "max_val": None}}, "range_constraints"),
    ("range_constraints/s31", {"min_val": "2", "max_val": None}, "min_val"),
    ("range_constraints/s32", {"min_val": 2, "max_val": None}, "range_constraints"),
    ("opset_version", {"aten": 11}, "opset_version"),
    ("opset_version", {"aten": 10, "own": 1}, "opset_version.own"),
    ("schema_version", {"major": 9, "minor": 0}, "schema_version"),
    ("verifiers", ["OTHER"], "verifiers"),
    ("verifiers", ["TRAINING"] * 9000, "verifiers: List should have at most 1 item"),
    (f"{GRAPH}/nodes", [{}] * 9000, "nodes.0.target"),
    (SPECS, [{"user_input": {"arg": IMAGES}}] * 9000, "input_specs: List should have at most 8192 items"),
    ("torch_version", "2.15\n", "torch_version"),
    ("another_key", 1, "another_key: Extra inputs"),
    (f"{GRAPH}/sym_int_values", {"s31": {"as_int": 2}}, "sym_int_values"),
    (f"{GRAPH}/sym_bool_values", {"b": {"as_bool": True}}, "sym_bool_values"),
    (f"{GRAPH}/sym_float_values", {"f": {"as_float": 1.0}}, "sym_float_values"),
    (f"{GRAPH}/custom_obj_values", {"x": {"name": "x", "class_fqn": "x"}}, "custom_obj_values"),
    (f"{GRAPH}/is_single_tensor_return", True, "is_single_tensor_return"),
    ("graph_module/metadata", {"custom": "{}"}, "metadata"),
    ("graph_module/treespec_namedtuple_fields", {"x": {"field_names": []}}, "treespec_namedtuple_fields"),
    ("graph_module/module_call_graph", [], "module_call_graph"),
    ("graph_module/module_call_graph/0/fqn", "0", "fqn"),
    ("graph_module/module_call_graph/0/signature/in_spec", "[1, {}]", "in_spec"),
    ("graph_module/module_call_graph/0/signature/forward_arg_names", ["a", "b"], "forward_arg_names"),
    # sizes
    (f"{VALUES}/input/sizes/0", {"as_int": 2}, "the shape of 'sub' is (2, 1, 28, 28)"),
    (f"{VALUES}/input/sizes/0/as_expr/expr_str", "Symbol('s32', positive=True, integer=True)", "or the batch"),
    (f"{VALUES}/input/sizes/0/as_expr/expr_str", "2*Symbol('s31', positive=True, integer=True)", "expr_str"),
    (f"{VALUES}/input/sizes/0/as_expr/expr_str", "open('x')", "expr_str"),
    (f"{VALUES}/input/sizes/0/as_expr/hint", {"as_float": 2.0}, "hint"),
    (f"{VALUES}/input/sizes/1", {"as_int": 2}, "is not contiguous"),
    (f"{VALUES}/input/sizes/1", {"as_int": 0}, "sizes"),
    (f"{VALUES}/p_1_0_weight/sizes/0", {"as_int": 32}, "described in two ways"),
    (f"{VALUES}/conv2d/sizes/1", {"as_int": 2**40}, "sizes"),
    (f"{VALUES}/flatten/sizes", [{"as_int": 864}], "is not contiguous"),
    # other properties of tensors
    (f"{VALUES}/input/dtype", 8, "dtype"),
    (f"{VALUES}/input/dtype", 5, "is not float32"),
    (f"{VALUES}/conv2d/dtype", 5, "is not float32"),
    (f"{VALUES}/conv2d/strides/1", {"as_int": 1}, "is not contiguous"),
    (f"{VALUES}/conv2d/storage_offset", {"as_int": 1}, "storage_offset"),
    (f"{VALUES}/conv2d/layout", 1, "layout"),
    (f"{VALUES}/conv2d/device/type", "cuda", "device.type"),
    (f"{VALUES}/conv2d/device/index", 0, "device.index"),
    (f"{VALUES}/unused", {}, "tensor_values.unused"),
    # inputs and output
    (f"{SPECS}/0", {"buffer": SPEC | {"buffer_name": "x", "persistent": True}}, "described in two ways"),
    (f"{SPECS}/0", {"tensor_constant": SPEC | {"tensor_constant_name": "x"}}, "tensor_constant: Extra inputs"),
    (f"{SPECS}/0", {"custom_obj": SPEC | {"custom_obj_name": "x"}}, "custom_obj: Extra inputs"),
    (f"{SPECS}/0", {"token": SPEC}, "token: Extra inputs"),
    (SPECS, [{"user_input": {"arg": IMAGES}}], "it is no input of the graph"),
    (f"{SPECS}/0/parameter/parameter_name", "1.0..weight", "parameter_name"),
    (f"{SPECS}/0/parameter/parameter_name", "1.0.weight\n", "parameter_name"),
    (f"{SPECS}/0/parameter/parameter_name", "1.1.weight", "described in two ways"),
    (f"{SPECS}/11/buffer/persistent", False, "persistent"),
    (f"{SPECS}/22", {"user_input": {"arg": IMAGES}}, "it is no input of the graph"),
    (f"{SPECS}/23/user_input/arg", {"as_int": 1}, "user_input.arg"),
    (f"{GRAPH}/inputs", [IMAGES], "the inputs of the graph are described in two ways"),
    (f"{GRAPH}/inputs/0", {"as_custom_obj": {"name": "x"}}, "inputs.0"),
    (f"{GRAPH}/outputs", [], "outputs"),
    (f"{GRAPH}/outputs/0/as_tensor/name", "linear", "the output is not the result"),
    ("graph_module/signature/output_specs", [], "output_specs"),
    ("graph_module/signature/output_specs/0", {"buffer_mutation": SPEC | {"buffer_name": "x"}}, "output_specs.0"),
    ("graph_module/signature/output_specs/0", {"loss_output": {"arg": {"name": "div_1"}}}, "output_specs.0"),
    # nodes
    (f"{GRAPH}/nodes", [], "not every tensor is a weight, the input or a result"),
    (f"{SUB}/metadata", {"stack_trace": "x"}, "metadata"),
    (f"{SUB}/is_hop_single_tensor_return", True, "is_hop_single_tensor_return"),
    (f"{SUB}/inputs/1/kind", 2, "kind"),
    (f"{SUB}/inputs/1/name", "alpha", "argument alpha"),
    (f"{SUB}/inputs", [], "has 0 arguments"),
    (f"{SUB}/inputs/1/arg/as_tensor/name", "div", "argument other of kind undefined"),
    (f"{SUB}/inputs/1/arg/as_tensor/name", "nobody", "argument other of kind undefined"),
    (f"{SUB}/inputs/1/arg/as_tensor/name", "b_1_1_num_batches_tracked", "argument other of kind int64 weight"),
    (f"{SUB}/inputs/1/arg", PARAMETER, "do not fit"),
    (f"{SUB}/inputs/0/arg", PARAMETER, "argument self of kind weight"),
    (f"{SUB}/outputs", [], "outputs"),
    (f"{SUB}/outputs/0/as_tensor/name", "div", "the result 'div' is there twice"),
    (f"{SUB}/name", "div", "the result 'sub' is there twice"),
    (f"{CONVOLUTION}/inputs/1/arg", IMAGES, "argument weight of kind result"),
    (f"{CONVOLUTION}/inputs/2/arg", {"as_tensor": {"name": "p_1_5_bias"}}, "a bias of shape (32,)"),
    (f"{BATCH_NORM}/inputs/5/arg", {"as_bool": True}, "it trains while it is used"),
    (f"{BATCH_NORM}/inputs/7/arg", {"as_float": -1.0}, "as_float"),
    (f"{BATCH_NORM}/inputs/3/arg", {"as_tensor": {"name": "b_1_5_running_mean"}}, "does not fit 16 channels"),
    (f"{FLATTEN}/inputs/1/arg", {"as_int": 0}, "from dimension 0 on"),
    (f"{LINEAR}/inputs/0/arg", {"as_tensor": {"name": "relu__2"}}, "numbers, not 2"),
]


@pytest.mark.parametrize(("path", "value", "reason"), GRAPHS)
def test_graph_of_another_kind_is_refused(path: str, value: object, reason: str) -> None:
    check_refused(change_graph(make_archive("cnn"), path, value), reason)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(784, 10)),
        nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(784, 10)),  # flatten returns the same memory
    ],
)
def test_network_that_changes_its_images_is_refused(network: nn.Module) -> None:
    check_refused(export_archive(network), "which is not its alone")


def test_network_that_changes_a_result_for_others_is_refused() -> None:
    nodes = read_graph(make_archive("resnet"))["graph_module"]["graph"]["nodes"]
    index = next(i for i, node in enumerate(nodes) if node["name"] == "add")
    path = f"{GRAPH}/nodes/{index}/inputs/1/arg/as_tensor/name"
    check_refused(change_graph(make_archive("resnet"), path, "batch_norm_3"), "changes 'batch_norm_3'")


def test_network_for_other_outputs_is_refused() -> None:
    check_refused(export_archive(nn.Sequential(nn.Conv2d(1, 3, 3))), "the output has the shape")
