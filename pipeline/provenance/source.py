"""The state of the source code, as Git knows it: the commit, and the patch that leads from it to the files."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.redact import redact, secret_values

MAX_PATCH_BYTES = 1_000_000
# A file is left out of the patch if its name fits one of these: it may hold secrets.
SECRET_FILE_PATTERNS = (
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


@dataclass(frozen=True)
class CodeState:
    """The code that runs.

    Attributes
    ----------
    tags : ``commit``, ``branch``, ``remote`` (without credentials), ``dirty`` ("true" or "false"), ``patch`` (a text
        that says how complete the patch is) and ``patch_sha256`` (if there is a patch). Only ``commit`` if Git does
        not know the code.
    patch : leads from the commit to the files, in Git's format; empty if they are equal or the patch was left out.
    """

    tags: dict[str, str]
    patch: bytes


def describe_code(root: Path) -> CodeState:
    """Return the state of the code in ``root``. Nothing is written into the repository.

    The patch has changed, deleted and untracked files. It has no file that Git ignores, and none whose name fits
    `SECRET_FILE_PATTERNS`. Without a repository, as in an image, the environment variable CODE_COMMIT names the commit.
    """
    try:
        commit = _read_git(root, "rev-parse", "HEAD")
        top = Path(_read_git(root, "rev-parse", "--show-toplevel"))
    except FileNotFoundError:
        return _describe_without_git("unknown: git is not installed")
    except subprocess.CalledProcessError:
        return _describe_without_git("unknown: not in a Git repository")
    remote = _read_git(root, "config", "--default", "", "--get", "remote.origin.url")
    tags = {
        "commit": commit,
        "branch": _read_git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        "remote": redact(remote) or "none",
    }
    is_dirty = bool(_run_git(top, "status", "--porcelain"))
    if not is_dirty:
        return CodeState(tags | {"dirty": "false", "patch": "not needed"}, b"")
    tags["dirty"] = "true"
    patch, omitted_files = _create_patch(top)
    problem = _find_problem(patch)
    if problem:
        return CodeState(tags | {"patch": f"left out: {problem}"}, b"")
    tags["patch"] = f"without {omitted_files} files whose names look like secrets" if omitted_files else "complete"
    tags["patch_sha256"] = hashlib.sha256(patch).hexdigest()
    return CodeState(tags, patch)


def _describe_without_git(reason: str) -> CodeState:
    return CodeState({"commit": os.environ.get("CODE_COMMIT") or reason}, b"")


def _find_problem(patch: bytes) -> str | None:
    """Return why the patch must not be kept, or None."""
    names = [name for name, value in secret_values().items() if value.encode() in patch]
    if names:
        return f"it holds the value of {', '.join(names)}"
    if len(patch) > MAX_PATCH_BYTES:
        return f"{len(patch):,} bytes are more than {MAX_PATCH_BYTES:,}"
    return None


def _create_patch(top: Path) -> tuple[bytes, int]:
    """Return the patch from the commit to the files, and the number of files that it leaves out."""
    objects = _read_git(top, "rev-parse", "--path-format=absolute", "--git-path", "objects")
    excluded = [f":(exclude,icase,glob)**/{pattern}" for pattern in SECRET_FILE_PATTERNS]
    with tempfile.TemporaryDirectory() as folder:
        # Git writes its index and new objects here, not into the repository.
        env = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        _run_git(top, "read-tree", "HEAD", env=env)
        _run_git(top, "add", "--all", "--", ".", *excluded, env=env)
        patch = _run_git(top, "diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "HEAD", env=env)
        status = _run_git(top, "status", "--porcelain", "-z", "--untracked-files=all", env=env)
    return patch, _count_unstaged(status)


def _count_unstaged(status: bytes) -> int:
    """Return the number of entries that `git add` did not stage: the second letter of their status is not blank."""
    count = 0
    for entry in status.split(b"\0"):
        if entry[1:2] not in (b"", b" "):
            count += 1
    return count


def _read_git(folder: Path, *arguments: str) -> str:
    return _run_git(folder, *arguments).decode().strip()


def _run_git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    environment = os.environ | dict(env or {})
    done = subprocess.run(command, capture_output=True, check=True, env=environment)  # noqa: S603
    return done.stdout
