"""The state of the source code, as Git knows it: the commit, and the patch that leads from it to the files."""

import hashlib
import logging
import os
import stat
import subprocess
import tempfile
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pipeline.documents import describe_error
from pipeline.provenance.declared_commit import find_branch, find_declared_commit
from pipeline.provenance.git import Repository, open_repository
from pipeline.provenance.patch_scan import find_secret
from pipeline.redact import redact, redact_address
from pipeline.text import printable

logger = logging.getLogger(__name__)

MAX_PATCH_BYTES = 1_000_000
MAX_MESSAGE_LENGTH = 300  # characters, of Git's message
NO_COMMIT = "Needed a single revision"  # what Git says if HEAD leads to none
NO_REPOSITORY = "not a git repository (or any"  # what Git says if neither the folder nor one above it is in one
# An untracked file is code if its name fits one of these, in lower case. No other untracked file makes a tree dirty.
CODE_PATTERNS = (
    *("*.py", "*.pyi", "*.ipynb", "*.toml", "*.cfg", "*.ini", "*.yml", "*.yaml", "*.txt", "*.md", "*.sh"),
    *("makefile", "*.mk", "dockerfile", "dockerfile.*", "*.dockerfile", "mlproject", ".gitignore", ".gitattributes"),
    *(".dockerignore", ".editorconfig", "requirements*.lock"),
)
# A file is left out of the patch if its name fits one of these, in lower case: it may hold secrets.
SECRET_FILE_PATTERNS = (
    *(".env", ".env.*", "*.env", "*.pem", "*.key", "*.ppk", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", ".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass", ".my.cnf"),
    *(".htpasswd", ".git-credentials", "*secret*", "*credential*", "*token*", "*password*"),
)
NO_SECRET_FILE_PATTERNS = ("*.py", "*.example")  # whose content is searched, as everything is
DIFF_OPTIONS = (
    *("--patch", "--binary", "--full-index", "--unified=3", "--inter-hunk-context=0", "--ignore-submodules=dirty"),
    *("--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)


@dataclass(frozen=True)
class CodeState:
    """The code that runs.

    Attributes
    ----------
    tags : ``commit``, ``branch``, ``remote`` (without credentials), ``dirty`` ("true" or "false"), ``patch`` (a text
        that says how complete the patch is) and ``patch_sha256`` (if there is a patch). If Git has not compared the
        files with a commit, only ``commit`` and, if that is known, ``commit_source``: who names it, and why.
    patch : leads from the commit to the files, in Git's format; empty if they are equal or the patch was left out.
    """

    tags: dict[str, str]
    patch: bytes


@dataclass(frozen=True)
class _Changes:
    """The paths, relative to the top of the repository, of the files that differ from the commit.

    Attributes
    ----------
    staged : whose content the patch may have.
    secret : whose names look like secrets.
    other : links, and repositories inside of this one.
    """

    staged: list[str]
    secret: list[str]
    other: list[str]


def describe_code(root: Path) -> CodeState:
    """Return the state of the code in ``root``. Nothing is written into the repository.

    The tree is dirty if a tracked file differs from the commit, or if there is an untracked file of code, see
    `CODE_PATTERNS`. What Git ignores does not count. The patch has these files, but none whose name fits
    `SECRET_FILE_PATTERNS`, and it is left out if its content looks like a secret.

    If Git cannot compare the files with a commit, a warning says why. The commit is then that of HEAD, or the one that
    the environment names (`pipeline.provenance.declared_commit`), and the tags say that nobody compared the files.
    """
    commit = None
    try:
        repository = open_repository(root)
        top, objects = repository.read(
            "rev-parse", "--show-toplevel", "--path-format=absolute", "--git-path", "objects"
        ).splitlines()
        commit = repository.read("rev-parse", "--verify", "HEAD")
        with tempfile.TemporaryDirectory() as folder:
            # Git writes its index and new objects here, not into the repository.
            env = {
                "GIT_INDEX_FILE": f"{folder}/index",
                "GIT_OBJECT_DIRECTORY": folder,
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
            }
            state = _describe_checkout(repository, Path(top), commit, env)
            if state.tags["dirty"] == "true" or repository.run("ls-tree", "HEAD", "--", ".", env=env):
                return state
            # Git ignores the folder, as the repository of a home directory ignores other projects.
            return _describe_unknown(root, None, f"the repository {printable(redact(top))} does not have this folder")
    except FileNotFoundError:
        return _describe_unknown(root, None, "git is not installed", is_usual=True)
    except OSError as error:
        return _describe_unknown(root, commit, f"git cannot be run ({describe_error(error)})")
    except subprocess.CalledProcessError as error:
        message = _quote_git(error)
        if message.startswith(NO_REPOSITORY):
            return _describe_unknown(root, None, "not in a Git repository", is_usual=True)
        hint = " (there is no commit yet)" if message == NO_COMMIT else ""
        return _describe_unknown(root, commit, f"git says: {message}{hint}")
    except ValueError:  # a path with a line break
        return _describe_unknown(root, commit, "git does not name the repository in two lines")


def _quote_git(error: subprocess.CalledProcessError) -> str:
    """Return the line of Git that says what is wrong."""
    lines = os.fsdecode(error.stderr or b"").splitlines()
    fatal = [line for line in lines if line.startswith("fatal: ")]
    line = (fatal or lines or [f"exit code {error.returncode}"])[0]
    return printable(redact(line))[:MAX_MESSAGE_LENGTH].removeprefix("fatal: ")


def _describe_unknown(root: Path, commit: str | None, problem: str, *, is_usual: bool = False) -> CodeState:
    """Return what is known of code that nobody has compared with a commit, and say so.

    Parameters
    ----------
    root
        The folder of the code.
    commit
        That HEAD names, or None.
    problem
        Why the files were not compared with it.
    is_usual
        Whether it is how an image is made. Then there is no warning if the environment names the commit.
    """
    source = "HEAD"
    if commit is None:
        declared = find_declared_commit(root)
        if declared is None:
            logger.warning("the run records no commit: %s; commit the code, or name its commit in CODE_COMMIT", problem)
            return CodeState({"commit": f"unknown: {problem}"}, b"")
        commit, source = declared
    if not is_usual:
        logger.warning("the run records commit %s from %s, not compared with the files: %s", commit, source, problem)
    return CodeState({"commit": commit, "commit_source": f"{source}, not compared with the files: {problem}"}, b"")


def _describe_checkout(repository: Repository, top: Path, commit: str, env: dict[str, str]) -> CodeState:
    remote = repository.read("config", "--default", "", "--get", "remote.origin.url")
    branch = find_branch(repository.read("rev-parse", "--abbrev-ref", "HEAD"), commit)
    tags = {
        "commit": commit,
        "branch": printable(redact(branch)),
        "remote": printable(redact_address(remote) if "://" in remote else redact(remote)) or "none",
    }
    repository.run("read-tree", "HEAD", env=env)
    changes = _list_changes(repository, top, env)
    if not (changes.staged or changes.secret or changes.other):
        return CodeState(tags | {"dirty": "false", "patch": "not needed"}, b"")
    tags["dirty"] = "true"
    patch = b""
    at_top = replace(repository, folder=top)  # to which the paths are relative
    problem = _find_size_problem(top, changes)
    if not problem:
        try:
            patch = _create_patch(at_top, changes.staged, env)
            problem = _find_problem(at_top, patch, changes.staged, env)
        except subprocess.CalledProcessError:
            problem = "git cannot read every file"
    if problem:
        return CodeState(tags | {"patch": f"left out: {problem}"}, b"")
    tags["patch"] = _describe_omissions(changes)
    tags["patch_sha256"] = hashlib.sha256(patch).hexdigest()
    return CodeState(tags, patch)


def _list_changes(repository: Repository, top: Path, env: dict[str, str]) -> _Changes:
    """Return what differs from the commit in the folder, which may be a part of a repository with other code."""
    options = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")
    output = repository.run("status", *options, "--", ".", env=env)
    changes = _Changes([], [], [])
    for entry in os.fsdecode(output).split("\0"):
        status, path = entry[:2], entry[3:]
        is_new = status == "??"
        if not path or (is_new and not _is_code(path)):
            continue
        if _has_secret_name(path):
            changes.secret.append(path)
        elif is_new and not _is_file(top / path):
            changes.other.append(path)
        else:
            changes.staged.append(path)
    return changes


def _is_code(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    return any(fnmatch(name, pattern) for pattern in CODE_PATTERNS)


def _has_secret_name(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    if any(fnmatch(name, pattern) for pattern in NO_SECRET_FILE_PATTERNS):
        return False
    return any(fnmatch(name, pattern) for pattern in SECRET_FILE_PATTERNS)


def _is_file(path: Path) -> bool:
    """Return whether the path is a file; a link is none, wherever it leads."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _describe_omissions(changes: _Changes) -> str:
    omissions = []
    if changes.secret:
        omissions.append(f"{len(changes.secret)} files whose names look like secrets")
    if changes.other:
        omissions.append(f"{len(changes.other)} links or repositories")
    return f"without {' and '.join(omissions)}" if omissions else "complete"


def _find_size_problem(top: Path, changes: _Changes) -> str | None:
    """Return why the patch would be too large, or None: a file is not read before its size is known."""
    for path in changes.staged:
        if _is_file(top / path) and (top / path).lstat().st_size > 50 * MAX_PATCH_BYTES:
            return f"{printable(path)} is too large"
    return None


def _find_problem(repository: Repository, patch: bytes, paths: list[str], env: dict[str, str]) -> str | None:
    """Return why the patch must not be kept, or None."""
    if len(patch) > MAX_PATCH_BYTES:
        return f"{len(patch):,} bytes are more than {MAX_PATCH_BYTES:,}"
    contents = {}
    numstat = repository.run("diff-index", "--cached", "--numstat", "-z", "--no-renames", "HEAD", env=env)
    binary_paths = {line[4:] for line in os.fsdecode(numstat).split("\0") if line.startswith("-\t-\t")}
    for path in paths:
        if path in binary_paths and _is_file(repository.folder / path):
            contents[path] = (repository.folder / path).read_bytes()
    return find_secret(patch, contents)


def _create_patch(repository: Repository, paths: list[str], env: dict[str, str]) -> bytes:
    """Return the patch from the commit to the files at these paths."""
    if not paths:
        return b""
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    options = ("--all", "--pathspec-from-file=-", "--pathspec-file-nul")
    repository.run("add", *options, env=env, content=names)
    return repository.run("diff-index", "--cached", *DIFF_OPTIONS, "HEAD", env=env)
