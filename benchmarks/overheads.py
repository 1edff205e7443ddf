"""Measure what surrounds the training: tracking, start-up, evaluation, memory. One table.

    python benchmarks/overheads.py                           about ten minutes on two cores
    python benchmarks/overheads.py --repeat 5

Every figure comes from the scripts as they are, each time in a new process and a store of its own. The data set is
MNIST. Do not use the machine meanwhile.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, for the pipeline and the scripts

from pipeline import cli
from training_cost import train_with_clock

ROOT = Path(cli.__file__).parent.parent
SCRIPTS = tuple(sorted(file.name for file in ROOT.glob("*.py")))
IMAGE_MULTIPLES = (1, 4, 16)  # of the training images, by repeating them
START_LIMIT = 0.5  # seconds

# The packages that evaluate.py uses, and of MLflow what it loads for a SQLite store.
EVALUATE_IMPORTS = (
    "import torch, torchvision, torch.utils.flop_counter, mlflow, mlflow.store.tracking.sqlalchemy_store, "
    "mlflow.store.model_registry.sqlalchemy_store, sklearn.metrics, scipy.stats, matplotlib.figure, pandas"
)

FORMATS = {
    "s": "{:.2f} s",
    "MB": "{:,.0f} MB",
    "%": "{:.2f}%",
    "x": "{:.2f}x",
    "bytes a pixel": "{:.2f} bytes a pixel",
}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    name : what was measured.
    values : one for each repetition.
    unit : of the values, one of `FORMATS`.
    limit : how much it may be; None: no limit.
    """

    name: str
    values: list[float]
    unit: str
    limit: float | None = None

    def cells(self) -> dict[str, str]:
        """Return the cells of the line."""
        template = FORMATS[self.unit]
        lowest = template.format(min(self.values))
        highest = template.format(max(self.values))
        return {
            "what": self.name,
            "median": template.format(statistics.median(self.values)),
            "lowest to highest": f"{lowest} to {highest}",
            "times": str(len(self.values)),
            "limit": "" if self.limit is None else template.format(self.limit),
        }


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="directory of the files (default: data)")
    parser.add_argument("--repeat", type=cli.bounded_number(int, 1), default=3, help="repetitions (default: 3)")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Measure everything, print the table and its JSON."""
    options = parse_options(argv)
    data_dir = options.data_dir.resolve()
    # Nothing heavy is imported here before they are done: on Linux a child's peak memory begins at its parent's.
    rows = [
        *measure_start_up(options.repeat),
        *measure_training(data_dir, options.repeat),
        *measure_evaluation(data_dir, options.repeat),
        *measure_comparison(options.repeat),
        *measure_own_images(data_dir, options.repeat),
        *measure_memory(data_dir),
    ]

    import pandas

    from pipeline.provenance.record import cpu_name

    table = pandas.DataFrame([row.cells() for row in rows]).to_string(index=False)
    for line in ("", f"{cpu_name()}, {os.cpu_count()} cores", "", *table.splitlines()):
        cli.log(line)
    cli.print_json({"cpu": cpu_name(), "cores": os.cpu_count(), "rows": [asdict(row) for row in rows]})
    return cli.OK


# --- what is measured -----------------------------------------------------------------------------------------------


def measure_start_up(repeat: int) -> list[Row]:
    """Return how long ``--help`` and a wrong option take."""
    rows = []
    for script in SCRIPTS:
        for argument, code in (("--help", 0), ("--epoch=3", 2)):
            seconds = [run_python(ROOT / script, argument, code=code).seconds for _ in range(repeat)]
            rows.append(Row(f"{script} {argument}", seconds, "s", START_LIMIT))
    return rows


def measure_training(data_dir: Path, repeat: int) -> list[Row]:
    """Return what checkpoints and MLflow cost during the default training and after it, and the memory of it all."""
    costs = [run_in_new_process(train_with_clock, data_dir, [], 1) for _ in range(repeat)]
    checkpoint_shares = [100 * cost.checkpoint_seconds / cost.training_seconds for cost in costs]
    shares = [100 * cost.tracking_seconds / cost.training_seconds for cost in costs]
    return [
        Row("default training", [cost.training_seconds for cost in costs], "s", 25),
        Row("checkpoints during it, share", checkpoint_shares, "%", 1),
        Row("logging during it, share", shares, "%", 2),
        Row("from its end to the script's", [cost.final_seconds for cost in costs], "s", 5),
        Row("peak memory above the imports", [cost.memory / 1e6 for cost in costs], "MB", 300),
    ]


def measure_evaluation(data_dir: Path, repeat: int) -> list[Row]:
    """Return how long evaluate.py takes, compared with the imports of the packages that it uses; they alternate."""
    scoring_seconds = []
    script_seconds = []
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        run_id = train_one_epoch_on_mnist(data_dir, folder)
        for _ in range(repeat):
            imports = run_python("-c", EVALUATE_IMPORTS)
            evaluate = run_python(ROOT / "evaluate.py", "--run-id", run_id, "--data-dir", data_dir, folder=folder)
            result = json.loads(evaluate.stdout)
            scoring_seconds.append(result["samples"] / result["images_per_second"])
            script_seconds.append(evaluate.seconds)
            ratios.append(evaluate.seconds / imports.seconds)
    return [
        Row("evaluate.py, scoring 10,000 images", scoring_seconds, "s", 0.5),
        Row("evaluate.py, the whole command", script_seconds, "s"),
        Row("the same, to importing its packages", ratios, "x", 1.3),
    ]


def measure_comparison(repeat: int) -> list[Row]:
    """Return how long compare.py takes on a thousand runs, which are copies of one training's."""
    with tempfile.TemporaryDirectory() as folder:
        run_python(ROOT / "pytorch_demo.py", "--dataset", "digits", folder=folder)
        run_in_new_process(copy_run, f"sqlite:///{folder}/mlflow.db", 999)
        compare = (ROOT / "compare.py", "--last", 1000)
        seconds = [run_python(*compare, folder=folder).seconds for _ in range(repeat)]
    return [Row("compare.py, 1,000 runs", seconds, "s", 5)]


