"""Run scripts in forks of this process, which has imported the libraries already: that is most of a script's time.

    python zygote.py < requests

A request is a line of JSON: ``script``, ``arguments``, ``folder``, ``env``, and the files ``stdout``, ``stderr``. The
answers are two lines: the process's number when it has started, its exit code when it has ended. Everything of this
project is imported anew each time.
"""

import atexit
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.figure
import mlflow.pytorch
import mlflow.store.tracking.sqlalchemy_store
import pandas
import scipy.optimize
import scipy.stats
import sklearn.datasets
import sklearn.metrics
import sklearn.model_selection
import torch.export._trace
import torch.export.pt2_archive._package
import torchinfo
import torchvision.datasets
import tqdm

IMPORTED = (matplotlib, mlflow, pandas, scipy, sklearn, torch, torchinfo, torchvision, tqdm)


def run(script: str, arguments: list[str], folder: str, env: dict[str, str], stdout: str, stderr: str) -> NoReturn:
    """Become a process that runs the script as `python script arguments` would."""
    for stream, file in ((0, os.devnull), (1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        child = os.fork()
        if not child:
            run(**request)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
