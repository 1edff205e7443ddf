import getpass
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from pipeline.context import (
    ci_job_url,
    describe_context,
    describe_process,
    format_utc,
    is_process_alive,
    is_process_gone,
    utc_now,
)
from support.scripts import ROOT

DESCRIBE = "from pipeline.context import describe_process; print(describe_process(), flush=True); input()"


def test_user_is_the_account() -> None:
    assert describe_context()["user"] == getpass.getuser()
    assert describe_context()["job_url"] is None


def test_user_in_ci_started_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"SERVER_URL": "https://github.com", "REPOSITORY": "me/demo", "RUN_ID": "7", "ACTOR": "octocat"}
    for name, value in job.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    assert describe_context()["user"] == "octocat"
    assert ci_job_url() == "https://github.com/me/demo/actions/runs/7"


def test_account_without_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert describe_context()["user"] == f"uid {os.getuid()}"


def judge(description: str) -> str:
    """Return what is known of the process: alive, gone, or nothing."""
    answers = {"alive": is_process_alive(description), "gone": is_process_gone(description)}
    return " and ".join(name for name, answer in answers.items() if answer)


def test_own_process_is_alive() -> None:
    assert judge(describe_process()) == "alive"


def test_ended_process_is_gone() -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", DESCRIBE], stdin=pipe, stdout=pipe, text=True, env=env)
    assert process.stdout
    assert process.stdin
    description = process.stdout.readline().strip()
    assert judge(description) == "alive"
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert judge(description) == "gone"  # its remains are still there
    process.wait()
    assert judge(description) == "gone"


@pytest.mark.parametrize("pid", [os.getpid(), 9_999_999_999], ids=["used", "impossible"])
def test_id_of_another_process_is_not_enough(pid: int) -> None:
    _, _, machine = describe_process().split(" ", 2)
    assert judge(f"{pid} 12345 {machine}") == "gone"


@pytest.mark.parametrize("description", ["", "17", "x y z", "1 2 another machine"])
def test_unknown_process_is_neither(description: str) -> None:
    assert judge(description) == ""


def test_times_are_shown_in_utc() -> None:
    zone = timezone(timedelta(hours=8))
    assert format_utc(datetime(2026, 11, 17, 20, 0, 1, tzinfo=zone)) == "2026-11-17 12:00:01"
    assert datetime.fromisoformat(utc_now()).utcoffset() == timedelta(0)
