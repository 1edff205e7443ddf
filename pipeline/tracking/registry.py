"""MLflow's registry: versions of a model, their stages and aliases.

The alias is the pointer that moves in one step; the stage follows it. MLflow will drop stages in a later version and
shows aliases first already.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.tracking.aliases import CHALLENGER, CHAMPION, alias_version, get_champion, require_alias
from pipeline.tracking.failures import is_outage
from pipeline.tracking.model_names import (
    check_exact_name,
    check_model_name,
    check_name_for_training,
    list_model_names,
    resolve_model_name,
)
from pipeline.tracking.models import find_model_uri
from pipeline.tracking.names import check_is_exact
from pipeline.tracking.outages import create_once
from pipeline.tracking.pages import iterate_pages
from pipeline.tracking.stages import ARCHIVED, NONE, PRODUCTION, STAGING, follow_alias, read_stage, set_stage
from pipeline.tracking.store import get_client, retry_on_conflict

RUNS_IN_FILTER = 100  # the filter is a part of an address, of which some proxies take 8,000 characters
MAX_RUNS_IN_FILTERS = 500  # of more, listing all versions is quicker
DIGEST_TAG = "model.sha256"  # of a version: the identity of its model, set at its registration
DECISION_DIGEST_TAG = "gate.model_sha256"  # of a version: the same, set by each decision about it
ABSENT_TAG = "pipeline.absent"  # no model has it
NEW_MODEL_AGE = 60  # seconds; the account that created a model gets its permission a moment later
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<number>\d+)|@(?P<alias>.+))")

__all__ = [
    "ARCHIVED",
    "CHALLENGER",
    "CHAMPION",
    "PRODUCTION",
    "STAGING",
    "ModelVersion",
    "alias_version",
    "check_model_name",
    "check_name_for_training",
    "get_champion",
    "list_model_names",
    "resolve_model_name",
]


# --- register -------------------------------------------------------------------------------------------------------


def check_may_register(name: str) -> None:
    """Check before a training that its model can be registered as ``name``, and that this account may do it.

    Raises
    ------
    UserError
        The store cannot have a model of this name, or the account may not add versions to it.
    """
    client = get_client()
    try:
        model = check_name_for_training(name)
        if model is None:
            return
        # Needs the same permission as a new version, and changes nothing: there is no such tag.
        request = partial(client.delete_registered_model_tag, name, ABSENT_TAG)
        is_new = time.time() - model.creation_timestamp / 1000 < NEW_MODEL_AGE
        retry_on_conflict(request) if is_new else request()
    except MlflowException as error:
        if error.error_code == "PERMISSION_DENIED":
            raise UserError(
                f"your account may not add versions to the registered model {name!r}; ask its owner for the permission "
                "EDIT, choose another --model-name, or train with --no-register"
            ) from None
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and not is_outage(error):
            raise


def register_model(name: str, model_uri: str, run_id: str, sha256: str | None = None) -> int:
    """Register the model as the next version of ``name``, in Staging, alias challenger; return its number.

    If the run's model has a version already, it is that one. A version that a person or a gate has moved stays there.
    ``sha256`` is the identity of the model, which the version keeps; None: unknown.
    """
    client = get_client()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        check_exact_name(name)
    find = partial(_find_version, name, model_uri, run_id)
    model_id = model_uri.removeprefix("models:/")
    tags = {DIGEST_TAG: sha256} if sha256 else {}
    create = partial(client.create_model_version, name, model_uri, run_id, tags=tags, model_id=model_id)
    version = find() or create_once(partial(retry_on_conflict, create), find)
    stage = read_stage(version)
    if stage == NONE:
        set_stage(version, STAGING)
    if stage in (NONE, STAGING):
        _set_challenger(name, int(version.version))
    return int(version.version)


def _find_version(name: str, model_uri: str, run_id: str) -> ModelVersion | None:
    """Return the version of the run's model, the first one if there are several; None if it has none."""
    versions = [version for version in list_versions_of_run(run_id, name) if version.source == model_uri]
    return min(versions, key=lambda version: int(version.version), default=None)


def _set_challenger(name: str, number: int) -> None:
    """Let the alias challenger point to the version, unless it points to a later one, or this one is the champion."""
    aliases = get_client().get_registered_model(name).aliases
    challenger = int(aliases.get(CHALLENGER) or 0)
    champion = int(aliases.get(CHAMPION) or 0)
    if challenger < number and champion != number:
        retry_on_conflict(partial(set_alias, name, CHALLENGER, number))


# --- find versions --------------------------------------------------------------------------------------------------


def get_version(name: str, number: int) -> ModelVersion:
    """Return version ``number`` of the registered model ``name``.

    Raises
    ------
    UserError
        There is no such version, or the database of the store takes the name of another model for the same one.
    """
    try:
        version = get_client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"there is no version {number} of a model {name!r}; mlflow ui lists them") from None
    check_is_exact("model", name, version.name)
    return version


def resolve_version(name: str, version: str) -> int:
    """Return the number of a version: ``version`` is a number, or an alias such as ``@champion``.

    Raises
    ------
    UserError
        No version has the alias.
    """
    if not version.startswith("@"):
        return int(version)
    alias = version.removeprefix("@")
    return require_alias(name, alias, f"no version of {name!r} has the alias {alias!r}", "choose one with --version")


def list_versions_of_run(run_id: str, name: str | None = None) -> list[ModelVersion]:
    """Return the versions that were registered from the run; of model ``name`` only, if it is not None."""
    versions = _search_versions(f"run_id='{run_id}'")
    return [version for version in versions if name is None or version.name == name]


