"""The files of a run."""

from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.tracking.store import get_client


def log_artifacts(run_id: str, directory: Path, folder: str | None = None) -> None:
    """Log every file in ``directory`` to the run, below ``folder`` if it is not None."""
    get_client().log_artifacts(run_id, str(directory), folder)


def log_text(run_id: str, text: str, file: str) -> None:
    """Log ``text`` as the file of that name."""
    get_client().log_text(run_id, text, file)


def list_artifact_paths(run_id: str, folder: str | None = None) -> set[str]:
    """Return the paths of the run's files in ``folder``; of those at the top if it is None."""
    return {item.path for item in get_client().list_artifacts(run_id, folder)}


def download_artifact(run_id: str, path: str, directory: Path) -> Path:
    """Download a file or folder of the run into ``directory``; return its path there."""
    return Path(get_client().download_artifacts(run_id, path, str(directory)))


def read_json_artifact(run_id: str, path: str) -> Any:
    """Return the content of the run's JSON file at ``path``; None if it is missing or not readable."""
    try:
        return mlflow.artifacts.load_dict(f"runs:/{run_id}/{path}")
    except (MlflowException, OSError, ValueError):
        return None
