from pathlib import Path

import psutil
import pytest

from pipeline.data import memory
from pipeline.data.memory import available_memory, check_array_size, check_image_shape

MIB = 2**20


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a control group that limits all others, in the place of those of this machine."""
    monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path)
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    controllers = {line.split(":")[1] for line in lines}
    folder = tmp_path / "memory" if "memory" in controllers else tmp_path
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("limit", "usage"), [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")]
)
def test_limit_of_a_container_counts(limit: str, usage: str, group: Path) -> None:
    (group / limit).write_text(f"{100 * MIB}\n")
    (group / usage).write_text(f"{70 * MIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {5 * MIB}\n")
    assert available_memory() == 35 * MIB


def test_no_limit_leaves_the_machines_memory(group: Path) -> None:
    (group / "memory.max").write_text("max\n")
    assert available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_array_larger_than_its_share_is_refused() -> None:
    check_array_size(1_000)
    with pytest.raises(ValueError, match="its values have"):
        check_array_size(available_memory())


def test_large_images_are_refused_by_their_shape() -> None:
    check_image_shape((10, 5_000, 5_000, 3))
    with pytest.raises(ValueError, match=r"images of 5,001 x 5,001 x 3 pixels"):
        check_image_shape((1, 5_001, 5_001, 3))
