"""Names of registered models: which ones the store has, and whether a name means the model that was asked for."""

from collections.abc import Iterator
from functools import lru_cache

import mlflow
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking.names import MODEL, check_is_exact, check_name, format_names, shorten_name
from pipeline.tracking.pages import iterate_pages
from pipeline.tracking.store import get_client
from pipeline.tracking.unity_catalog import check_levels, is_unity_catalog

PAGE_SIZE = 1000  # models; MLflow sends no more in one answer
FORBIDDEN_CHARACTERS = "/:@%'"  # MLflow refuses them, or does not find the model again
RESERVED_NAMES = (".", "..")
MISSING_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # of a name that no model can have


def check_model_name(name: str) -> str:
    """Return ``name``, which the store is not asked for.

    Raises
    ------
    UserError
        MLflow cannot take it for a registered model, or cannot find the model again.
    """
    is_impossible = name in RESERVED_NAMES or bool(set(name) & set(FORBIDDEN_CHARACTERS))
    if is_impossible or not name.strip() or name != name.strip():
        forbidden = " ".join(FORBIDDEN_CHARACTERS)
        raise UserError(
            f"{shorten_name(name)} cannot name a registered model; leave out {forbidden} and blanks at the ends, and "
            f"use another name than {' and '.join(RESERVED_NAMES)}"
        )
    return name


def check_name_for_training(name: str) -> RegisteredModel | None:
    """Check before a training that the store can register it as ``name``; return the model, or None if it is a new one.

    The name of a model that exists is right, whatever it is.

    Raises
    ------
    UserError
        No model can be created with this name, or the store takes it for the name of another model.
    """
    model = find_model(name)
    if model is None:
        check_name(name, MODEL)
        if is_unity_catalog():
            check_levels(name)
    return model


def find_model(name: str) -> RegisteredModel | None:
    """Return the registered model of exactly this name, or None.

    Raises
    ------
    UserError
        The database of the store takes the name of another model for the same one.
    """
    try:
        model = get_client().get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in MISSING_CODES:
            raise
        return None
    check_is_exact("model", name, model.name)
    return model


def check_exact_name(name: str) -> None:
    """Check before a change that ``name`` is the model's own name; each name is asked for once in a process.

    Raises
    ------
    UserError
        The database of the store takes the name of another model for the same one.
    """
    _check_exact_name(mlflow.get_registry_uri(), name)


@lru_cache(maxsize=100)
def _check_exact_name(registry_uri: str, name: str) -> None:
    find_model(name)


def list_models() -> Iterator[RegisteredModel]:
    """Return all registered models of the store, with their aliases, page by page."""
    client = get_client()
    return iterate_pages(lambda token: client.search_registered_models(max_results=PAGE_SIZE, page_token=token))


def list_model_names() -> list[str]:
    """Return the names of the store's registered models, sorted."""
    return sorted(str(model.name) for model in list_models())


def resolve_model_name(name: str | None) -> str:
    """Return ``name``, or the name of the store's only registered model if it is None.

    Raises
    ------
    UserError
        There is no such model, or ``name`` is None and there are several.
    """
    if name is not None and find_model(name) is not None:
        return name
    names = list_model_names()
    if name is None and len(names) == 1:
        return names[0]
    problem = (
        f"there is no registered model {shorten_name(name)}" if name else "choose a registered model with --model-name"
    )
    raise UserError(f"{problem}; this store has {format_names(names) or 'none: train one first'}")
