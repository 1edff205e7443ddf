"""Train again as a run did: read the run's configuration, and compare the two results."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.data.catalog import SPLITS
from pipeline.documents import parse_count
from pipeline.errors import UserError
from pipeline.provenance.record import PATCH_FILE, PROVENANCE_FOLDER, compute_weights_sha256
from pipeline.provenance.source import CodeState
from pipeline.tracking import loading, models, runs
from pipeline.tracking.registry import ModelReference
from pipeline.tracking.runs import Run
from pipeline.training.checkpoint import MAX_THREADS
from pipeline.training.config import TrainingConfig

logger = logging.getLogger(__name__)

DIGEST_PARAMS = tuple(f"{split}_digest" for split in SPLITS)
CODE_TAGS = ("commit", "dirty", "patch_sha256")  # if these are equal, the code is
TIMING_METRICS = ("training_seconds", "images_per_second", "system/")  # they differ each time


@dataclass(frozen=True)
class Original:
    """A run that is trained again.

    Attributes
    ----------
    run : from the store.
    config : what it was trained with.
    """

    run: Run
    config: TrainingConfig

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self.run.info.run_id)

    @property
    def digests(self) -> dict[str, str]:
        """The digests of its splits, by the name of the parameter, such as ``train_digest``."""
        return {name: self.run.data.params[name] for name in DIGEST_PARAMS}

    @property
    def threads(self) -> int | None:
        """The number of threads that it computed with; None if it is not recorded, or cannot be true."""
        threads = parse_count(self.run.data.tags.get("environment.threads"))
        return threads if threads and threads <= MAX_THREADS else None


def load_original(run_id: str) -> Original:
    """Return the run that is to be trained again, with its configuration.

    Raises
    ------
    UserError
        There is no such run; it did not finish; it lacks a parameter that decides the training.
    """
    run = runs.get_run(run_id)
    if run.info.status != "FINISHED":
        raise UserError(
            f"run {run_id} is {run.info.status}, so there is nothing to compare with; choose a finished run"
        )
    missing = [name for name in DIGEST_PARAMS if name not in run.data.params]
    if missing:
        raise UserError(f"run {run_id} lacks {', '.join(missing)}; choose a run that pytorch_demo.py logged")
    return Original(run, config_from_run(run))


def config_from_run(run: Run) -> TrainingConfig:
    """Return the configuration that the run was trained with.

    Raises
    ------
    UserError
        A parameter is missing or is not of its type.
    """
    try:
        return TrainingConfig.from_params(run.data.params)
    except UserError as error:
        raise UserError(f"run {run.info.run_id}: {error}") from None


def check_data_digests(run_id: str, expected: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Check that the data are those that an earlier run was trained on.

    Parameters
    ----------
    run_id
        Of the earlier run.
    expected, digests
        Of its data, and of the data that are here: name of a parameter, such as ``train_digest`` -> digest.

    Raises
    ------
    UserError
        A digest differs.
    """
    for name, digest in digests.items():
        if digest != expected.get(name):
            recorded = expected.get(name, "none")
            raise UserError(
                f"the data are not those of run {run_id} ({name} {digest[:12]}..., the run has {recorded[:12]}...); "
                "name their directory with --data-dir"
            )


def warn_about_changed_code(run: Run, code: CodeState) -> None:
    """Log a warning if the code is not the code of an earlier run."""
    tags = run.data.tags
    recorded = {name: tags.get(f"code.{name}") for name in CODE_TAGS}
    present = {name: code.tags.get(name) for name in CODE_TAGS}
    if recorded == present:
        return
    changes = ""
    if tags.get("code.dirty") == "true":
        patch = f"its artifact {PROVENANCE_FOLDER}/{PATCH_FILE}"
        changes = f", with changes ({patch if tags.get('code.patch_sha256') else 'of which there is no patch'})"
    logger.warning("this is not the code of run %s: commit %s%s", run.info.run_id, tags.get("code.commit"), changes)


def compare_with_original(original_run: Run, new_run: Run, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return whether the new run gave the same weights as the original, and what differs if not.

    Parameters
    ----------
    original_run, new_run
        As the store has them at the end of the new training.
    state
        The state dict of the new run's model.

    Returns
    -------
    dict
        ``reproduces``, the id of the original, and ``identical``. If they are not identical, also the
        ``largest_difference`` of a weight, the name of this ``weight``, and the ``metrics`` and ``circumstances``
        (tags of code and environment) that differ: name -> both values.
    """
    run_id = original_run.info.run_id
    original_sha256 = original_run.data.tags.get("result.weights_sha256")
    if original_sha256 == new_run.data.tags["result.weights_sha256"]:
        return {"reproduces": run_id, "identical": True}
    original = ModelReference(models.find_model_uri(run_id))
    original_state = loading.load_model(original).module.state_dict()
    if _hash_without_names(original_state) == _hash_without_names(state):
        return {"reproduces": run_id, "identical": True}
    weight, largest_difference = _find_largest_difference(original_state, state)
    return {
        "reproduces": run_id,
        "identical": False,
        "weight": weight,
        "largest_difference": largest_difference,
        "metrics": _compare_metrics(original_run.data.metrics, new_run.data.metrics),
        "circumstances": _compare_circumstances(original_run.data.tags, new_run.data.tags),
    }


def _sort_by_layer(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Return the names and tensors in the order of the layers.

    Names alone cannot be compared. The same layer is "1.weight" in the oldest runs and "1.0.weight" now, because the
    network is nested one level deeper. An exported model does not keep the order of the layers either, so the names
    are sorted, and numbers in them by value.
    """

    def sort_key(item: tuple[str, Tensor]) -> list[tuple[int, str]]:
        parts = item[0].split(".")
        return [(int(part) if part.isdecimal() else -1, part) for part in parts]

    return sorted(state.items(), key=sort_key)


def _hash_without_names(state: Mapping[str, Tensor]) -> str:
    numbered = {}
    for index, (_, tensor) in enumerate(_sort_by_layer(state)):
        numbered[f"{index:06}"] = tensor
    return compute_weights_sha256(numbered)


def _find_largest_difference(original: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> tuple[str, float | None]:
    """Return the name of the weight that differs most, and by how much."""
    original_items, new_items = _sort_by_layer(original), _sort_by_layer(new)
    original_shapes = [tensor.shape for _, tensor in original_items]
    new_shapes = [tensor.shape for _, tensor in new_items]
    if original_shapes != new_shapes:
        return "other shapes", None
    differences = {}
    for (_, original_tensor), (name, new_tensor) in zip(original_items, new_items, strict=True):
        difference = (original_tensor.double() - new_tensor.double()).abs().max()
        differences[name] = difference.item()
    weight = max(differences, key=lambda name: differences[name])
    return weight, differences[weight]


def _compare_metrics(original: Mapping[str, float], new: Mapping[str, float]) -> dict[str, list[float]]:
    """Return the metrics that both runs have and that differ, except times."""
    different = {}
    for name, value in original.items():
        if name.startswith(TIMING_METRICS) or name not in new:
            continue
        if new[name] != value:
            different[name] = [value, new[name]]
    return different


def _compare_circumstances(original: Mapping[str, str], new: Mapping[str, str]) -> dict[str, list[str | None]]:
    """Return the tags of code and environment that differ; None if a run lacks one."""
    different = {}
    for name in sorted({*original, *new}):
        if not name.startswith(("code.", "environment.")):
            continue
        if original.get(name) != new.get(name):
            different[name] = [original.get(name), new.get(name)]
    return different
