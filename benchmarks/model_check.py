"""Measure what reading a model file costs: the check, building the network, and torch.export.load beside them.

Every figure is of this process, on the CPU, in milliseconds; the first calls, with what they import, stand apart.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, for the pipeline

from overheads import run_in_new_process
from pipeline import cli


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--repeat", type=cli.bounded_number(int, 1), default=20, help="repetitions (default: 20)")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Measure every network, print its figures and their JSON."""
    options = parse_options(argv)
    archives = run_in_new_process(write_archives)  # this process imports torch.export when it is measured

    import torch

    from pipeline.provenance.record import cpu_name
    from pipeline.pt2.archive import read_archive
    from pipeline.pt2.network import build_network

    def check_and_build(content: bytes) -> object:
        return build_network(read_archive(content, "the benchmark"))

    def load_with_torch(content: bytes) -> object:
        return torch.export.load(io.BytesIO(content)).module()

    smallest = min(archives.values(), key=len)
    first_calls = {
        "check_and_build": measure(check_and_build, smallest, 1)["median"],
        "torch_export_load": measure(load_with_torch, smallest, 1)["median"],
    }
    networks = {}
    for name, content in archives.items():
        program = read_archive(content, "the benchmark")
        figures = {
            "read_archive": measure(lambda content: read_archive(content, "the benchmark"), content, options.repeat),
            "build_network": measure(build_network, program, options.repeat),
            "torch_export_load": measure(load_with_torch, content, options.repeat),
        }
        networks[name] = {"bytes": len(content), **figures}
        for what, figure in figures.items():
            cli.log(f"{name} {what}: {figure['median']} ms ({figure['min']} to {figure['max']})")
    result = {"cpu": cpu_name(), "cores": os.cpu_count(), "repeat": options.repeat}
    cli.print_json({**result, "first_calls_ms": first_calls, "networks_ms": networks})
    return cli.OK


def measure(function: Callable[[Any], object], argument: object, repeat: int) -> dict[str, float]:
    """Return median, least and most milliseconds of a call."""
    milliseconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function(argument)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return {
        "median": round(statistics.median(milliseconds), 2),
        "min": round(min(milliseconds), 2),
        "max": round(max(milliseconds), 2),
    }


def write_archives() -> dict[str, bytes]:
    """Return an archive of each network, with fresh weights."""
    import torch

    from pipeline.data.forms import MNIST_FORM
    from pipeline.tracking.manifest import MODEL_FILE
    from pipeline.tracking.models import save_model
    from pipeline.training.config import MODELS
    from pipeline.training.models import build_model

    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    archives = {}
    for name in MODELS:
        network = build_model(name, 10, images).eval()
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory, name)
            save_model(network, images.float(), tuple("0123456789"), MNIST_FORM, folder)
            archives[name] = (folder / MODEL_FILE).read_bytes()
    return archives


if __name__ == "__main__":
    sys.exit(main())
