"""Measure what surrounds the training: tracking, start-up, evaluation, memory. One table.

    python benchmarks/overheads.py                           about ten minutes on two cores
    python benchmarks/overheads.py --repeat 5

Every figure comes from the scripts as they are, each time in a fresh process and a store of its own. MNIST throughout.
Leave the machine alone meanwhile.
"""

import contextlib
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, where the pipeline lies

from time_to_accuracy import peak_memory

from pipeline import cli
from pipeline.provenance import cpu

ROOT = Path(cli.__file__).parent.parent
SCRIPTS = tuple(sorted(file.name for file in ROOT.glob("*.py")))
MULTIPLES = (1, 4, 16)  # of the training images, by repeating them

# The packages that evaluate.py uses, MLflow with what it loads for a SQLite store and for a pt2 model.
EVALUATE_IMPORTS = (
    "import torch, torchvision, torch.export._trace, torch.export.pt2_archive._package, mlflow.pytorch, "
    "mlflow.store.tracking.sqlalchemy_store, sklearn.metrics, scipy.stats, matplotlib.figure, pandas"
)


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, every value in ``unit``, and how much it may be (None: no limit)."""

    name: str
    values: list[float]
    unit: str
    limit: float | None = None

    def cells(self) -> dict[str, str]:
        """Return the line's cells."""
        form = {"s": "{:.2f} s", "MB": "{:,.0f} MB", "%": "{:.2f}%", "x": "{:.2f}x"}.get(
            self.unit, "{:.2f} " + self.unit
        )
        return {
            "what": self.name,
            "median": form.format(statistics.median(self.values)),
            "lowest to highest": f"{form.format(min(self.values))} to {form.format(max(self.values))}",
            "times": str(len(self.values)),
            "limit": "" if self.limit is None else form.format(self.limit),
        }


def main() -> int:
    """Measure everything, print the table and its JSON."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the files lie (default: data)")
    parser.add_argument("--repeat", type=cli.number(int, 1), default=3, help="how often everything (default: 3)")
    options = parser.parse_args()
    data_dir = options.data_dir.resolve()
    # This process imports nothing heavy until they are done: on Linux a child's peak memory begins at its parent's.
    rows = [*start_up(options.repeat), *training(data_dir, options.repeat), *evaluation(data_dir, options.repeat)]
    rows += [*comparing(options.repeat), *own_images(data_dir, options.repeat), *memory(data_dir)]

    import pandas

    cli.log(
        f"\n{cpu()}, {os.cpu_count()} cores\n\n{pandas.DataFrame([row.cells() for row in rows]).to_string(index=False)}"
    )
    cli.print_json({"cpu": cpu(), "cores": os.cpu_count(), "rows": [vars(row) for row in rows]})
    return cli.OK


def start_up(repeat: int) -> list[Row]:
    """Return how long ``--help`` and a wrong option take."""
    rows = []
    for script in SCRIPTS:
        for argument, code in (("--help", 0), ("--epoch=3", 2)):
            values = [command(ROOT / script, argument, code=code)[0] for _ in range(repeat)]
            rows.append(Row(f"{script} {argument}", values, "s", 0.5))
    return rows


def training(data_dir: Path, repeat: int) -> list[Row]:
    """Return what MLflow costs during the default training and after it, and the memory of it all."""
    runs = [in_fresh_process(train, data_dir, [], 1) for _ in range(repeat)]
    return [
        Row("default training", [run["training"] for run in runs], "s", 25),
        Row("MLflow during it, share", [100 * run["tracking"] / run["training"] for run in runs], "%", 2),
        Row("from its end to the script's", [run["final"] for run in runs], "s", 5),
        Row("peak memory above the imports", [run["memory"] / 1e6 for run in runs], "MB", 300),
    ]


def evaluation(data_dir: Path, repeat: int) -> list[Row]:
    """Return how long evaluate.py takes, beside the imports of the packages that it uses, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        train_it = (ROOT / "pytorch_demo.py", "--data-dir", data_dir, "--epochs", 1)
        run_id = json.loads(command(*train_it, folder=folder)[1])["run_id"]
        scoring, whole, ratios = [], [], []
        for _ in range(repeat):
            imports, _ = command("-c", EVALUATE_IMPORTS)
            seconds, output = command(ROOT / "evaluate.py", "--run-id", run_id, "--data-dir", data_dir, folder=folder)
            result = json.loads(output)
            scoring.append(result["samples"] / result["images_per_second"])
            whole.append(seconds)
            ratios.append(seconds / imports)
    return [
        Row("evaluate.py, scoring 10,000 images", scoring, "s", 0.5),
        Row("evaluate.py, the whole command", whole, "s"),
        Row("the same, to importing its packages", ratios, "x", 1.3),
    ]


def comparing(repeat: int) -> list[Row]:
    """Return how long compare.py takes on a thousand runs, which are copies of one training's."""
    with tempfile.TemporaryDirectory() as folder:
        command(ROOT / "pytorch_demo.py", "--dataset", "digits", folder=folder)
        in_fresh_process(multiply, f"sqlite:///{folder}/mlflow.db", 999)
        values = [command(ROOT / "compare.py", "--last", 1000, folder=folder)[0] for _ in range(repeat)]
    return [Row("compare.py, 1,000 runs", values, "s", 5)]


