"""Where a training comes from: code, environment, invocation. Knows nothing of MLflow."""

import getpass
import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import secrets, without_credentials

if TYPE_CHECKING:
    import torch

PATCH_LIMIT = 1_000_000  # bytes
# Files that are left out of a patch: by their names they may hold secrets.
SECRETS = (
    ".env*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_*",
    ".netrc",
    ".pypirc",
    "*secret*",
    "*credential*",
    "*token*",
)


def code(root: Path) -> tuple[dict[str, str], bytes]:
    """Return what Git says of the code in ``root``, and the patch that leads from the commit to it, empty if clean.

    Keys: ``commit``, ``branch``, ``remote`` (without credentials), ``dirty`` ("true" or "false"), ``patch`` (in words:
    how complete the patch is). Where there is no repository, only ``commit``: what the environment variable
    CODE_COMMIT says, as it does in an image, or that it is unknown. The patch has changed,
    deleted and untracked files, but none that Git ignores or whose name matches `SECRETS`. Nothing is written into
    the repository.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        top = Path(_git(root, "rev-parse", "--show-toplevel").decode().strip())
    except FileNotFoundError:
        return {"commit": os.environ.get("CODE_COMMIT") or "unknown: git is not installed"}, b""
    except subprocess.CalledProcessError:
        return {"commit": os.environ.get("CODE_COMMIT") or "unknown: not in a Git repository"}, b""
    about = {"commit": commit, "branch": _git(root, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()}
    remote = _git(root, "config", "--default", "", "--get", "remote.origin.url").decode().strip()
    about["remote"] = without_credentials(remote) or "none"
    changed = _git(top, "status", "--porcelain", "-z").decode(errors="replace").split("\0")
    about["dirty"] = str(bool([name for name in changed if name])).lower()
    if about["dirty"] == "false":
        return about | {"patch": "not needed"}, b""
    patch, left_out = _patch(top)
    about["patch"] = "complete" if not left_out else f"without {left_out} files whose names look like secrets"
    if known := [name for name, value in secrets().items() if value.encode() in patch]:
        return about | {"patch": f"left out: it holds the value of {', '.join(known)}"}, b""
    if len(patch) > PATCH_LIMIT:
        return about | {"patch": f"left out: {len(patch):,} bytes are more than {PATCH_LIMIT:,}"}, b""
    return about | {"patch_sha256": hashlib.sha256(patch).hexdigest()}, patch


def _patch(top: Path) -> tuple[bytes, int]:
    """Return the patch from the commit to the files, and how many it leaves out; index and objects lie elsewhere."""
    objects = _git(top, "rev-parse", "--path-format=absolute", "--git-path", "objects").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        aside = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        secret = [f":(exclude,icase,glob)**/{name}" for name in SECRETS]
        _git(top, "read-tree", "HEAD", env=aside)
        _git(top, "add", "--all", "--", ".", *secret, env=aside)
        patch = _git(top, "diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "HEAD", env=aside)
        remaining = _git(top, "status", "--porcelain", "-z", "--untracked-files=all", env=aside).split(b"\0")
    # What `git add` took is staged, and a blank in the second place; what it left out is not.
    return patch, sum(1 for entry in remaining if entry[1:2] not in (b"", b" "))


def _git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, env=os.environ | dict(env or {}))  # noqa: S603
    return done.stdout


def environment(device: "torch.device") -> dict[str, str]:
    """Return what the figures depend on besides code and data: Python, system, hardware, threads, determinism."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu(),
        "cores": str(os.cpu_count()),
        "gpu": gpu,
        "threads": str(torch.get_num_threads()),
        "deterministic_algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "cudnn_deterministic": str(torch.backends.cudnn.deterministic),
        "packages_sha256": hashlib.sha256(packages().encode()).hexdigest(),
    }


def here() -> dict[str, str | None]:
    """Return user (the account, or who started the GitHub Actions job), host and the job's address or None."""
    try:
        user = os.environ.get("GITHUB_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        user = f"uid {os.getuid()}"
    parts = [os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    url = "{}/{}/actions/runs/{}".format(*parts) if all(parts) else None
    return {"user": user, "host": socket.gethostname(), "job_url": url}


def tags(code: Mapping[str, str], device: "torch.device", report: Path | None = None) -> dict[str, str | None]:
    """Return the tags of a run that say where it comes from; ``report`` is that of the cleaning of its data."""
    command = {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}
    groups = {"code": code, "environment": environment(device), "invocation": command | here()}
    if report:
        groups["data"] = {"cleaning_report_sha256": hashlib.sha256(report.read_bytes()).hexdigest()}
    return {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}


def write(folder: Path, patch: bytes, report: Path | None = None) -> None:
    """Write what is too long for a tag into ``folder``: ``packages.txt``, and patch and cleaning report, if any."""
    (folder / "packages.txt").write_text(packages(), encoding="utf-8")
    if patch:
        (folder / "source.patch").write_bytes(patch)
    if report:
        (folder / report.name).write_bytes(report.read_bytes())


@cache
def packages() -> str:
    """Return the installed packages with their versions, a line each, as ``pip freeze`` does but without addresses."""
    found = {(each.metadata["Name"], each.version) for each in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found, key=lambda each: each[0].lower()))


def cpu() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def weights_sha256(state: Mapping[str, "torch.Tensor"]) -> str:
    """Return the SHA-256, in hexadecimal, of a model's state: names, types, shapes and values, in the names' order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
