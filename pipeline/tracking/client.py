"""MLflow's client as a gate: no text goes to the store before secrets were taken out of it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import mlflow
from mlflow.entities import Param, RunTag

from pipeline.redact import redact

# They take paths on this machine, which stay as they are. `pipeline.tracking.artifacts` redacts the files.
FILE_METHODS = ("download_artifacts", "log_artifact", "log_artifacts", "log_model_artifacts")


class RedactingClient(mlflow.MlflowClient):
    """MLflow's client; every name, tag, parameter, description and text that it is given is redacted first.

    That holds for what is searched, too: a name is found under which it was stored.
    """

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name.startswith("_") or name in FILE_METHODS or not callable(attribute):
            return attribute
        return _redact_arguments(attribute)


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