def own_images(data_dir: Path, repeat: int) -> list[Row]:
    """Return how long it takes to clean MNIST's 60,000 training images as PNG files, and to ask what is on 1,000."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = in_fresh_process(write_png, data_dir, folder / "png")
        clean, ask = [], []
        for turn in range(repeat):
            clean.append(command(ROOT / "prepare_data.py", folder / "png", "--output", folder / f"clean {turn}")[0])
        trained = command(ROOT / "pytorch_demo.py", "--data-dir", data_dir, "--epochs", 1, folder=folder)[1]
        run = ("--run-id", json.loads(trained)["run_id"])
        for _ in range(repeat):
            ask.append(command(ROOT / "predict.py", *run, *list(files)[:1000], folder=folder)[0])
    return [
        Row("prepare_data.py, 60,000 images", clean, "s", 60),
        Row("predict.py, 1,000 images", ask, "s", 10),
    ]


def write_png(data_dir: Path, folder: Path) -> dict[str, float]:
    """Write MNIST's training images into a folder for each class; return their paths, with the labels."""
    from PIL import Image

    from pipeline import data

    splits = data.load("mnist", data_dir)
    written: dict[str, float] = {}
    for part in (splits.train, splits.validation):
        for pixels, label in zip(part.images, part.labels.tolist(), strict=True):
            file = folder / str(label) / f"{len(written):05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0].numpy()).save(file)
            written[str(file)] = label
    return written


def multiply(store: str, times: int) -> dict[str, float]:
    """Copy the store's only run, with all but its artifacts, ``times`` times."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient(store)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    metrics = [value for name in run.data.metrics for value in client.get_metric_history(run.info.run_id, name)]
    params = [Param(name, value) for name, value in run.data.params.items() if name != "seed"]
    for seed in range(1, times + 1):
        copy = client.create_run(run.info.experiment_id, tags=run.data.tags).info.run_id
        client.log_batch(copy, metrics, [*params, Param("seed", str(seed))])
        client.set_terminated(copy)
    return {}


def memory(data_dir: Path) -> list[Row]:
    """Return the peak memory of one epoch on 1, 4 and 16 times the images, and what a pixel more costs."""
    peaks = {times: in_fresh_process(train, data_dir, ["--epochs", "1"], times) for times in MULTIPLES}
    first, last = peaks[MULTIPLES[0]], peaks[MULTIPLES[-1]]
    growth = (last["memory"] - first["memory"]) / (last["pixels"] - first["pixels"])
    return [
        *(Row(f"peak memory, {times}x the images", [peak["memory"] / 1e6], "MB") for times, peak in peaks.items()),
        Row("growth", [growth], "bytes a pixel"),
    ]


def command(*arguments: Any, folder: str | Path | None = None, code: int = 0) -> tuple[float, str]:
    """Run Python with ``arguments``; return the seconds that it took and its stdout."""
    start = time.perf_counter()
    call = [sys.executable, *map(str, arguments)]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True)  # noqa: S603 - our own scripts
    seconds = time.perf_counter() - start
    if done.returncode != code:
        raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stderr}")
    return seconds, done.stdout


def in_fresh_process(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Call ``function`` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def train(data_dir: Path, arguments: list[str], times: int) -> dict[str, float]:
    """Run pytorch_demo.py's `main` in a new store on ``times`` the training images, with a clock on its rooms.

    Returns seconds: ``training``, in which ``tracking`` are MLflow's, and ``final``, from there to the end; bytes:
    ``memory``, the peak above the imports of torch, torchvision and mlflow; ``pixels`` of all training images.
    """
    import mlflow  # noqa: F401
    import torch  # noqa: F401
    import torchvision  # noqa: F401

    imported = peak_memory()
    import pytorch_demo
    from pipeline import data
    from pipeline import tracking as store
    from pipeline import training as loop

    load, fit, log_metrics = data.load, loop.fit, store.log_metrics
    spent = {"tracking": 0.0, "training": 0.0, "end": 0.0}
    pixels = 0

    def repeated(name: str, data_dir: Path) -> data.Splits:
        nonlocal pixels
        splits = load(name, data_dir)
        if times > 1:
            images, labels = splits.train.images.repeat(times, 1, 1, 1), splits.train.labels.repeat(times)
            splits = splits._replace(train=replace(splits.train, images=images, labels=labels))
        pixels = splits.train.images.numel()
        return splits

    def clocked_fit(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        yield from fit(*given, **named)
        spent["end"] = time.perf_counter()
        spent["training"] = spent["end"] - start

    def clocked_log(*given: Any, **named: Any) -> None:
        start = time.perf_counter()
        log_metrics(*given, **named)
        if not spent["end"]:
            spent["tracking"] += time.perf_counter() - start

    data.load, loop.fit, store.log_metrics = repeated, clocked_fit, clocked_log
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = ["pytorch_demo.py", "--data-dir", str(data_dir), *arguments]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pytorch_demo.main()
        final = time.perf_counter() - spent["end"]
        os.chdir(ROOT)
    return {
        "training": spent["training"],
        "tracking": spent["tracking"],
        "final": final,
        "memory": peak_memory() - imported,
        "pixels": pixels,
    }


if __name__ == "__main__":
    cli.run(main)
