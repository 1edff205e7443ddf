"""Git as a reader: it runs no program of others, and its output does not depend on anybody's settings."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a repository's own settings could run, or could change in the output. Settings of the account and the system
# are not read at all.
SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.quotePath=true",
    "core.untrackedCache=false",
    "status.submoduleSummary=false",
    "submodule.recurse=false",
    "diff.orderFile=/dev/null",
    # The settings of the account are not read, so it cannot say there that the owner of the folder is trusted. Git's
    # check guards against the programs that a repository's settings name, and none of these is run.
    "safe.directory=*",
)
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",  # writes nothing into the repository
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Repository:
    """A folder in a repository.

    Attributes
    ----------
    folder : where git runs.
    settings : that let no filter run: a repository can name programs that read its files.
    """

    folder: Path
    settings: tuple[str, ...]

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, content: bytes = b"") -> bytes:
        """Run git with ``content`` as its input; return its output.

        Raises
        ------
        subprocess.CalledProcessError
            Git refused.
        """
        return _run_git(self.folder, self.settings, arguments, env, content)

    def read(self, *arguments: str) -> str:
        """Return what git prints, as a text without blanks around it; see `run`."""
        return os.fsdecode(self.run(*arguments)).strip()


def open_repository(folder: Path) -> Repository:
    """Return the folder as a part of its repository.

    Raises
    ------
    FileNotFoundError
        Git is not installed.
    """
    try:
        names = _run_git(folder, (), ("config", "--name-only", "-z", "--get-regexp", r"^filter\."))
    except subprocess.CalledProcessError:  # there is no filter
        names = b""
    settings = []
    for name in os.fsdecode(names).split("\0"):
        if name:
            settings.append(f"{name}={'false' if name.endswith('.required') else ''}")
    return Repository(folder, tuple(settings))


def _run_git(
    folder: Path,
    settings: Sequence[str],
    arguments: Sequence[str],
    env: Mapping[str, str] | None = None,
    content: bytes = b"",
) -> bytes:
    command = ["git"]
    for setting in (*SETTINGS, *settings):
        command += ["-c", setting]
    command += ["-C", str(folder), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment.update(ENVIRONMENT)
    environment.update(env or {})
    done = subprocess.run(command, capture_output=True, check=True, env=environment, input=content)  # noqa: S603
    return done.stdout
