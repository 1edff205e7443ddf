"""A script that is stopped while it has worker processes: they compute, or they wait for work."""

import os
import signal
import subprocess
import sys

import pytest

from support.scripts import ROOT

SCRIPT = """
import itertools, sys, time
from pipeline import cli
from pipeline.data.parallel import parallel_map

@cli.entry_point
def main(argv):
    for _ in {results}:
        time.sleep({pause})
        print("a result", flush=True)

sys.exit(main())
"""
BUSY_WORKERS = SCRIPT.format(results="parallel_map(time.sleep, itertools.repeat(0.01))", pause=0)
IDLE_WORKERS = SCRIPT.format(results="parallel_map(abs, range(64))", pause=1)
both_states = pytest.mark.parametrize("code", [BUSY_WORKERS, IDLE_WORKERS], ids=["busy", "idle"])


def start_script(code: str) -> "subprocess.Popen[str]":
    """Start the script as the leader of a process group, and wait for its first result."""
    command = [sys.executable, "-c", code]
    script = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert script.stdout
    assert script.stdout.readline() == "a result\n"
    return script


def assert_stopped(script: "subprocess.Popen[str]", code: int) -> None:
    """Check the exit code, that stderr has one line, and that no process of the group is alive."""
    _, stderr = script.communicate(timeout=60)
    assert script.returncode == code
    assert stderr.splitlines() == ["stopped"]
    with pytest.raises(ProcessLookupError):
        os.killpg(script.pid, 0)


@both_states
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl_c", "closed_terminal"])
def test_terminal_leaves_no_worker_or_traceback(code: str, number: int) -> None:
    script = start_script(code)
    os.killpg(script.pid, number)  # a terminal sends it to all processes of the group
    assert_stopped(script, 128 + number)


@both_states
def test_sigterm_leaves_no_worker_or_traceback(code: str) -> None:
    script = start_script(code)
    script.send_signal(signal.SIGTERM)
    assert_stopped(script, 143)


@both_states
def test_workers_end_with_a_killed_script(code: str) -> None:
    script = start_script(code)
    script.kill()
    _, stderr = script.communicate(timeout=30)  # returns when the last worker has closed its streams
    assert script.returncode == -signal.SIGKILL
    assert "Traceback" not in stderr
