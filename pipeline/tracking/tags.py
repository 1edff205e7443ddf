"""Tags of registered models and of their versions.

MLflow writes or removes a tag in one transaction, and lets only accounts do it that may edit the model.
"""

from mlflow.exceptions import MlflowException

from pipeline.tracking.store import get_client

# Characters. A version may have longer tags, but the tag of a model is a VARCHAR(5000) on every database server.
MAX_TAG_LENGTH = 5000


def read_model_tags(name: str) -> dict[str, str]:
    """Return the tags of the registered model, as one request reads them."""
    return dict(get_client().get_registered_model(name).tags)


def set_model_tag(name: str, tag: str, value: str) -> None:
    """Set a tag of the registered model."""
    get_client().set_registered_model_tag(name, tag, value)


def delete_model_tag(name: str, tag: str) -> None:
    """Remove a tag of the registered model; nothing happens if it has no such tag."""
    get_client().delete_registered_model_tag(name, tag)


def set_version_tag(name: str, number: int, tag: str, value: str) -> None:
    """Set a tag of a version."""
    get_client().set_model_version_tag(name, str(number), tag, value)


def delete_version_tag(name: str, number: int, tag: str) -> bool:
    """Remove a tag of a version if the account may; return whether it may.

    MLflow's permission EDIT is enough to set a tag of a version, but not to remove one.
    """
    try:
        get_client().delete_model_version_tag(name, str(number), tag)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
        return False
    return True
