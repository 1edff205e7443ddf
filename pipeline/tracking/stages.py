"""Stages of versions. They follow the aliases. Unity Catalog has none, and MLflow will drop them in a later version."""

import logging
import warnings

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.tracking.failures import is_outage
from pipeline.tracking.store import get_client

logger = logging.getLogger(__name__)

NONE, STAGING, PRODUCTION, ARCHIVED = "None", "Staging", "Production", "Archived"
# What a store answers that has no stages. No request of this project names a stage that MLflow does not know.
REFUSAL_CODES = ("INVALID_PARAMETER_VALUE", "FEATURE_DISABLED", "NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND")
REFUSAL_TEXTS = ("is unsupported", "failed with error code 404")

_stores_without_stages: set[str] = set()

warnings.filterwarnings("ignore", ".*transition_model_version_stage.*deprecated", FutureWarning)


def read_stage(version: ModelVersion) -> str:
    """Return the stage of the version; `NONE` if it has none, also in a store without stages."""
    return str(version.current_stage or NONE)


def set_stage(version: ModelVersion, stage: str) -> None:
    """Set the stage of the version. A store without stages has aliases alone, which is said once."""
    registry_uri = mlflow.get_registry_uri()
    if registry_uri in _stores_without_stages:
        return
    try:
        get_client().transition_model_version_stage(version.name, version.version, stage)
    except MlflowException as error:
        if is_outage(error) or not _refuses_stages(error):
            raise
        _stores_without_stages.add(registry_uri)
        logger.info("this store has no stages; the aliases champion and challenger say what is in Production")


def _refuses_stages(error: MlflowException) -> bool:
    return error.error_code in REFUSAL_CODES or any(text in error.message for text in REFUSAL_TEXTS)


def follow_alias(champion: ModelVersion, versions: list[ModelVersion], *, is_expected: bool) -> None:
    """Give Production to the champion alone. What is not expected, a person has moved: it is said before it changes."""
    changes = []
    for version in versions:
        is_champion = int(version.version) == int(champion.version)
        if read_stage(version) == PRODUCTION and not is_champion:
            changes.append((version, ARCHIVED))
    if read_stage(champion) != PRODUCTION:
        changes.append((champion, PRODUCTION))
    for version, stage in changes:
        if not is_expected and mlflow.get_registry_uri() not in _stores_without_stages:
            logger.warning(
                "version %s of %s has the stage %s, and the alias champion, which decides, points to version %s: "
                "a person has moved one of them; the stage becomes %s",
                version.version,
                version.name,
                read_stage(version),
                champion.version,
                stage,
            )
        set_stage(version, stage)
