"""The same training again: what a run recorded of itself, and whether the second run came to the same."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.entities import Run
from torch import Tensor

from pipeline import UserError, cli, tracking

# What decides a training, and how to read it back from a run's parameters.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "dataset": str,
    "limit": lambda text: None if text == "None" else int(text),
    "model": str,
    "epochs": int,
    "batch_size": int,
    "lr": float,
    "weight_decay": float,
    "label_smoothing": float,
    "augment": str.split,
    "seed": int,
    "device": str,
}
DIGESTS = ("train_digest", "validation_digest", "test_digest")
TIMINGS = ("training_seconds", "images_per_second", "system/")  # metrics that are never the same twice


def recall(run_id: str, options: argparse.Namespace) -> Run:
    """Set ``options`` to what the run was trained with, and return the run.

    Raises UserError where it does not say, or did not finish.
    """
    run = tracking.get_run(run_id)
    if run.info.status != "FINISHED":
        raise UserError(
            f"run {run_id} is {run.info.status}, so there is nothing to compare with; choose a finished one"
        )
    missing = [name for name in (*OPTIONS, *DIGESTS) if name not in run.data.params]
    if missing:
        raise UserError(f"run {run_id} does not say its {', '.join(missing)}; choose one that pytorch_demo.py logged")
    for name, read in OPTIONS.items():
        setattr(options, name, read(run.data.params[name]))
    return run


def check_data(run: Run, digests: Mapping[str, str]) -> None:
    """Raise UserError where the data are not those that the run was trained on."""
    for name, digest in digests.items():
        if digest != run.data.params[name]:
            what = f"{name} {digest[:12]}..., the run has {run.data.params[name][:12]}..."
            raise UserError(f"the data are not those of run {run.info.run_id} ({what}); name them with --data-dir")


def warn(run: Run, code: Mapping[str, str]) -> None:
    """Tell people where the code is not the run's."""
    recorded = {name: run.data.tags.get(f"code.{name}") for name in ("commit", "dirty", "patch_sha256")}
    if recorded != {name: code.get(name) for name in recorded}:
        changes = ", with changes (its artifact provenance/source.patch)" if recorded["dirty"] == "true" else ""
        cli.log(f"warning: this is not the code of run {run.info.run_id}: commit {recorded['commit']}{changes}")


def compare(run: Run, again: Run, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return how ``again``, whose model's state is given, differs from ``run``.

    Keys: ``reproduces``, the run; ``identical``, whether the weights' SHA-256 is the same; where it is not,
    ``largest_difference`` of the weights and the ``weight`` that has it, ``metrics`` that differ (name -> both values)
    and what differs in code and environment, ``circumstances`` (name -> both values).
    """
    identical = run.data.tags.get("result.weights_sha256") == again.data.tags["result.weights_sha256"]
    result: dict[str, Any] = {"reproduces": run.info.run_id, "identical": identical}
    if identical:
        return result
    before = tracking.load_model(tracking.model_of(run.info.run_id)).module.state_dict()
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in state.items()}:
        result |= {"weight": "other names or shapes", "largest_difference": None}
    else:
        gaps = {name: (before[name].double() - state[name].double()).abs().max().item() for name in state}
        weight = max(gaps, key=lambda name: gaps[name])
        result |= {"weight": weight, "largest_difference": gaps[weight]}
    metrics = {name: [value, again.data.metrics.get(name)] for name, value in run.data.metrics.items()}
    tags = {name for each in (run, again) for name in each.data.tags if name.startswith(("code.", "environment."))}
    circumstances = {name: [each.data.tags.get(name) for each in (run, again)] for name in sorted(tags)}
    return result | {
        "metrics": {
            name: values
            for name, values in metrics.items()
            if values[1] is not None and values[0] != values[1] and not name.startswith(TIMINGS)
        },
        "circumstances": {name: values for name, values in circumstances.items() if values[0] != values[1]},
    }
