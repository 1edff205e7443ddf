"""Print what the MLflow of this interpreter reads of a registered model: read_registry.py ADDRESS NAME."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow


def read_registry(uri: str, name: str) -> dict[str, Any]:
    """Return names, version, tags, run and files of the model in Production."""
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias(name, "champion")
    (in_production,) = client.get_latest_versions(name, ["Production"])
    run_id = str(version.run_id)
    run = client.get_run(run_id)
    return {
        "client": mlflow.__version__,
        "models": [model.name for model in client.search_registered_models()],
        "champion": int(version.version),
        "production": int(in_production.version),
        "tags": version.tags,
        "description": version.description,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "artifacts": sorted(file.path for file in client.list_artifacts(run_id)),
        "flavors": sorted(mlflow.models.get_model_info(f"models:/{name}@champion").flavors),
        "files": read_checksums(f"models:/{name}@champion"),
    }


def read_checksums(model_uri: str) -> dict[str, str]:
    """Download the model; return the SHA-256 of each of its files."""
    with tempfile.TemporaryDirectory() as target:
        folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=target))
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    print(json.dumps(read_registry(sys.argv[1], sys.argv[2])))
