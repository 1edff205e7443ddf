"""Who runs this process, on which machine, in which CI job, and when."""

import getpass
import os
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path

import psutil


def user_name() -> str:
    """Return the account, or who started the GitHub Actions job."""
    actor = os.environ.get("GITHUB_ACTOR")
    if actor:
        return actor
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return f"uid {os.getuid()}"


def host_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def ci_job_url() -> str | None:
    """Return the address of the GitHub Actions job, or None."""
    parts = [os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    if not all(parts):
        return None
    return "{}/{}/actions/runs/{}".format(*parts)


def describe_context() -> dict[str, str | None]:
    """Return ``user``, ``host`` and ``job_url``."""
    return {"user": user_name(), "host": host_name(), "job_url": ci_job_url()}


def describe_process() -> str:
    """Return this process in a form that `is_process_gone` understands: process id, its start, and the machine.

    The machine is this boot and this space of process ids, so containers on one host are told apart.
    """
    pid = os.getpid()
    return f"{pid} {_start_time(pid)} {_machine()}"


def is_process_gone(description: str) -> bool:
    """Return whether the process ran on this machine and has ended; False for a process of another machine."""
    pid, _, rest = description.partition(" ")
    started, _, machine = rest.partition(" ")
    if machine != _machine() or not pid.isdecimal():
        return False
    return _start_time(int(pid)) != started


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def format_utc(when: datetime) -> str:
    """Return a time as people read it, in UTC, to the second: ``2026-11-17 12:00:00``."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _start_time(pid: int) -> str:
    """Return when the process started; "none" if there is no such process, or only its remains."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return "none"
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return "none"


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return f"{host_name()} {uuid.getnode()}"
    return f"{boot} {namespace}"
