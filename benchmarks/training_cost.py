"""Run pytorch_demo.py in this process, and measure how its time is spent and how much memory it needs."""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy_runs import measure_peak_memory
from pipeline import cli

if TYPE_CHECKING:
    from pipeline.data.datasets import Splits


@dataclass(frozen=True)
class TrainingCost:
    """What pytorch_demo.py costs.

    Attributes
    ----------
    training_seconds : from the first batch until the last epoch is logged.
    tracking_seconds : of them, in MLflow.
    final_seconds : from then until the script ends.
    memory : peak resident size in bytes above that after the imports of torch, torchvision and mlflow.
    pixels : of all training images.
    """

    training_seconds: float
    tracking_seconds: float
    final_seconds: float
    memory: int
    pixels: int


def train_with_clock(data_dir: Path, arguments: Sequence[str], multiple: int) -> TrainingCost:
    """Run pytorch_demo.py in a new store on ``multiple`` times the training images; return what it costs."""
    import mlflow  # noqa: F401
    import torch  # noqa: F401
    import torchvision  # noqa: F401

    import_memory = measure_peak_memory()
    import pytorch_demo

    probe = TrainingProbe(multiple)
    probe.install()
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = pytorch_demo.main(["--data-dir", str(data_dir), *arguments])
        final_seconds = time.perf_counter() - probe.end
    if code != cli.OK:
        raise RuntimeError(f"pytorch_demo.py ended with {code}:\n{output.getvalue()}")
    return TrainingCost(
        training_seconds=probe.end - probe.start,
        tracking_seconds=probe.tracking_seconds,
        final_seconds=final_seconds,
        memory=measure_peak_memory() - import_memory,
        pixels=probe.pixels,
    )


class TrainingProbe:
    """Repeats the training images and measures the epochs, in functions that it replaces in this process.

    Attributes
    ----------
    start, end : of the training, by `time.perf_counter`.
    tracking_seconds : spent with logging the epochs.
    pixels : of all training images.
    """

    def __init__(self, multiple: int) -> None:
        self.multiple = multiple
        self.start = 0.0
        self.end = 0.0
        self.tracking_seconds = 0.0
        self.pixels = 0

    def install(self) -> None:
        """Replace the functions that pytorch_demo.py calls."""
        from pipeline.data import datasets
        from pipeline.tracking import runs
        from pipeline.training import loop

        datasets.load_splits = self._repeat_images(datasets.load_splits)
        loop.train_one_epoch = self._time_epoch(loop.train_one_epoch)
        runs.log_metrics = self._time_logging(runs.log_metrics)

    def _repeat_images(self, load_splits: "Callable[..., Splits]") -> "Callable[..., Splits]":
        def load_repeated_splits(*arguments: Any, **options: Any) -> "Splits":
            splits = load_splits(*arguments, **options)
            train = splits.train
            if self.multiple > 1:
                images = train.images.repeat(self.multiple, 1, 1, 1)
                labels = train.labels.repeat(self.multiple)
                train = replace(train, images=images, labels=labels)
            self.pixels = train.images.numel()
            return splits._replace(train=train)

        return load_repeated_splits

    def _time_epoch(self, train_one_epoch: Callable[..., Any]) -> Callable[..., Any]:
        def train_timed_epoch(*arguments: Any, **options: Any) -> Any:
            if not self.start:
                self.start = time.perf_counter()
            return train_one_epoch(*arguments, **options)

        return train_timed_epoch

    def _time_logging(self, log_metrics: Callable[..., None]) -> Callable[..., None]:
        def log_timed_metrics(run_id: str, metrics: dict[str, float], step: int = 0) -> None:
            start = time.perf_counter()
            log_metrics(run_id, metrics, step=step)
            if step:  # an epoch; what is logged after the training has none
                self.end = time.perf_counter()
                self.tracking_seconds += self.end - start

        return log_timed_metrics
