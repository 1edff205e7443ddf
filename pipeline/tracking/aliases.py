"""Aliases of a registered model. People and servers before MLflow 3.17 leave some on versions that were deleted."""

import logging
from functools import lru_cache

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking.names import check_is_exact
from pipeline.tracking.store import get_client

logger = logging.getLogger(__name__)

CHALLENGER, CHAMPION = "challenger", "champion"


def alias_version(name: str, alias: str = CHAMPION) -> int | None:
    """Return the number of the version that the alias points to; None if there is none, or if it was deleted.

    Raises
    ------
    UserError
        There is no such registered model.
    """
    version = _find_version(name, alias)
    return int(version.version) if version else None


def get_champion(name: str) -> ModelVersion | None:
    """Return the version in Production, which the alias champion points to; None if there is none.

    Raises
    ------
    UserError
        There is no such registered model.
    """
    return _find_version(name, CHAMPION)


def require_alias(name: str, alias: str, problem: str, advice: str) -> int:
    """Return the number of the version that the alias points to.

    Raises
    ------
    UserError
        There is none: ``problem``; or it was deleted; or there is no such registered model. ``advice`` says what to do.
    """
    number = _read_alias(name, alias)
    if number is None:
        raise UserError(f"{problem}; {advice}")
    if _get_version(name, number) is None:
        raise UserError(f"{problem}: {_describe_deleted(name, alias, number)}; {advice}")
    return number


def _find_version(name: str, alias: str) -> ModelVersion | None:
    number = _read_alias(name, alias)
    if number is None:
        return None
    version = _get_version(name, number)
    if version is None:
        _warn_deleted(name, alias, number)
    return version


def _read_alias(name: str, alias: str) -> int | None:
    """Return the number that the alias has in the store; there may be no such version."""
    try:
        model = get_client().get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"there is no registered model {name!r}; mlflow ui lists them") from None
    check_is_exact("model", name, model.name)
    number = model.aliases.get(alias)
    return int(number) if number else None  # some stores give it as a text


def _get_version(name: str, number: int) -> ModelVersion | None:
    try:
        return get_client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


@lru_cache(maxsize=100)  # a process that asks again does not repeat the warning
def _warn_deleted(name: str, alias: str, number: int) -> None:
    logger.warning("%s, so it counts as not set", _describe_deleted(name, alias, number))


def _describe_deleted(name: str, alias: str, number: int) -> str:
    return f"the alias {alias} of {name!r} points to version {number}, which was deleted"
