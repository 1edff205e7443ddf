"""Call the scripts: in this process, or in one of their own that has the heavy libraries already."""

import gc
import io
import json
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 240  # seconds

# The libraries of the scripts, which the fork server imports once. Everything of this project is imported anew.
PRELOAD = [
    "matplotlib.figure",
    "mlflow.pytorch",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.metrics",
    "sklearn.model_selection",
    "torch.export._trace",
    "torch.export.pt2_archive._package",
    "torchinfo",
    "torchvision.datasets",
    "tqdm",
]
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(PRELOAD)


@dataclass(frozen=True)
class Result:
    """What a script did: exit code (negative: the signal that killed it), stdout and stderr."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one line of JSON on stdout."""
        (line,) = self.stdout.splitlines()
        content: dict[str, Any] = json.loads(line)
        return content

    @property
    def error(self) -> str:
        """The one line on stderr of a script that ended with code 2."""
        assert (self.code, self.stdout) == (2, ""), self
        (line,) = self.stderr.splitlines()
        assert line.startswith("error: "), line
        return line


def call_main(main: Callable[[Sequence[str]], int], *arguments: object, folder: Path | None = None) -> Result:
    """Call a script's ``main`` in this process: its imports, which take most of its time, are done already.

    It runs in the current directory and store; or in ``folder`` and on the SQLite store there.
    """
    if folder is not None:
        with chdir(folder), patch.dict(os.environ, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db"):
            return call_main(main, *arguments)
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = main([str(argument) for argument in arguments])
    finally:
        gc.enable()  # compare.py turns it off
    return Result(code, stdout.getvalue(), stderr.getvalue())


class ScriptProcess:
    """A script in a process of its own, as a user runs it. ``process`` is the running one."""

    def __init__(
        self, folder: Path, script: str, arguments: Sequence[object], root: Path, env: Mapping[str, str]
    ) -> None:
        self._output = tempfile.TemporaryDirectory()
        self.stdout = Path(self._output.name, "stdout")
        self.stderr = Path(self._output.name, "stderr")
        options = [str(argument) for argument in arguments]
        streams = (str(self.stdout), str(self.stderr))
        call = (str(root / script), options, str(folder), dict(env), streams)
        self.process = _processes.Process(target=_run_script, args=call)
        self.process.start()

    def wait(self) -> Result:
        """Wait until the script ends; kill it after `TIMEOUT` seconds."""
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        result = Result(self.process.exitcode, self.stdout.read_text(), self.stderr.read_text())
        self._output.cleanup()
        return result


def start_script(
    folder: Path, script: str, *arguments: object, root: Path = ROOT, env: Mapping[str, str] | None = None
) -> ScriptProcess:
    """Start a script in ``folder``, on the SQLite store there unless ``env`` names another."""
    return ScriptProcess(folder, script, arguments, root, {**os.environ, **(env or {})})


def run_script(
    folder: Path, script: str, *arguments: object, root: Path = ROOT, env: Mapping[str, str] | None = None
) -> Result:
    """Run a script in ``folder``, on the SQLite store there unless ``env`` names another, in a process of its own."""
    return start_script(folder, script, *arguments, root=root, env=env).wait()


def run_at_once(
    folder: Path, script: str, calls: Sequence[Sequence[object]], env: Mapping[str, str] | None = None
) -> list[Result]:
    """Run a script once for each list of arguments in ``calls``, all at the same time."""
    started = [start_script(folder, script, *arguments, env=env) for arguments in calls]
    return [process.wait() for process in started]


def _run_script(script: str, arguments: list[str], folder: str, env: dict[str, str], streams: tuple[str, str]) -> None:
    """Do what ``python script arguments`` does, with stdout and stderr in files."""
    for number, file in enumerate(streams, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
