"""How much memory this process may still take: that of the machine, or of its control group if that is less."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from pipeline.data.catalog import MAX_PIXELS

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # version 2, 1
ARRAY_SHARE = 4  # an array that is read may have one part in so many of the free memory


def available_memory() -> int:
    """Return how many bytes can be used without swapping, and without being killed for the limit of a container."""
    available = [int(psutil.virtual_memory().available)]
    for folder in _cgroup_folders():
        for limit_file, usage_file in CGROUP_FILES:
            try:
                limit = int((folder / limit_file).read_text(encoding="ascii"))
                usage = int((folder / usage_file).read_text(encoding="ascii"))
                available.append(limit - usage + _read_cache_size(folder))
            except (OSError, ValueError):  # there is none, or the limit is "max"
                continue
    return max(0, min(available))


def _cgroup_folders() -> Iterator[Path]:
    """Yield the folders of the control groups that limit the memory of this process, as far as they can be seen."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = CGROUP_ROOT / controllers
        folder = root / name.lstrip("/")
        yield folder
        for parent in folder.parents:  # each of them limits those below it
            if parent.is_relative_to(root):
                yield parent


def _read_cache_size(folder: Path) -> int:
    """Return how many bytes of a group's usage are files that the system can drop."""
    for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def check_image_shape(shape: Sequence[int]) -> None:
    """Check that the images of an array [N, ...] have at most `MAX_PIXELS` pixels, of three colours.

    Raises
    ------
    ValueError
        They have more.
    """
    if math.prod(shape[1:]) > 3 * MAX_PIXELS:
        sides = " x ".join(f"{side:,}" for side in shape[1:])
        raise ValueError(f"images of {sides} pixels are more than {MAX_PIXELS:,}")


def check_array_size(size: int) -> None:
    """Check that an array of ``size`` bytes leaves enough memory for what is done with it.

    Raises
    ------
    ValueError
        It does not.
    """
    limit = available_memory() // ARRAY_SHARE
    if size > limit:
        raise ValueError(f"its values have {size:,} bytes; on this machine {limit:,} can be read at the moment")
