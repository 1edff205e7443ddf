"""An S3 store for MLflow's server whose files go through the server, always.

For a store with the address s3://..., MLflow's server gives its clients addresses for downloads that lead to the store
itself. The store of compose.yaml is on no network of the clients, and they hold no key of it. So the server gets the
address proxied-s3://... and MLflow's own S3 store without the part that makes such addresses.

MLflow finds this module by the entry point in proxied_s3-1.dist-info, which has to be on Python's path:
https://mlflow.org/docs/latest/ml/plugins/
"""

from typing import Any

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

SCHEME = "proxied-s3"


class ProxiedS3ArtifactRepository(ArtifactRepository):
    """The S3 store at ``proxied-s3://bucket/path``."""

    def __init__(self, artifact_uri: str, *arguments: Any, **options: Any) -> None:
        super().__init__(artifact_uri, *arguments, **options)
        self._s3 = S3ArtifactRepository("s3" + artifact_uri.removeprefix(SCHEME), *arguments, **options)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload a file."""
        self._s3.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload the files of a directory."""
        self._s3.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return the files and directories directly below ``path``."""
        files: list[FileInfo] = self._s3.list_artifacts(path)
        return files

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or a directory."""
        self._s3.delete_artifacts(artifact_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._s3._download_file(remote_file_path, local_path)
