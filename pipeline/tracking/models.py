"""Models in the store: log one, find it, load it without running its author's code."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException

from pipeline.data.catalog import IMAGE_SHAPE
from pipeline.errors import UserError
from pipeline.redact import redact
from pipeline.tracking.failures import is_outage
from pipeline.tracking.runs import Run, get_run
from pipeline.tracking.store import get_client

if TYPE_CHECKING:  # a promotion needs no PyTorch, which takes seconds to import
    import torch
    from mlflow.models import Model, ModelSignature

INPUT_SHAPE = (-1, *IMAGE_SHAPE)
MODEL_FILE = Path("data", "model.pt2")  # in the folder of a model
REQUIRED_PACKAGES = ("mlflow", "torch", "numpy")  # what a model needs to be served


@dataclass(frozen=True)
class StoredModel:
    """A model in the store, loaded.

    Attributes
    ----------
    module : float32 [N, 1, 28, 28] of raw pixels to logits, float32 [N, classes].
    model_id, run_id : MLflow's ids of the model and of the run that made it.
    uri : the address it was loaded from.
    classes : the names of the classes, in the order of the logits; numbers if the model does not name them.
    sha256 : of the model's file, in hexadecimal.
    size : of the model's file, in bytes.
    """

    module: "torch.nn.Module"
    model_id: str
    run_id: str
    uri: str
    classes: tuple[str, ...]
    sha256: str
    size: int


def save_model(model: "torch.nn.Module", examples: "torch.Tensor", classes: Sequence[str], folder: Path) -> None:
    """Write ``model`` to ``folder`` in MLflow's ``pt2`` format (torch.export); the store is not needed.

    Parameters
    ----------
    model
        On the CPU, in evaluation mode, contiguous.
    examples
        float32 [2, 1, 28, 28], stored as the input example. Two, because torch.export takes a batch of one for a
        constant.
    classes
        Their names go into the model's metadata, so that whoever has the model can name its answers.
    folder
        It must not exist.
    """
    import mlflow.pytorch

    mlflow.pytorch.save_model(
        model,
        folder,
        serialization_format="pt2",
        signature=_build_signature(len(classes)),
        input_example=examples.numpy(),
        metadata={"classes": list(classes)},
        pip_requirements=[_pin_package(name) for name in REQUIRED_PACKAGES],
    )


def log_model(run_id: str, folder: Path) -> str:
    """Log the model that `save_model` wrote to ``folder`` to the run; return its address, ``models:/<model_id>``.

    It may be called again after any failure: the run gets one model.
    """
    client = get_client()
    run = get_run(run_id)
    model = _find_model(run) or client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=run.data.params
    )
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    if model.status != LoggedModelStatus.READY:
        _write_origin(folder, model)
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def _find_model(run: Run) -> LoggedModel | None:
    """Return the run's model that is complete, else one of which an upload was interrupted, else None."""
    found = get_client().search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    for status in (LoggedModelStatus.READY, LoggedModelStatus.PENDING):
        for model in found:
            if model.status == status:
                return model
    return None


def _write_origin(folder: Path, model: LoggedModel) -> None:
    """Write into the file MLmodel which logged model of which run this is."""
    from mlflow.models import Model

    metadata = Model.load(folder)
    metadata.model_id = model.model_id
    metadata.model_uuid = model.model_id
    metadata.run_id = model.source_run_id
    metadata.artifact_path = model.artifact_location
    metadata.save(folder / "MLmodel")


def _build_signature(classes: int) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype("float32")
    inputs = Schema([TensorSpec(float32, INPUT_SHAPE)])
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
        if model.status == LoggedModelStatus.READY:
            return f"models:/{model.model_id}"
    raise UserError(f"run {run_id} has no model (its status is {run.info.status}); choose a finished training")


def load_model(uri: str) -> StoredModel:
    """Return the model at an address that MLflow knows, without running its author's code.

    Raises
    ------
    UserError
        There is no model, it is not in the ``pt2`` format, brings code of its own, or takes other inputs than images.
    """
    import mlflow.pytorch
    import torch
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as directory:
        folder = _download_model(uri, directory)
        file = _find_model_file(folder)
        metadata = Model.load(folder / "MLmodel")
        _check_metadata(uri, metadata)
        module = mlflow.pytorch.load_model(str(folder))
        return StoredModel(
            module=module.to(memory_format=torch.channels_last),  # twice as fast
            model_id=str(metadata.model_id),
            run_id=str(metadata.run_id),
            uri=uri,
            classes=_read_classes(metadata),
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            size=file.stat().st_size,
        )


def compute_model_sha256(uri: str) -> str:
    """Return the SHA-256, in hexadecimal, of the file of the model at ``uri``, without loading it.

    Raises
    ------
    UserError
        There is no model, or it is not in the ``pt2`` format.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = _find_model_file(_download_model(uri, directory))
        return hashlib.sha256(file.read_bytes()).hexdigest()


def _check_metadata(uri: str, metadata: "Model") -> None:
    if metadata.flavors.get("pytorch", {}).get("code"):
        raise UserError(f"{uri} brings code of its own, which would run here; log it without code_paths")
    signature = metadata.signature
    inputs = signature.inputs.inputs if signature and signature.inputs else []
    shapes = [getattr(tensor, "shape", None) for tensor in inputs]  # a column of a table has none
    if shapes != [INPUT_SHAPE]:
        raise UserError(f"{uri} takes inputs of shape {shapes or 'unknown'}, not {[INPUT_SHAPE]}; choose another model")


def _read_classes(metadata: "Model") -> tuple[str, ...]:
    """Return the names in the model's metadata, or numbers."""
    names = (metadata.metadata or {}).get("classes")
    if names:
        return tuple(str(name) for name in names)
    signature = metadata.signature
    outputs = signature.outputs.inputs if signature and signature.outputs else []
    count = outputs[0].shape[-1] if outputs else 0
    return tuple(str(index) for index in range(count))


def _find_model_file(folder: Path) -> Path:
    file = folder / MODEL_FILE
    if not file.is_file():
        raise UserError("the model is not in MLflow's pt2 format (pickle can run any code); train it again")
    return file


def _download_model(uri: str, directory: str) -> Path:
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=directory))
    except (MlflowException, OSError, ValueError) as error:
        if is_outage(error):  # the model may well be there, so nobody may be refused for the lack of it
            raise
        reason = redact(str(error).splitlines()[0])
        raise UserError(f"cannot get {uri} ({reason}); check in mlflow ui that it exists") from None
    if not (folder / "MLmodel").is_file():
        raise UserError(f"cannot get {uri} (its files are gone); check in mlflow ui that it exists")
    return folder
