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
    from mlflow import MlflowClient

    from pipeline.data.datasets import Splits


@dataclass(frozen=True)
class TrainingCost:
    """What pytorch_demo.py costs.

    Attributes
    ----------
    training_seconds : from the first batch until the last epoch is logged.
    checkpoint_seconds : of them, for writing checkpoints.
    tracking_seconds : of them, for logging metrics; and the processor time of the thread that sends them.
    final_seconds : from then until the script ends.
    memory : peak resident size in bytes above that after the imports of torch, torchvision and mlflow.
    pixels : of all training images.
    """

    training_seconds: float
    checkpoint_seconds: float
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
        checkpoint_seconds=probe.checkpoint_seconds,
        tracking_seconds=probe.tracking_seconds + probe.sending_seconds,
        final_seconds=final_seconds,
        memory=measure_peak_memory() - import_memory,
        pixels=probe.pixels,
    )


class TrainingProbe:
    """Repeats the training images and measures the epochs, in functions that it replaces in this process.

    Attributes
    ----------
    start, end : of the training, by `time.perf_counter`.
    checkpoint_seconds, tracking_seconds : spent with writing checkpoints, and with logging metrics.
    sending_seconds : processor time of the thread that sends the metrics.
    pixels : of all training images.
    """

    def __init__(self, multiple: int) -> None:
        self.multiple = multiple
        self.start = 0.0
        self.end = 0.0
        self.checkpoint_seconds = 0.0
        self.tracking_seconds = 0.0
        self.sending_seconds = 0.0
        self.pixels = 0

    def install(self) -> None:
        """Replace the functions that pytorch_demo.py calls."""
        from pipeline.data import datasets
        from pipeline.session import epochs
        from pipeline.tracking import metric_log
        from pipeline.tracking.metric_log import MetricLog
        from pipeline.training.checkpoint import CheckpointWriter

        datasets.load_splits = self._repeat_images(datasets.load_splits)
        epochs.train = self._time_training(epochs.train)
        vars(metric_log)["get_client"] = self._time_client(vars(metric_log)["get_client"])
        self._time_method(MetricLog, "log_metrics", "tracking_seconds")
        self._time_method(CheckpointWriter, "write", "checkpoint_seconds")

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

    def _time_training(self, train: Callable[..., None]) -> Callable[..., None]:
        def train_with_clock(*arguments: Any) -> None:
            self.checkpoint_seconds = 0.0  # without the one before the first epoch
            self.start = time.perf_counter()
            train(*arguments)
            self.end = time.perf_counter()

        return train_with_clock

    def _time_client(self, get_client: "Callable[[], MlflowClient]") -> "Callable[[], MlflowClient]":
        def get_timed_client() -> "MlflowClient":
            client = get_client()
            log_batch = client.log_batch

            def log_timed_batch(*arguments: Any, **options: Any) -> None:
                start = time.thread_time()
                log_batch(*arguments, **options)
                self.sending_seconds += time.thread_time() - start

            client.log_batch = log_timed_batch  # type: ignore[method-assign]
            return client

        return get_timed_client

    def _time_method(self, owner: type, name: str, total: str) -> None:
        """Add the seconds of each call of a method to the attribute ``total``."""
        method = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = method(*arguments, **options)
            setattr(self, total, getattr(self, total) + time.perf_counter() - start)
            return result

        setattr(owner, name, call)
