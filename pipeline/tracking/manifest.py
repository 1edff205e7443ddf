"""The manifest of a model: every file of its folder, and how to use the model. Its SHA-256 is the model's identity."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.data.forms import Form, parse_form
from pipeline.documents import DamagedError, describe_problem, is_unicode, parse_yaml
from pipeline.errors import UserError
from pipeline.regular_files import read_file

METADATA_FILE = "MLmodel"
MODEL_FILE = "data/model.pt2"
REQUIRED_FILES = (METADATA_FILE, MODEL_FILE)
# MLflow writes these too, and reads them when it serves a model. The scripts do not read them.
OTHER_FILES = (
    "conda.yaml",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
)
MAX_METADATA_SIZE = 1_000_000  # bytes


@dataclass(frozen=True)
class ModelFile:
    """A file of a model's folder: its path there, its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a model is.

    Attributes
    ----------
    files : all files of its folder, sorted by name.
    usage : what its file ``MLmodel`` says of class names, shape and preparation, see `Usage`. It was not checked.
    """

    files: tuple[ModelFile, ...]
    usage: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The identity of the model: the SHA-256 of the manifest as JSON, in hexadecimal."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def build_manifest(folder: Path, origin: str) -> Manifest:
    """Return the manifest of the model in ``folder``, whatever it is; ``origin`` names the model in errors.

    Raises
    ------
    UserError
        The folder is empty, or has something that is no file.
    """
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not is_unicode(name):
            raise UserError(f"{origin} has {name!r}, which is no name of a file; train it again")
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise UserError(f"{origin} has {name!r}, which is no file; train it again")
        if path.is_file():
            names.append(name)
    if not names:
        raise UserError(f"cannot get {origin} (its files are gone); check in mlflow ui that it exists")
    files = tuple(_describe_file(folder, name) for name in sorted(names))
    return Manifest(files, _read_raw_usage(folder / METADATA_FILE))


def _describe_file(folder: Path, name: str) -> ModelFile:
    with (folder / name).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFile(name, (folder / name).stat().st_size, sha256)


def _read_raw_usage(file: Path) -> dict[str, Any]:
    """Return what the file says, whatever it is, as far as JSON can hold it."""
    try:
        content = _read_metadata(file)
    except (OSError, DamagedError):
        return {}
    metadata = content.get("metadata") if isinstance(content, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {field: metadata.get(field) for field in Usage.model_fields}


def _read_metadata(file: Path) -> Any:
    return parse_yaml(read_file(file, MAX_METADATA_SIZE))


# --- is it one of this pipeline? -------------------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _PytorchFlavor(_Part):
    """How MLflow loads the model as a PyTorch model."""

    model_config = ConfigDict(extra="forbid")

    code: None = None
    model_data: Literal["data"]
    pytorch_version: str


class _PythonFunctionFlavor(_Part):
    """How MLflow serves the model."""

    data: Literal["data"]
    loader_module: Literal["mlflow.pytorch"]
    code: None = None


class _Flavors(_Part):
    model_config = ConfigDict(extra="forbid")

    pytorch: _PytorchFlavor
    python_function: _PythonFunctionFlavor


class Usage(_Part):
    """How to use a model.

    Attributes
    ----------
    classes : the class names, in the order of the logits.
    shape : channels, height and width of an image.
    preparation : what `pipeline.data.forms.describe_form` says of the form of an image.
    """

    classes: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    shape: Annotated[tuple[int, int, int], Field(strict=False)]
    preparation: str | dict[str, Any]

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if "" in names or len(set(names)) < len(names):
            raise ValueError("a name is empty or there twice")
        return names

    @model_validator(mode="after")
    def _check_form(self) -> "Usage":
        parse_form(self.shape, self.preparation)
        return self

    @property
    def form(self) -> Form:
        """The form of an image."""
        return parse_form(self.shape, self.preparation)


class _Metadata(_Part):
    flavors: _Flavors
    metadata: Usage


def check_model_folder(folder: Path, manifest: Manifest, origin: str) -> Usage:
    """Return how to use the model.

    Raises
    ------
    UserError
        The folder has other files than a model of this pipeline, or its file ``MLmodel`` says something else.
    """
    names = [file.name for file in manifest.files]
    if MODEL_FILE not in names:
        raise UserError(f"{origin} is not in MLflow's pt2 format (pickle can run any code); train it again")
    for name in names:
        if name not in REQUIRED_FILES + OTHER_FILES:
            raise UserError(f"{origin} has a file {name!r}, which no model of this pipeline has; train it again")
    try:
        return _Metadata.model_validate(_read_metadata(folder / METADATA_FILE)).metadata
    except (OSError, ValueError) as error:
        problem = _describe_problem(error)
        raise UserError(
            f"{METADATA_FILE} of {origin} is not one of this pipeline ({problem}); train it again"
        ) from None


def _describe_problem(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, OSError):
        return str(error.strerror)
    return describe_problem(error) if isinstance(error, ValidationError) else str(error)
