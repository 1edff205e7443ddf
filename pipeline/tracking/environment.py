"""MLflow's variables in the environment: each is obeyed, or refused in one line. None is ignored without a word.

MLflow itself obeys most of them, such as those for accounts, proxies and certificates. Here are the ones that its
functions for scripts obey, and the client that we use does not; and those that would break what the scripts promise.
"""

import os

from mlflow import environment_variables
from mlflow.environment_variables import (
    MLFLOW_ENABLE_ASYNC_LOGGING,
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_ENABLE_WORKSPACES,
)
from mlflow.exceptions import MlflowException

from pipeline.documents import DamagedError, parse_json
from pipeline.errors import UserError
from pipeline.text import printable
from pipeline.tracking.client import RedactingClient

RUN_ID, EXPERIMENT_ID, EXPERIMENT_NAME = "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"


# --- refused --------------------------------------------------------------------------------------------------------


def check_environment(uri: str) -> None:
    """Check that the variables of MLflow can be read and obeyed; ``uri`` is the address of the store.

    Raises
    ------
    UserError
        One of them cannot.
    """
    _check_types()
    if MLFLOW_ENABLE_ASYNC_LOGGING.get():
        raise UserError(
            "the variable MLFLOW_ENABLE_ASYNC_LOGGING is on, so nobody would know what the store took; unset it: "
            "metrics are sent in the background anyway"
        )
    if os.environ.get("MLFLOW_ACTIVE_MODEL_ID"):
        raise UserError(
            "the variable MLFLOW_ACTIVE_MODEL_ID would link metrics to a model, and here they belong to the model that "
            "they are about; unset it"
        )
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    if registry and registry != uri and not registry.startswith("databricks"):  # which has two parts, and one account
        raise UserError(
            "the variable MLFLOW_REGISTRY_URI names another store than MLFLOW_TRACKING_URI, and a version here belongs "
            "to a run of the same store; unset it"
        )
    is_database = "://" in uri and not uri.startswith(("http://", "https://", "databricks://"))
    if os.environ.get("MLFLOW_WORKSPACE") and is_database and not MLFLOW_ENABLE_WORKSPACES.get():
        raise UserError(
            "the variable MLFLOW_WORKSPACE chooses a workspace of a server, and this store is a database; unset it, or "
            "set MLFLOW_ENABLE_WORKSPACES to true"
        )


def _check_types() -> None:
    """Check that MLflow can read every variable of its own that is set; else it fails in the middle of something."""
    for variable in vars(environment_variables).values():
        if not isinstance(variable, environment_variables._EnvironmentVariable) or not variable.is_set():
            continue
        try:
            variable.get()
        except ValueError:  # its message has the value, which may be a secret
            kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(variable.type, "a valid value")
            raise UserError(f"the variable {variable.name} is not {kind}; correct or unset it") from None
    context = os.environ.get("MLFLOW_RUN_CONTEXT")  # tags for the next run
    try:
        is_object = context is None or isinstance(parse_json(context), dict)
    except DamagedError:
        is_object = False
    if not is_object:
        raise UserError("the variable MLFLOW_RUN_CONTEXT is no JSON object of tags; correct or unset it")


# --- obeyed ---------------------------------------------------------------------------------------------------------


def find_experiment_name() -> str | None:
    """Return the name of the experiment that the variables name; None if they name none.

    `mlflow run` sets MLFLOW_EXPERIMENT_ID with MLFLOW_RUN_ID: then the run is in its experiment already.

    Raises
    ------
    UserError
        The store has no such experiment, or the two variables name different ones.
    """
    name = os.environ.get(EXPERIMENT_NAME) or None
    experiment_id = os.environ.get(EXPERIMENT_ID)
    if not experiment_id or os.environ.get(RUN_ID):
        return name
    try:
        found = str(RedactingClient().get_experiment(experiment_id).name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"the variable {EXPERIMENT_ID} names no experiment of this store; unset it, or look the id up in mlflow ui"
        ) from None
    if name is not None and name != found:
        raise UserError(
            f"the variable {EXPERIMENT_ID} names the experiment {printable(found)!r}, and {EXPERIMENT_NAME} names "
            f"{printable(name)!r}; unset one of them"
        )
    return found


def is_logging_system_metrics() -> bool:
    """Return whether the variable MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is on."""
    return bool(MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get())
