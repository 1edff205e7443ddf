"""Who runs this process, on which machine, in which CI job, and when."""

import getpass
import os
import re
import socket
import sys
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

DESCRIPTION = re.compile(r"(?P<pid>[0-9]{1,10}) (?P<started>\S+) (?P<machine>.+)")  # of a process


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
    return _is_running(description) is False


def is_process_alive(description: str) -> bool:
    """Return whether the process runs on this machine; False for a process of another machine."""
    return _is_running(description) is True


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def format_utc(when: datetime) -> str:
    """Return a time as people read it, in UTC, to the second: ``2026-11-17 12:00:00``."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _is_running(description: str) -> bool | None:
    """Return whether the process runs, or None if this process cannot know it."""
    match = DESCRIPTION.fullmatch(description)
    if not match or match["machine"] != _machine():
        return None
    try:
        return _start_time(int(match["pid"])) == match["started"]
    except PermissionError:
        return None


def _start_time(pid: int) -> str | None:
    """Return when the process started; None if there is no such process, or only its remains.

    PermissionError: it runs, but this account may not see it.
    """
    try:
        if sys.platform == "linux":
            return _read_start_ticks(pid)
        return _read_creation_time(pid)
    except (FileNotFoundError, ProcessLookupError):
        _check_is_missing(pid)
        return None


def _read_creation_time(pid: int) -> str | None:
    """Return the seconds from 1970 to the start, on systems without /proc."""
    import psutil  # no script needs a package before it knows its options

    try:
        process = psutil.Process(pid)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return None if is_zombie else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        raise ProcessLookupError from None


def _read_start_ticks(pid: int) -> str | None:
    """Return the ticks from the boot to the start. Seconds since 1970 would change if the clock is set."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    _, _, after_name = stat.rpartition(")")  # proc_pid_stat(5): the fields from the third on
    fields = after_name.split()
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else ticks


def _check_is_missing(pid: int) -> None:
    """Return if there is no such process: an account may see only its own if /proc is mounted with hidepid."""
    with suppress(ProcessLookupError, OverflowError):
        os.kill(pid, 0)


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return f"{host_name()} {uuid.getnode()}"
    return f"{boot} {namespace}"
