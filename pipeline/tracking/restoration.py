"""Which command brings back what was deleted."""

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipeline.tracking.store import get_client


def restore_command(run: Run) -> str:
    """Return the command that restores a run that was deleted, alone or with its experiment."""
    experiment_id = run.info.experiment_id
    try:
        is_deleted = get_client().get_experiment(experiment_id).lifecycle_stage == "deleted"
    except MlflowException as error:
        if error.error_code not in ("PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"):
            raise
        is_deleted = False
    if is_deleted:
        return f"mlflow experiments restore --experiment-id {experiment_id}"
    return f"mlflow runs restore --run-id {run.info.run_id}"
