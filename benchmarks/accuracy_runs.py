"""Train by a recipe in a process of its own, and score every point on the test set."""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes
    ----------
    recipe, settings : a name of `recipes.RECIPES`, and the arguments of its function.
    seeds : how many trainings it gets.
    endless : whether its schedule has no end, so that each of its epochs is the end of a shorter training. A cycle of
        the learning rate counts only when it is complete: to stop it early would be to choose on the test set.
    """

    recipe: str
    settings: dict[str, Any]
    seeds: int
    endless: bool = False


@dataclass(frozen=True)
class ScoredPoint:
    """A point of a training, scored on the test set; see `recipes.Point`."""

    seconds: float
    epoch: float
    images: int
    accuracy: float


@dataclass(frozen=True)
class TrainingRun:
    """One training of an entry.

    Attributes
    ----------
    name, source : of the recipe.
    seed : of the training.
    points : in the order of the training.
    peak_memory, import_memory : the largest resident size of its process in bytes: at the end, after the imports.
    threads : of PyTorch.
    bf16_native : whether the CPU has bfloat16 in hardware.
    """

    name: str
    source: str
    seed: int
    points: list[ScoredPoint]
    peak_memory: int
    import_memory: int
    threads: int
    bf16_native: bool


def run_alternately(entries: Sequence[Entry], dataset: str, data_dir: Path) -> Iterator[tuple[int, TrainingRun]]:
    """Yield the index of each entry and its run: all entries with the first seed, then all with the second ..."""
    for seed in range(max(entry.seeds for entry in entries)):
        for index, entry in enumerate(entries):
            if seed < entry.seeds:
                yield index, run_in_new_process(entry, dataset, data_dir, seed)


def run_in_new_process(entry: Entry, dataset: str, data_dir: Path, seed: int) -> TrainingRun:
    """Call `run_training` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(run_training, entry, dataset, data_dir, seed).result()
        except BaseException:  # a benchmark that is stopped must not leave a training behind
            for child in multiprocessing.active_children():
                child.kill()
            raise


def run_training(entry: Entry, dataset: str, data_dir: Path, seed: int) -> TrainingRun:
    """Train once and score every point. Its memory is right only in a new process."""
    import torch

    import recipes
    from pipeline.data.datasets import load_splits
    from pipeline.evaluation.inference import compute_logits
    from pipeline.training.loop import autocast_context

    import_memory = measure_peak_memory()
    splits = load_splits(dataset, data_dir)
    recipe = recipes.RECIPES[entry.recipe](**entry.settings)
    points = []
    for point in recipe.train(splits, seed):
        logits = compute_logits(point.model, splits.test.images, device=recipes.CPU)
        accuracy = (logits.argmax(1) == splits.test.labels).double().mean().item()
        points.append(ScoredPoint(point.seconds, point.epoch, point.images, accuracy))
    with autocast_context(recipes.CPU):
        bf16_native = torch.is_autocast_enabled("cpu")
    return TrainingRun(
        name=recipe.name,
        source=recipe.source,
        seed=seed,
        points=points,
        peak_memory=measure_peak_memory(),
        import_memory=import_memory,
        threads=torch.get_num_threads(),
        bf16_native=bf16_native,
    )


def measure_peak_memory() -> int:
    """Return the largest resident size that this process has had, in bytes."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
