"""Models in the store: write one, log it, find it. `pipeline.tracking.loading` loads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus

from pipeline.data.forms import Form, describe_form
from pipeline.errors import UserError
from pipeline.pt2.archive import find_problem
from pipeline.pt2.export import rewrite_archive
from pipeline.tracking.manifest import MODEL_FILE, build_manifest
from pipeline.tracking.pages import iterate_pages
from pipeline.tracking.runs import Run, get_run
from pipeline.tracking.store import get_client

if TYPE_CHECKING:  # a promotion needs no PyTorch, which takes seconds to import
    import torch
    from mlflow.models import ModelSignature

RUN_DIGEST_TAG = "result.model_sha256"  # of the run that made the model
MODEL_DIGEST_TAG = "model.sha256"  # of the logged model
REQUIRED_PACKAGES = ("mlflow", "torch", "numpy")  # what a model needs to be served


class UnsavableNetworkError(UserError):
    """The network uses operators that the reader of model files does not know."""


def save_model(
    model: "torch.nn.Module", examples: "torch.Tensor", classes: Sequence[str], form: Form, folder: Path
) -> None:
    """Write ``model`` to ``folder`` in MLflow's ``pt2`` format (torch.export); the store is not needed.

    The archive is rewritten in the form that `pipeline.pt2.archive` reads. MLflow can read it too.

    Parameters
    ----------
    model
        On the CPU, in evaluation mode, contiguous.
    examples
        float32 [2, channels, height, width], stored as the input example. Two, because torch.export takes a
        batch of one for a constant.
    classes
        Their names go into the model's metadata, so that whoever has the model can name its answers.
    form
        Of the images; it goes there too, so that whoever has the model can prepare pictures for it.
    folder
        It must not exist.

    Raises
    ------
    UnsavableNetworkError
        The network uses operators that `pipeline.pt2.operators` does not list.
    """
    import mlflow.pytorch
    from mlflow.models import Model

    mlflow.pytorch.save_model(
        model,
        folder,
        serialization_format="pt2",
        signature=_build_signature(form.shape, len(classes)),
        input_example=examples.numpy(),
        metadata={"classes": list(classes), "shape": list(form.shape), "preparation": describe_form(form)},
        pip_requirements=[_pin_package(name) for name in REQUIRED_PACKAGES],
    )
    file = folder / MODEL_FILE
    exported = file.read_bytes()
    content = rewrite_archive(exported)
    problem = find_problem(content)
    if problem:
        raise UnsavableNetworkError(
            f"the network cannot be saved ({problem}); add what is missing to pipeline/pt2/operators.py and "
            "pipeline/pt2/network.py, then go on with: python pytorch_demo.py --resume last"
        )
    file.write_bytes(content)
    metadata = Model.load(folder)
    metadata.model_size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    metadata.save(folder / "MLmodel")


@dataclass(frozen=True)
class LoggedModelReference:
    """The address of a logged model, and its identity; None if a release before identities logged it."""

    uri: str
    sha256: str | None


def log_model(run_id: str, folder: Path) -> LoggedModelReference:
    """Log the model that `save_model` wrote to ``folder`` to the run; return its address, ``models:/<model_id>``.

    It may be called again after any failure: the run gets one model. The identity is that of the folder on this
    machine, not of what the store makes of it.
    """
    client = get_client()
    run = get_run(run_id)
    model = _find_model(run) or client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=run.data.params
    )
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    uri = f"models:/{model.model_id}"
    if model.status == LoggedModelStatus.READY:
        return LoggedModelReference(uri, model.tags.get(MODEL_DIGEST_TAG))
    _write_origin(folder, model)
    sha256 = build_manifest(folder, uri).sha256
    client.log_model_artifacts(model.model_id, str(folder))
    client.set_logged_model_tags(model.model_id, {MODEL_DIGEST_TAG: sha256})
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return LoggedModelReference(uri, sha256)


def _find_model(run: Run) -> LoggedModel | None:
    """Return the run's model that is complete, else one of which an upload was interrupted, else None.

    An interrupted one is marked as failed when others find that the process of the run is gone.
    """
    found = list_models_of_run(run)
    for status in (LoggedModelStatus.READY, LoggedModelStatus.PENDING, LoggedModelStatus.FAILED):
        for model in found:
            if model.status == status:
                return model
    return None


def list_models_of_run(run: Run) -> list[LoggedModel]:
    """Return all models that the run has logged, complete or not."""
    search = partial(
        get_client().search_logged_models, [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    )
    return list(iterate_pages(lambda token: search(page_token=token)))


def _write_origin(folder: Path, model: LoggedModel) -> None:
    """Write into the file MLmodel which logged model of which run this is."""
    from mlflow.models import Model

    metadata = Model.load(folder)
    metadata.model_id = model.model_id
    metadata.model_uuid = model.model_id
    metadata.run_id = model.source_run_id
    metadata.artifact_path = model.artifact_location
    metadata.save(folder / "MLmodel")


def _build_signature(shape: Sequence[int], classes: int) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype("float32")
    inputs = Schema([TensorSpec(float32, (-1, *shape))])
    outputs = Schema([TensorSpec(float32, (-1, classes))])
    return ModelSignature(inputs, outputs)


def _pin_package(name: str) -> str:
    """Return the requirement without the build label: torch 2.15.0+cpu is not on the package index."""
    release, _, _ = version(name).partition("+")
    return f"{name}=={release}"


def find_model_uri(run_id: str) -> str:
    """Return the address of the run's model, ``models:/<model_id>``.

    Raises
    ------
    UserError
        The run has logged no model.
    """
    run = get_run(run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    for output in reversed(outputs):
        model = get_client().get_logged_model(output.model_id)
        is_of_this_run = model.source_run_id == run_id  # an account that may edit the run can name any model
        if model.status == LoggedModelStatus.READY and is_of_this_run:
            return f"models:/{model.model_id}"
    raise UserError(f"run {run_id} has no model (its status is {run.info.status}); choose a finished training")
