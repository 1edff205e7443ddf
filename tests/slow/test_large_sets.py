"""A prepared data set of twice the memory that a process may take: it is mapped, and never copied as a whole.

The files are sparse: they have 3.3 GB and take 40 MB of the disk.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from pipeline.data.forms import PhotoForm
from pipeline.data.prepared import describe_shape_and_form, name_files

SHAPE = (3, 128, 128)
SIZES = {"train": 65_536, "validation": 512, "test": 1_024}
LIMIT = 1_600_000_000  # bytes of memory; the training images have 3.2e9
ROOT = Path(__file__).parents[2]

# A network of few numbers, so that the images are what needs memory. RLIMIT_DATA counts what a process allocates, and
# not the pages of a file that it maps to read.
SCRIPT = f"""
import resource, sys
import numpy as np
from torch import nn
import pytorch_demo
from pipeline.training import models

def build_body(shape, classes, *_):
    return nn.Sequential(nn.MaxPool2d(64), nn.Flatten(), nn.Linear(12, classes))

models.BODIES["cnn"] = build_body
resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))
try:
    np.ones({LIMIT}, np.uint8)
except MemoryError:
    sys.exit(pytorch_demo.main(sys.argv[1:]))
sys.exit("the limit has no effect")
"""


def write_sparse_images(file: Path, count: int) -> None:
    """Write black images, of which one in a hundred is not black and takes room on the disk."""
    with file.open("wb") as content:
        npy.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)})
        start = content.tell()
        random = np.random.default_rng(0)
        for index in range(0, count, 100):
            content.seek(start + index * 3 * 128 * 128)
            content.write(random.integers(0, 256, SHAPE, np.uint8).tobytes())
        content.truncate(start + count * 3 * 128 * 128)


def test_set_of_twice_the_memory_is_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for split, count in SIZES.items():
        images, labels = name_files(split)
        write_sparse_images(folder / images, count)
        np.save(folder / labels, np.arange(count) % 2)
    (folder / "classes.json").write_text('["a", "b"]')
    (folder / "form.json").write_text(json.dumps(describe_shape_and_form(PhotoForm(SHAPE))))
    assert (folder / "train_images.npy").stat().st_size > 2 * LIMIT
    options = ("--dataset", folder, "--model", "cnn", "--epochs", "1", "--augment", "none", "--device", "cpu")
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, options), "--no-register"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3_000:]
    assert json.loads(process.stdout)["test_accuracy"] >= 0
