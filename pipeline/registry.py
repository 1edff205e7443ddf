"""MLflow's registry: versions of a model, their stages and aliases.

The alias is the single pointer that is moved in one step; the stage follows it. MLflow will drop stages some day and
shows aliases first already.
"""

import warnings
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import UserError
from pipeline.tracking import client

STAGING, PRODUCTION, ARCHIVED = "Staging", "Production", "Archived"
CHALLENGER, CHAMPION = "challenger", "champion"

warnings.filterwarnings("ignore", ".*transition_model_version_stage.*deprecated", FutureWarning)


def check_name(name: str) -> str:
    """Return ``name``; raise UserError where MLflow would not take it for a registered model, before any work."""
    if not name.strip() or set(name) & set("/:@%") or name != name.strip():
        raise UserError(f"{name!r} cannot name a registered model; leave out / : @ % and blanks at the ends")
    return name


def register(name: str, model_uri: str, run_id: str) -> int:
    """Register the model as the next version of ``name``, in Staging, alias challenger; return its number."""
    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client().create_model_version(name, model_uri, run_id, model_id=model_uri.removeprefix("models:/"))
    _stage(version, STAGING)
    client().set_registered_model_alias(name, CHALLENGER, version.version)
    return int(version.version)


def get_version(name: str, number: int) -> ModelVersion:
    """Return version ``number`` of the registered model ``name``; raise UserError where there is none."""
    try:
        return client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"there is no version {number} of a model {name!r}; mlflow ui lists them") from None


def version_of(run_id: str, name: str | None) -> ModelVersion:
    """Return the newest version that was registered from the run, of model ``name`` where given, or raise UserError."""
    found = [v for v in client().search_model_versions(f"run_id='{run_id}'") if name in (None, v.name)]
    if not found:
        wanted = f"as {name!r} " if name else ""
        raise UserError(f"run {run_id} is not registered {wanted}; train without --no-register")
    if len(names := {version.name for version in found}) > 1:
        raise UserError(f"run {run_id} is registered as {', '.join(sorted(names))}; choose one with --model-name")
    return max(found, key=lambda version: int(version.version))


def champion(name: str) -> ModelVersion | None:
    """Return the version in Production, to which the alias champion points, or None."""
    number = client().get_registered_model(name).aliases.get(CHAMPION)
    return client().get_model_version(name, number) if number else None


def promote(version: ModelVersion) -> None:
    """Put ``version`` in Production: the alias moves in one step, then the stage; earlier ones are archived.

    Does what is still to do: nothing at all for a version that is in Production already.
    """
    if client().get_registered_model(version.name).aliases.get(CHAMPION) != version.version:
        client().set_registered_model_alias(version.name, CHAMPION, version.version)
    if version.current_stage != PRODUCTION:
        _stage(version, PRODUCTION)
    if client().get_registered_model(version.name).aliases.get(CHALLENGER) == version.version:
        client().delete_registered_model_alias(version.name, CHALLENGER)


def tag(version: ModelVersion, tags: dict[str, Any]) -> None:
    """Set tags on the version."""
    for key, value in tags.items():
        client().set_model_version_tag(version.name, version.version, key, str(value))


def _stage(version: ModelVersion, stage: str) -> None:
    client().transition_model_version_stage(
        version.name, version.version, stage, archive_existing_versions=stage == PRODUCTION
    )