def measure_own_images(data_dir: Path, repeat: int) -> list[Row]:
    """Return how long it takes to clean MNIST's 60,000 training images as PNG files, and to ask about 1,000 of them."""
    clean_seconds = []
    ask_seconds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = run_in_new_process(write_png_files, data_dir, folder / "png")
        for i in range(repeat):
            prepare = (ROOT / "prepare_data.py", folder / "png", "--output", folder / f"clean {i}")
            clean_seconds.append(run_python(*prepare).seconds)
        run_id = train_one_epoch_on_mnist(data_dir, folder)
        for _ in range(repeat):
            predict = (ROOT / "predict.py", "--run-id", run_id, *files[:1000])
            ask_seconds.append(run_python(*predict, folder=folder).seconds)
    return [
        Row("prepare_data.py, 60,000 images", clean_seconds, "s", 60),
        Row("predict.py, 1,000 images", ask_seconds, "s", 10),
    ]


def measure_memory(data_dir: Path) -> list[Row]:
    """Return the peak memory of one epoch on 1, 4 and 16 times the images, and what one more pixel costs."""
    rows = []
    costs = []
    for multiple in IMAGE_MULTIPLES:
        cost = run_in_new_process(train_with_clock, data_dir, ["--epochs", "1"], multiple)
        costs.append(cost)
        rows.append(Row(f"peak memory, {multiple}x the images", [cost.memory / 1e6], "MB"))
    first = costs[0]
    last = costs[-1]
    growth = (last.memory - first.memory) / (last.pixels - first.pixels)
    rows.append(Row("growth", [growth], "bytes a pixel"))
    return rows


# --- processes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """A command that has ended: the seconds that it took, and its stdout."""

    seconds: float
    stdout: str


def run_python(*arguments: object, folder: str | Path | None = None, code: int = 0) -> Finished:
    """Run Python with ``arguments`` in ``folder``; it has to end with exit code ``code``."""
    command = [sys.executable, *(str(argument) for argument in arguments)]
    start = time.perf_counter()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603 - our own scripts
    seconds = time.perf_counter() - start
    if result.returncode != code:
        raise RuntimeError(f"{arguments} ended with {result.returncode}:\n{result.stderr}")
    return Finished(seconds, result.stdout)


def train_one_epoch_on_mnist(data_dir: Path, folder: str | Path) -> str:
    """Train in the store in ``folder``; return the run id."""
    train = (ROOT / "pytorch_demo.py", "--data-dir", data_dir, "--epochs", 1)
    run_id: str = json.loads(run_python(*train, folder=folder).stdout)["run_id"]
    return run_id


def run_in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what ``function`` returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def write_png_files(data_dir: Path, folder: Path) -> list[str]:
    """Write MNIST's training images into a folder for each class; return their paths."""
    from PIL import Image

    from pipeline.data.datasets import load_splits

    splits = load_splits("mnist", data_dir)
    paths: list[str] = []
    for split in (splits.train, splits.validation):
        for pixels, label in zip(split.images, split.labels.tolist(), strict=True):
            file = folder / str(label) / f"{len(paths):05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0].numpy()).save(file)
            paths.append(str(file))
    return paths


def copy_run(store: str, copies: int) -> None:
    """Copy the store's only run, without its artifacts, ``copies`` times, each with another seed."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient(store)
    experiment_ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiment_ids)
    metrics = []
    for name in run.data.metrics:
        metrics.extend(client.get_metric_history(run.info.run_id, name))
    params = [Param(name, value) for name, value in run.data.params.items() if name != "seed"]
    for seed in range(1, copies + 1):
        copy = client.create_run(run.info.experiment_id, tags=run.data.tags)
        client.log_batch(copy.info.run_id, metrics, [*params, Param("seed", str(seed))])
        client.set_terminated(copy.info.run_id)


if __name__ == "__main__":
    sys.exit(main())
