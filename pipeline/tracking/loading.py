"""Load a model that the store has: check its files, compare them with what was recorded, then build the network.

No file is believed before that. Which run made the model is taken from the store, how to load it is fixed here, and the
network is built by `pipeline.pt2`, which runs no code of the file.
"""

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from pipeline.data.forms import Form
from pipeline.errors import UserError
from pipeline.pt2.archive import read_archive
from pipeline.pt2.program import Program
from pipeline.redact import redact
from pipeline.tracking import runs
from pipeline.tracking.artifact_store import explain_artifact_errors, is_refused
from pipeline.tracking.failures import is_outage
from pipeline.tracking.manifest import MODEL_FILE, Manifest, Usage, build_manifest, check_model_folder
from pipeline.tracking.models import RUN_DIGEST_TAG
from pipeline.tracking.registry import DECISION_DIGEST_TAG, DIGEST_TAG, ModelReference, get_version
from pipeline.tracking.store import get_client

if TYPE_CHECKING:  # a promotion needs no PyTorch, which takes seconds to import
    import torch

logger = logging.getLogger(__name__)

MODEL_URI = re.compile(r"models:/(?P<model_id>m-[0-9a-zA-Z]+)")
ADDED_FILE = "registered_model_meta"  # MLflow writes it into each folder that it downloads; nobody reads it


@dataclass(frozen=True)
class StoredModel:
    """A model of the store, loaded.

    Attributes
    ----------
    module : float32 [N, channels, height, width] of raw pixels to logits, float32 [N, classes].
    model_id, run_id : MLflow's ids of the model and of the run that made it.
    uri : the address it was loaded from.
    classes : the names of the classes, in the order of the logits.
    form : of the images that it takes.
    sha256 : its identity, see `pipeline.tracking.manifest`.
    size : of its file, in bytes.
    parameters : how many trainable numbers it has.
    """

    module: "torch.nn.Module"
    model_id: str
    run_id: str
    uri: str
    classes: tuple[str, ...]
    form: Form
    sha256: str
    size: int
    parameters: int


@dataclass(frozen=True)
class OpenModel:
    """A model of the store whose files were checked, and compared with what was recorded.

    Attributes
    ----------
    reference : which model it is.
    model_id, run_id : MLflow's ids of the model and of the run that made it, by the store.
    folder : of its files; they are there inside the ``with`` block of `open_model` only.
    manifest : of these files.
    usage : how to use the model.
    program : the content of ``data/model.pt2``.
    """

    reference: ModelReference
    model_id: str
    run_id: str
    folder: Path
    manifest: Manifest
    usage: Usage
    program: Program

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.usage.classes

    @property
    def sha256(self) -> str:
        """The identity of the model."""
        return self.manifest.sha256

    def load(self) -> StoredModel:
        """Return the model with its network."""
        import torch

        from pipeline.pt2.network import build_network

        (size,) = [file.size for file in self.manifest.files if file.name == MODEL_FILE]
        network = build_network(self.program)
        return StoredModel(
            module=network.to(memory_format=torch.channels_last),  # twice as fast
            model_id=self.model_id,
            run_id=self.run_id,
            uri=self.reference.uri,
            classes=self.classes,
            form=self.usage.form,
            sha256=self.sha256,
            size=size,
            parameters=self.program.parameters,
        )


@contextmanager
def open_model(reference: ModelReference) -> Iterator[OpenModel]:
    """Download the model, check its files, compare them with what was recorded; its folder is there inside the block.

    Raises
    ------
    UserError
        There is no model, its files are not those of a model of this pipeline, they are not what was recorded, or it
        takes other inputs than images.
    """
    source = _find_source(reference)
    with tempfile.TemporaryDirectory() as directory:
        folder, manifest = _download(source, directory)
        _compare_digests(source, manifest)
        usage = check_model_folder(folder, manifest, source.name)
        program = read_archive((folder / MODEL_FILE).read_bytes(), source.name)
        _check_usage(source.name, usage, program)
        yield OpenModel(
            reference=reference,
            model_id=source.model_id,
            run_id=source.run_id,
            folder=folder,
            manifest=manifest,
            usage=usage,
            program=program,
        )


def read_model(reference: ModelReference) -> OpenModel:
    """Return the same without the folder, whose files are gone. Imports no PyTorch.

    Raises
    ------
    UserError
        As `open_model`.
    """
    with open_model(reference) as model:
        return model


