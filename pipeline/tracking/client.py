"""MLflow's client as a gate: secrets are taken out of what goes to the store, and files fail with one kind of error."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import mlflow
from mlflow.entities import Param, RunTag

from pipeline.redact import redact
from pipeline.tracking.artifact_store import check_files_are_shared, explain_artifact_errors

# They take paths on this machine, which stay as they are. `pipeline.tracking.artifacts` redacts the files.
FILE_METHODS = ("download_artifacts", "log_artifact", "log_artifacts", "log_model_artifacts")
# They use the artifact store, which has libraries and exceptions of its own; and whether they write to it.
ARTIFACT_METHODS = {
    "download_artifacts": False,
    "list_artifacts": False,
    "log_artifact": True,
    "log_artifacts": True,
    "log_model_artifacts": True,
    "log_text": True,
}


class RedactingClient(mlflow.MlflowClient):
    """MLflow's client; every name, tag, parameter, description and text that it is given is redacted first.

    That holds for what is searched, too: a name is found under which it was stored.
    """

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name.startswith("_") or not callable(attribute):
            return attribute
        method = attribute if name in FILE_METHODS else _redact_arguments(attribute)
        return _explain_errors(self, name, method) if name in ARTIFACT_METHODS else method


def _explain_errors(client: RedactingClient, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method, whose first argument is the id of a run, or of a logged model, with `ArtifactError`."""

    @functools.wraps(method)
    def call(owner: str, *arguments: Any, **options: Any) -> Any:
        def find_address() -> str:
            if name == "log_model_artifacts":
                return str(client.get_logged_model(owner).artifact_location)
            return str(client.get_run(owner).info.artifact_uri)

        with explain_artifact_errors(find_address, writes=ARTIFACT_METHODS[name]):
            result = method(owner, *arguments, **options)
        if name == "list_artifacts" and not result and not any(arguments):
            check_files_are_shared(find_address(), owner, result)
        return result

    return call


def _redact_arguments(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        redacted = {name: _redact(value) for name, value in options.items()}
        return method(*[_redact(value) for value in arguments], **redacted)

    return call


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Param | RunTag):
        return type(value)(value.key, redact(value.value))
    if isinstance(value, Mapping):
        return {key: _redact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact(item) for item in value]
    return value
