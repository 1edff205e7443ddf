"""What a run records of its origin: code, environment, command, user and machine. Knows nothing of MLflow."""

import hashlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import torch

from pipeline.context import describe_context
from pipeline.data.prepared import read_cleaning_report
from pipeline.provenance.source import CodeState

PROVENANCE_FOLDER = "provenance"  # of a run's artifacts
PACKAGES_FILE = "packages.txt"
PATCH_FILE = "source.patch"


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return what a result depends on besides code and data: Python, system, hardware, threads, determinism."""
    is_cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "gpu": torch.cuda.get_device_name(device) if is_cuda else "none",
        "threads": str(torch.get_num_threads()),
        "deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "cudnn_deterministic": str(torch.backends.cudnn.deterministic),
        "packages_sha256": hashlib.sha256(list_packages().encode()).hexdigest(),
    }


def build_run_tags(
    code: CodeState, device: torch.device, command: str, cleaning_report: Path | None = None
) -> dict[str, str | None]:
    """Return the tags of a run that say where it comes from.

    Their names start with ``code.``, ``environment.``, ``invocation.`` and ``data.``. A value is None if it is unknown.

    Parameters
    ----------
    code
        The state of the code when the process started.
    device
        Where the training computes.
    command
        The command line, as a person would type it.
    cleaning_report
        What prepare_data.py wrote about the data, if they are one's own.
    """
    tags: dict[str, str | None] = {}
    for name, value in code.tags.items():
        tags[f"code.{name}"] = value
    for name, value in describe_environment(device).items():
        tags[f"environment.{name}"] = value
    tags["invocation.command"] = command
    for name, fact in describe_context().items():
        tags[f"invocation.{name}"] = fact
    if cleaning_report:
        tags["data.cleaning_report_sha256"] = hashlib.sha256(read_cleaning_report(cleaning_report)).hexdigest()
    return tags


def write_provenance(folder: Path, patch: bytes, cleaning_report: Path | None = None) -> None:
    """Write what is too long for a tag into ``folder``: the packages, and patch and cleaning report if there are any.

    The patch is that of `CodeState`; it may be empty.
    """
    (folder / PACKAGES_FILE).write_text(list_packages(), encoding="utf-8")
    if patch:
        (folder / PATCH_FILE).write_bytes(patch)
    if cleaning_report:
        (folder / cleaning_report.name).write_bytes(read_cleaning_report(cleaning_report))


@cache
def list_packages() -> str:
    """Return the installed packages, a line ``name==version`` for each, sorted by name.

    `pip freeze` also prints the addresses of packages, which may hold credentials.
    """
    packages = {(package.metadata["Name"], package.version) for package in distributions()}
    lines = []
    for name, version in sorted(packages, key=lambda package: package[0].lower()):
        lines.append(f"{name}=={version}\n")
    return "".join(lines)


def cpu_name() -> str:
    """Return the model name of the processor; its architecture if the system does not know more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def compute_weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of a model's state dict: names, types, shapes and values, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