def get_version_of_run(run_id: str, name: str | None) -> ModelVersion:
    """Return the newest version that was registered from the run; of model ``name`` only, if it is not None.

    Raises
    ------
    UserError
        The run is not registered, or under several names.
    """
    versions = list_versions_of_run(run_id, name)
    if not versions:
        wanted = f" as {name!r}" if name else ""
        raise UserError(f"run {run_id} is not registered{wanted}; train without --no-register")
    names = sorted({version.name for version in versions})
    if len(names) > 1:
        raise UserError(f"run {run_id} is registered as {', '.join(names)}; choose one with --model-name")
    newest = max(int(version.version) for version in versions)
    return get_version(names[0], newest)  # a search leaves aliases out


def list_versions(name: str) -> list[ModelVersion]:
    """Return all versions of the registered model, with their tags and without their aliases."""
    return _search_versions(f"name='{name}'")


def _search_versions(filter_string: str) -> list[ModelVersion]:
    client = get_client()
    return list(iterate_pages(lambda token: client.search_model_versions(filter_string, page_token=token)))


def describe_stages(run_ids: Sequence[str] | None = None) -> dict[str, str]:
    """Return how the models of runs are registered, such as ``mnist-classifier 3 Production``, by run id.

    ``run_ids`` are the runs that the caller wants to know about; None: all of them. What the alias champion points to
    is in Production, whatever its stage is.
    """
    versions = _list_versions_of_runs(run_ids)
    names = sorted({str(version.name) for version in versions})
    aliases = {name: get_client().get_registered_model(name).aliases for name in names}
    descriptions: dict[str, list[str]] = {}
    for version in versions:
        stage = _describe_stage(version, aliases[str(version.name)])
        description = f"{version.name} {version.version}"
        if stage != NONE:
            description += f" {stage}"
        descriptions.setdefault(str(version.run_id), []).append(description)
    return {run_id: ", ".join(parts) for run_id, parts in descriptions.items()}


def _list_versions_of_runs(run_ids: Sequence[str] | None) -> list[ModelVersion]:
    """Return the versions that were registered from the runs, and from others too if the runs are many or None."""
    if run_ids is None or len(run_ids) > MAX_RUNS_IN_FILTERS:
        return _search_versions("")
    versions = []
    for start in range(0, len(run_ids), RUNS_IN_FILTER):
        quoted = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + RUNS_IN_FILTER])
        versions += _search_versions(f"run_id IN ({quoted})")
    return versions


def _describe_stage(version: ModelVersion, aliases: Mapping[str, str]) -> str:
    """Return the stage of a version as its aliases have it; without them, as the store has it."""
    numbers = {alias: int(number) for alias, number in aliases.items()}
    number, stage = int(version.version), read_stage(version)
    if numbers.get(CHAMPION) == number:
        return PRODUCTION
    if numbers.get(CHALLENGER) == number:
        return STAGING
    return NONE if stage == PRODUCTION and CHAMPION in numbers else stage


# --- find models ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelReference:
    """Where a model is, and its name and version if it is registered."""

    uri: str
    name: str | None = None
    version: int | None = None


def reference_version(name: str, number: int) -> ModelReference:
    """Return where version ``number`` of the registered model ``name`` is; it may not exist."""
    return ModelReference(f"models:/{name}/{number}", name, number)


def resolve_model(model_uri: str | None, run_id: str | None, name: str | None) -> ModelReference:
    """Return the model at ``model_uri``, else that of the run, else the one in Production under ``name``.

    ``name`` may be None if the store has only one registered model.

    Raises
    ------
    UserError
        There is no such model.
    """
    if model_uri:
        return _resolve_uri(model_uri)
    if run_id:
        versions = list_versions_of_run(run_id)
        if not versions:
            return ModelReference(find_model_uri(run_id))
        newest = max(versions, key=lambda version: int(version.version))
        return ModelReference(find_model_uri(run_id), str(newest.name), int(newest.version))
    name = resolve_model_name(name)
    problem = f"no version of {name!r} is in Production"
    number = require_alias(name, CHAMPION, problem, "promote one, or choose a model with --run-id")
    return reference_version(name, number)


def _resolve_uri(model_uri: str) -> ModelReference:
    match = MODEL_URI.fullmatch(model_uri)
    if not match:
        return ModelReference(model_uri)
    name = match["name"]
    number = resolve_version(name, match["number"] or f"@{match['alias']}")
    return reference_version(name, number)


# --- change versions ------------------------------------------------------------------------------------------------


def set_alias(name: str, alias: str, number: int) -> None:
    """Let the alias point to version ``number``."""
    check_exact_name(name)
    get_client().set_registered_model_alias(name, alias, str(number))


def sync_stages(name: str, *, is_moved: bool = False) -> None:
    """Make the stages follow the alias champion; usually there is nothing to change.

    What does not agree was changed by hand, and is reported first; unless the alias has just moved, with ``is_moved``.
    """
    champion = get_champion(name)
    if champion is None:
        return
    follow_alias(champion, list_versions(name), is_expected=is_moved)
    if alias_version(name, CHALLENGER) == int(champion.version):
        _delete_alias(name, CHALLENGER)


def _delete_alias(name: str, alias: str) -> None:
    """Delete the alias if the account may: MLflow's permission EDIT is enough to set one, but not to delete it."""
    try:
        get_client().delete_registered_model_alias(name, alias)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise


def update_version(name: str, number: int, description: str, tags: Mapping[str, str]) -> None:
    """Set the description of a version, and tags on it."""
    check_exact_name(name)
    client = get_client()
    client.update_model_version(name, str(number), description)
    for tag, value in tags.items():
        client.set_model_version_tag(name, str(number), tag, value)
