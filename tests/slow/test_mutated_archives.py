"""Mutations of honest archives: each is refused with a UserError, or the network answers; nothing else happens."""

import copy
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.pt2.archive import GRAPH_RECORD, WEIGHTS_RECORD, read_archive
from pipeline.pt2.network import build_network
from pipeline.pt2.operators import OPERATORS
from pipeline.pt2.records import pack_records, unpack_records
from pipeline.training.config import MODELS
from support.archives import make_archive
from support.mutations import Place, list_places

IMAGES = torch.randint(0, 256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()
NUMBER = st.integers(0, 2**32)  # modulo a length, it is a place

mutations = settings(
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


# --- what Python does meanwhile -------------------------------------------------------------------------------------

_events: list[str] | None = None


def _record_event(event: str, arguments: tuple[object, ...]) -> None:
    if _events is not None:
        _events.append(f"{event} {arguments!r:.200}")


@cache
def install_hook() -> None:
    """Let Python report what it does, until the process ends."""
    sys.addaudithook(_record_event)


@contextmanager
def record_events() -> Iterator[list[str]]:
    """Yield a list of what Python does: executes, compiles, imports, opens, starts, connects to."""
    global _events
    install_hook()
    events: list[str] = []
    _events = events
    try:
        yield events
    finally:
        _events = None


def compute_answers(content: bytes) -> torch.Tensor | None:
    """Return the logits of the network in an archive, or None if it is refused; nothing else may happen."""
    with record_events() as events:
        try:
            program = read_archive(content, "here")
            network = build_network(program)
            with torch.inference_mode():
                answers: torch.Tensor | None = network(IMAGES)
        except UserError as error:
            message = str(error)
            answers = None
    assert not events
    if answers is None:
        assert message.startswith("here is refused, because ")
        assert message.isprintable()
        return None
    assert answers.dtype == torch.float32
    assert answers.shape == (3, program.classes)
    return answers


@pytest.fixture(scope="module", autouse=True)
def warm_up() -> None:
    """Let Python import what it imports at the first network and at the first error."""
    for name in MODELS:
        network = build_network(read_archive(make_archive(name), "here"))
        with torch.inference_mode():
            network(IMAGES)
    with pytest.raises(UserError):
        read_archive(b"", "here")


@pytest.mark.parametrize("name", MODELS)
def test_honest_archive_is_answered(name: str) -> None:
    assert compute_answers(make_archive(name)) is not None


@pytest.mark.parametrize("action", [lambda: compile("1", "x", "eval"), Path(__file__).read_bytes])
def test_hook_sees_what_python_does(action: Callable[[], object]) -> None:
    with record_events() as events:
        action()
    assert events


# --- bytes ----------------------------------------------------------------------------------------------------------


def flip(content: bytes, start: int, length: int, other: int) -> bytes:
    changed = bytearray(content)
    changed[start] ^= 1 << other % 8
    return bytes(changed)


def cut(content: bytes, start: int, length: int, other: int) -> bytes:
    return content[:start] + content[start + length :]


def insert(content: bytes, start: int, length: int, other: int) -> bytes:
    return content[:start] + content[other : other + length] + content[start:]


def double(content: bytes, start: int, length: int, other: int) -> bytes:
    return content[: start + length] + content[start:]


def swap(content: bytes, start: int, length: int, other: int) -> bytes:
    first, second = sorted((start, other))
    middle = min(first + length, second)
    end = second + middle - first
    return content[:first] + content[second:end] + content[middle:second] + content[first:middle] + content[end:]


CHANGES = (flip, cut, insert, double, swap)
byte_changes = st.tuples(st.sampled_from(CHANGES), NUMBER, st.integers(0, 3000), NUMBER, st.booleans())


@pytest.mark.parametrize("name", MODELS)
@given(changes=st.lists(byte_changes, min_size=1, max_size=3))
@settings(mutations, max_examples=110)
def test_changed_bytes_are_refused_or_answer_equally(name: str, changes: list[Any]) -> None:
    content = make_archive(name)
    for change, start, length, other, near_the_end in changes:
        size = len(content) or 1
        span = min(size, 6000) if near_the_end else size  # the directory and the small records
        content = change(content, size - span + start % span, length, size - span + other % span)
    answers = compute_answers(content)
    if answers is not None:
        assert torch.equal(answers, honest_answers(name))


@cache
def honest_answers(name: str) -> torch.Tensor:
    answers = compute_answers(make_archive(name))
    assert answers is not None
    return answers


@pytest.mark.parametrize("record", [GRAPH_RECORD, WEIGHTS_RECORD])
@given(changes=st.lists(byte_changes, min_size=1, max_size=2))
@settings(mutations, max_examples=150)
def test_changed_text_is_refused_or_answers(record: str, changes: list[Any]) -> None:
    records = unpack_records(make_archive("cnn"))
    text = records[record]
    for change, start, length, other, short in changes:
        size = len(text) or 1
        text = change(text, start % size, length % 5 if short else length, other % size)
    records[record] = text
    compute_answers(pack_records(records))


# --- structure ------------------------------------------------------------------------------------------------------

HOSTILE_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    2**16,
    2**31,
    2**63,
    2**64,
    10**300,
    -0.0,
    0.5,
    1e308,
    math.nan,
    math.inf,
    "",
    "0",
    "input",
    "../x",
    "x\0y",
    "\ud800",
    "x" * 1000,
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.add.Tensor",
    "torch.ops.aten.relu_.default",
    "torch.ops.higher_order.cond",
    "builtins.eval",
    "Symbol('s0', positive=True, integer=True)",
    "forward",
    "_parameters",
    "1.__class__",
    [],
    [1],
    [[[[[[[[]]]]]]]],
    {},
    {"as_string": "x"},
    {"as_operator": "torch.ops.aten.relu.default"},
    {"as_graph": {"name": "x", "graph": {}}},
    {"as_custom_obj": {"name": "x", "class_fqn": "x"}},
    {"as_expr": {"expr_str": "x", "hint": None}},
    {"as_tensor": {"name": "input"}},
    {"as_none": True},
    {"as_int": 0},
    {"as_ints": [0, 0]},
    {"as_ints": [60000, 60000]},
]


def delete(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    del holder[key]


def replace(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    holder[key] = copy.deepcopy(hostile)


def duplicate(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    value = copy.deepcopy(holder[key])
    if isinstance(holder, list):
        holder.insert(key, value)
    else:
        holder[str(hostile)] = value


def exchange(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    other_holder, other_key = places[number % len(places)]
    value = copy.deepcopy(holder[key])
    holder[key] = copy.deepcopy(other_holder[other_key])
    other_holder[other_key] = value


def exchange_alike(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    """Exchange two values of one name, such as the names of two tensors: the records often remain well formed."""
    alike = [place for place in places if place[1] == key]
    exchange(holder, key, alike, number, hostile)


def step(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    """Change a number a little."""
    numbers = [place for place in places if isinstance(place[0][place[1]], int)]
    number_holder, number_key = numbers[number % len(numbers)]
    number_holder[number_key] += number % 5 - 2


def rename(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    if isinstance(holder, dict):
        holder[str(hostile)] = holder.pop(key)


def retarget(holder: Any, key: Any, places: list[Place], number: int, hostile: Any) -> None:
    """Let a node call another of our operators."""
    targets = [place for place in places if place[1] == "target"]
    if targets:
        node, _ = targets[number % len(targets)]
        node["target"] = list(OPERATORS)[number % len(OPERATORS)]


json_changes = st.tuples(
    st.sampled_from((delete, replace, duplicate, exchange, exchange_alike, exchange_alike, step, rename, retarget)),
    st.sampled_from((GRAPH_RECORD, GRAPH_RECORD, WEIGHTS_RECORD)),
    NUMBER,
    NUMBER,
    st.sampled_from(HOSTILE_VALUES),
)


@pytest.mark.parametrize("name", MODELS)
@given(changes=st.lists(json_changes, min_size=1, max_size=2))
@settings(mutations, max_examples=130)
def test_changed_structure_is_refused_or_answers(name: str, changes: list[Any]) -> None:
    records = unpack_records(make_archive(name))
    for change, record, first, second, hostile in changes:
        document = json.loads(records[record])
        places = list_places(document)
        if places:
            holder, key = places[first % len(places)]
            change(holder, key, places, second, hostile)
        records[record] = json.dumps(document).encode()
    compute_answers(pack_records(records))
