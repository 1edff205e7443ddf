"""Honest ``.pt2`` archives of the networks, taken apart and put together changed."""

import io
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from pipeline.pt2.archive import GRAPH_RECORD, WEIGHTS_RECORD
from pipeline.pt2.export import rewrite_archive
from pipeline.pt2.records import pack_records, unpack_records
from pipeline.training.models import build_model


@cache
def make_network(name: str, shape: tuple[int, int, int] = (1, 28, 28)) -> nn.Module:
    """Return a network as after a training: its batch norms have seen images."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (64 if shape[1] < 100 else 8, *shape), dtype=torch.uint8)
    network = build_model(name, 10, images)
    with torch.no_grad():
        network(images.float())
    return network.eval()


@cache
def make_archive(name: str, shape: tuple[int, int, int] = (1, 28, 28)) -> bytes:
    """Return the archive of `make_network`."""
    return export_archive(make_network(name, shape), shape)


def export_archive(network: nn.Module, shape: tuple[int, int, int] = (1, 28, 28)) -> bytes:
    """Return the archive that `save_model` writes for a network, without MLflow."""
    examples = torch.zeros(2, *shape)
    exported = torch.export.export(network, (examples,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return rewrite_archive(buffer.getvalue())


def load_with_torch(content: bytes) -> nn.Module:
    """Return the module that PyTorch makes of an archive, which has to be an honest one."""
    return torch.export.load(io.BytesIO(content)).module()


# --- changes --------------------------------------------------------------------------------------------------------


def change_records(content: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return the archive with changed records, as well formed as before."""
    records = unpack_records(content)
    change(records)
    return pack_records(records)


def change_text(content: bytes, record: str, old: str, new: str) -> bytes:
    """Return the archive with another text in a record, which has to be there once."""
    records = unpack_records(content)
    text = records[record].decode()
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is there {text.count(old)} times")
    records[record] = text.replace(old, new).encode()
    return pack_records(records)


def change_graph(content: bytes, path: str, value: object) -> bytes:
    """Return the archive with another value at a path of the graph, such as ``guards_code/0``."""
    return change_records(content, lambda records: _change_json(records, GRAPH_RECORD, path, value))


def change_weights(content: bytes, path: str, value: object) -> bytes:
    """Return the archive with another value at a path of the weights' configuration."""
    return change_records(content, lambda records: _change_json(records, WEIGHTS_RECORD, path, value))


def read_graph(content: bytes) -> Any:
    """Return the graph of an archive."""
    return json.loads(unpack_records(content)[GRAPH_RECORD])


def _change_json(records: dict[str, bytes], record: str, path: str, value: object) -> None:
    document = json.loads(records[record])
    *parents, last = path.split("/")
    place = document
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
    records[record] = json.dumps(document).encode()