def load_model(reference: ModelReference) -> StoredModel:
    """Return the model with its network.

    Raises
    ------
    UserError
        As `open_model`.
    """
    with open_model(reference) as model:
        return model.load()


def compute_identity(reference: ModelReference) -> str:
    """Return the identity that the model's files have now, without a comparison with what was recorded.

    Raises
    ------
    UserError
        There is no model, or its files are not those of a model of this pipeline.
    """
    with tempfile.TemporaryDirectory() as directory:
        _, manifest = _download(_find_source(reference), directory)
        return manifest.sha256


# --- where it is -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Where a model is, what to call it, and the identities that were recorded, by who recorded them."""

    model_id: str
    run_id: str
    name: str
    recorded: dict[str, str]


def _find_source(reference: ModelReference) -> _Source:
    if reference.name is None or reference.version is None:
        name = reference.uri
        model = _get_logged_model(reference.uri, name)
        run_id = str(model.source_run_id)
        recorded = {}
    else:
        name = f"{reference.name} version {reference.version}"
        version = get_version(reference.name, reference.version)
        model = _get_logged_model(str(version.source), name)
        run_id = str(model.source_run_id)
        if str(version.run_id) != run_id:
            raise UserError(
                f"{name} names run {version.run_id}, but the store says that run {run_id} made its model; "
                "register it again"
            )
        recorded = {
            "its registration": version.tags.get(DIGEST_TAG),
            "the decision": version.tags.get(DECISION_DIGEST_TAG),
        }
    recorded["its training"] = _read_run_digest(run_id)
    known = {record: sha256 for record, sha256 in recorded.items() if sha256}
    return _Source(str(model.model_id), run_id, name, known)


def _get_logged_model(uri: str, name: str) -> LoggedModel:
    match = MODEL_URI.fullmatch(uri)
    if match is None:
        raise UserError(
            f"cannot get {name} ({uri!r} is not the address of a logged model); name one with --run-id, or as "
            "models:/<name>/<version> or models:/<name>@<alias>"
        )
    try:
        return get_client().get_logged_model(match["model_id"])
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"cannot get {name} (the store has no such model); check in mlflow ui that it exists") from None


def _read_run_digest(run_id: str) -> str | None:
    """Return what the run recorded; None if the run is gone: what was recorded elsewhere counts then."""
    try:
        return runs.get_run(run_id).data.tags.get(RUN_DIGEST_TAG)
    except UserError:
        return None


def _download(source: _Source, directory: str) -> tuple[Path, Manifest]:
    try:
        uri = f"models:/{source.model_id}"
        with explain_artifact_errors(lambda: _find_location(source.model_id), writes=False):
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=directory))
    except (MlflowException, OSError, ValueError) as error:
        # The model may well be there, so nobody may be refused for the lack of it.
        if is_outage(error) or is_refused(error):
            raise
        reason = redact(str(error).splitlines()[0])
        raise UserError(f"cannot get {source.name} ({reason}); check in mlflow ui that it exists") from None
    (folder / ADDED_FILE).unlink(missing_ok=True)
    return folder, build_manifest(folder, source.name)


def _find_location(model_id: str) -> str:
    return str(get_client().get_logged_model(model_id).artifact_location)


# --- is it the one? --------------------------------------------------------------------------------------------------


def _compare_digests(source: _Source, manifest: Manifest) -> None:
    sha256 = manifest.sha256
    if not source.recorded:
        logger.warning("nobody recorded the SHA-256 of %s, so its files may have been changed", source.name)
    for record, expected in source.recorded.items():
        if expected != sha256:
            raise UserError(
                f"{source.name} is not the model that {record} recorded: its files have SHA-256 {sha256[:12]}..., "
                f"recorded is {expected[:12]}...; restore its files, or choose another model"
            )


def _check_usage(name: str, usage: Usage, program: Program) -> None:
    """Check that the network takes and gives what the metadata say, and that the scripts can use it."""
    input_shape = (-1, *usage.shape)
    if program.input_shape != input_shape:
        raise UserError(
            f"{name} takes inputs of shape {program.input_shape}, its metadata say {input_shape}; train it again"
        )
    if len(usage.classes) != program.classes:
        raise UserError(f"{name} names {len(usage.classes)} classes and gives {program.classes} logits; train it again")
