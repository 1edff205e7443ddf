"""Call a script in many processes, which are forks and so have its imports already: what takes seconds, once.

    forked.py kill DB FOLDER ARGUMENT...                   kill promote.py before each of its writes, then call it again
    forked.py race SCRIPT TIMES URI FOLDER ARGUMENT...     call it TIMES times at once; in an argument NUMBER is
                                                           0, 1, 2 ..., and VERSION is 1 to 5 in turn

`kill`: for the steps 1, 2, 3 ... it copies the SQLite store DB to FOLDER/<step>.db, calls promote.py and kills it
(SIGKILL) at that step, then calls it again undisturbed. It ends after the step that there was no more. Prints a line of
JSON: the step's write, and the exit codes of the two calls (None of a killed one), for each step.

`race` prints a line of JSON: the exit codes. What each wrote is in FOLDER/<number>.stdout and .stderr.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import mlflow
import zygote

ROOT = Path(__file__).parent.parent
WRITES = ("create_", "set_", "log_", "update_", "delete_", "transition_")


def start(script: str, uri: str, arguments: list[str], output: Path, kill_at: int = 0) -> int:
    """Fork, call the script there, writing to ``output``.stdout, .stderr and .step, and return the process."""
    if child := os.fork():
        return child
    kill_before(kill_at, Path(f"{output}.step"))
    env = os.environ | {"MLFLOW_TRACKING_URI": uri}
    zygote.run(str(ROOT / f"{script}.py"), arguments, str(Path.cwd()), env, f"{output}.stdout", f"{output}.stderr")


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
