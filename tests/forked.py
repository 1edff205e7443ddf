"""Call a script in many processes, which are forks and so have its imports already: what takes seconds, once.

    forked.py kill DB FOLDER ARGUMENT...                   kill promote.py before each of its writes, then call it again
    forked.py race SCRIPT TIMES URI FOLDER ARGUMENT...     call it TIMES times at once; in an argument NUMBER is
                                                           0, 1, 2 ..., and VERSION is 1 to 5 in turn

`kill`: for the steps 1, 2, 3 ... it copies the SQLite store DB to FOLDER/<step>.db, calls promote.py and kills it
(SIGKILL) at that step, then calls it again undisturbed. It ends after the step that there was no more. Prints a line of
JSON: the step's write, and the exit codes of the two calls (None of a killed one), for each step.

`race` prints a line of JSON: the exit codes. What each wrote is in FOLDER/<number>.stdout and .stderr.
"""

import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import mlflow.pytorch
import mlflow.store.tracking.sqlalchemy_store
import pandas
import scipy.stats
import sklearn.metrics
import torch.export._trace
import torch.export.pt2_archive._package

from pipeline import cli, plots, promotion, reproduction, training

# all that the scripts can need
IMPORTED = (mlflow.store, pandas, scipy.stats, sklearn.metrics, torch.export, plots, promotion, reproduction, training)
WRITES = ("create_", "set_", "log_", "update_", "delete_", "transition_")


def start(script: str, uri: str, arguments: list[str], output: Path, kill_at: int = 0) -> int:
    """Fork, call the script there, writing to ``output``.stdout, .stderr and .step, and return the process."""
    if child := os.fork():
        return child
    try:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.environ["MLFLOW_TRACKING_URI"] = uri
        sys.argv = [f"{script}.py", *arguments]
        kill_before(kill_at, Path(f"{output}.step"))
        cli.run(importlib.import_module(script).main)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    finally:
        os._exit(99)


def kill_before(step: int, notes: Path) -> None:
    """Make this process die before its ``step``-th write to the store, which it notes."""
    steps = 0

    def wrapped(name: str, write: Any) -> Any:
        def count(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                notes.write_text(name)
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*args, **kwargs)

        return count

    for name in dir(mlflow.MlflowClient):
        if name.startswith(WRITES):
            setattr(mlflow.MlflowClient, name, wrapped(name, getattr(mlflow.MlflowClient, name)))


def wait(child: int) -> int | None:
    """Return the exit code of the process, None where it was killed."""
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill(source: Path, folder: Path, arguments: list[str]) -> list[Any]:
    """Kill at one step after the other."""
    result: list[Any] = []
    while not result or result[-1][1] is None:
        output = folder / str(len(result) + 1)
        uri = f"sqlite:///{shutil.copy(source, f'{output}.db')}"
        Path(f"{output}.step").write_text("none")
        killed = wait(start("promote", uri, arguments, output, kill_at=len(result) + 1))
        result.append((Path(f"{output}.step").read_text(), killed, wait(start("promote", uri, arguments, output))))
    return result


def race(script: str, times: int, uri: str, folder: Path, arguments: list[str]) -> list[Any]:
    """Call so many at once."""
    children = []
    for number in range(times):
        own = [each.replace("VERSION", str(1 + number % 5)).replace("NUMBER", str(number)) for each in arguments]
        children.append(start(script, uri, own, folder / str(number)))
    return [wait(child) for child in children]


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        _, _, store, folder, *arguments = sys.argv
        print(json.dumps(kill(Path(store), Path(folder), arguments)))
    else:
        _, _, script, times, store, folder, *arguments = sys.argv
        print(json.dumps(race(script, int(times), store, Path(folder), arguments)))
