"""Tags of registered models and of their versions.

MLflow writes or removes a tag in one transaction, and lets only accounts do it that may edit the model.
"""

from mlflow.exceptions import MlflowException

from pipeline.tracking.model_names import check_exact_name
from pipeline.tracking.store import get_client
from pipeline.tracking.unity_catalog import MAX_TAG_LENGTH as UNITY_CATALOG_TAG_LENGTH
from pipeline.tracking.unity_catalog import is_unity_catalog

# Characters. A version may have longer tags, but the tag of a model is a VARCHAR(5000) on every database server.
MAX_TAG_LENGTH = 5000


def longest_tag() -> int:
    """Return how many characters a tag of a model or version may have in this store."""
    return UNITY_CATALOG_TAG_LENGTH if is_unity_catalog() else MAX_TAG_LENGTH


def read_model_tags(name: str) -> dict[str, str]:
    """Return the tags of the registered model, as one request reads them."""
    return dict(get_client().get_registered_model(name).tags)


def set_model_tag(name: str, tag: str, value: str) -> None:
    """Set a tag of the registered model."""
    check_exact_name(name)
    get_client().set_registered_model_tag(name, tag, value)


def delete_model_tag(name: str, tag: str) -> None:
    """Remove a tag of the registered model; nothing happens if it has no such tag."""
    check_exact_name(name)
    get_client().delete_registered_model_tag(name, tag)


def set_version_tag(name: str, number: int, tag: str, value: str) -> None:
    """Set a tag of a version."""
    check_exact_name(name)
    get_client().set_model_version_tag(name, str(number), tag, value)


def delete_version_tag(name: str, number: int, tag: str) -> bool:
    """Remove a tag of a version if the account may; return whether it may.

    MLflow's permission EDIT is enough to set a tag of a version, but not to remove one.
    """
    check_exact_name(name)
    try:
        get_client().delete_model_version_tag(name, str(number), tag)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        return False
    return True
