"""The place where MLflow keeps the files of runs and models: what it refuses becomes one line, with its address."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from pipeline.documents import DamagedError, parse_json
from pipeline.redact import redact
from pipeline.tracking.artifact_failures import (
    ArtifactError,
    describe_artifact_store,
    explain_artifact_text,
    explain_missing_package,
)
from pipeline.tracking.failure_types import Failure, refusal
from pipeline.tracking.failures import explain_os_error, is_outage
from pipeline.tracking.http_failures import read_status
from pipeline.tracking.server import ask_server, is_server

PROXIED_SCHEMES = ("mlflow-artifacts", "http", "https")  # a server hands the files out
NOT_SERVED = "--no-serve-artifacts"  # in what MLflow's server answers
NO_REPOSITORY = "Could not find a registered artifact repository"
SERVE = (
    "let its administrator start the server with --serve-artifacts, and use an experiment whose artifact location is "
    "mlflow-artifacts:/"
)


@contextmanager
def explain_artifact_errors(find_address: Callable[[], str], *, writes: bool) -> Iterator[None]:
    """Turn what the artifact store refuses inside the block into an `ArtifactError`.

    Parameters
    ----------
    find_address
        Returns the address of the artifact store; it is called after a failure only.
    writes
        Whether files are written: then a folder that cannot be used is of general interest.
    """
    try:
        yield
    except (ArtifactError, RestException, MemoryError):
        raise
    except Exception as error:
        address = None
        with suppress(Exception):  # the store is away: the error is about that
            address = find_address()
        artifact_error = _explain(error, address, writes=writes) if address else None
        if artifact_error is None:
            raise
        raise artifact_error from error


def is_refused(error: BaseException) -> bool:
    """Return whether the artifact store refuses every file, so that nobody knows whether a file is there."""
    return isinstance(error, ArtifactError) and error.is_general


def find_local_folder(address: str) -> Path | None:
    """Return the folder at the address of an artifact store, which may be missing; None if it is not a folder."""
    return Path(local_file_uri_to_path(address)) if is_local_uri(address) else None


def check_files_are_shared(address: str, run_id: str, files: Sequence[Any]) -> None:
    """Check that a folder on this machine is the one in which the server looks for the files of the run.

    A server that does not serve files tells its clients a path. On another machine, MLflow would write there without a
    word, and nobody else would find the files.

    Parameters
    ----------
    address
        The artifact location of the run.
    run_id
        The run.
    files
        What stands at the top of that folder on this machine.

    Raises
    ------
    ArtifactError
        This machine has other files there than the server.
    """
    if not is_server(mlflow.get_tracking_uri()) or find_local_folder(address) is None:
        return
    answer = ask_server("/api/2.0/mlflow/artifacts/list", run_id=run_id)
    with suppress(DamagedError):
        content = parse_json(answer.text) if answer.status_code == 200 else None
        if isinstance(content, dict) and bool(content.get("files")) != bool(files):
            raise ArtifactError(
                _explain_foreign_folder(address, "the server does not see what is there"), is_general=True
            )


def _explain(error: Exception, address: str, *, writes: bool) -> ArtifactError | None:
    """Return what the error tells about the artifact store; None if it is not about it."""
    if isinstance(error, ImportError):
        return ArtifactError(explain_missing_package(address, error), is_general=True)
    if NO_REPOSITORY in str(error):
        reason = f"{describe_artifact_store(address)}: MLflow does not know this kind"
        return ArtifactError(refusal(reason, "install the plug-in that reaches it"), is_general=True)
    if is_local_uri(address):
        return _explain_folder(error, address, writes=writes)
    if address.partition(":")[0] in PROXIED_SCHEMES:
        return _explain_proxied(error, address)
    return _explain_remote(error, address)


def _explain_folder(error: Exception, address: str, *, writes: bool) -> ArtifactError | None:
    if not isinstance(error, OSError):
        return None
    detail = error.strerror or str(error)
    if is_server(mlflow.get_tracking_uri()) and not is_outage(error):
        return ArtifactError(_explain_foreign_folder(address, detail), is_general=True)
    return ArtifactError(explain_os_error(error), is_general=writes)


def _explain_foreign_folder(address: str, detail: str) -> Failure:
    reason = f"{describe_artifact_store(address)}: the server keeps its files in this folder of its own machine"
    return refusal(f"{reason}, which is not the one here ({detail})", SERVE)


def _explain_proxied(error: Exception, address: str) -> ArtifactError | None:
    """Return that the server does not serve files any more: it says so with the status of an outage."""
    if read_status(error) != 503:
        return None
    with suppress(MlflowException, requests.RequestException):
        answer = ask_server("/api/2.0/mlflow-artifacts/artifacts")
        if answer.status_code == 503 and NOT_SERVED in answer.text:
            reason = f"{describe_artifact_store(address)}: the server was started with {NOT_SERVED}"
            return ArtifactError(
                refusal(reason, "let its administrator start it with --serve-artifacts"), is_general=True
            )
    return None


def _explain_remote(error: Exception, address: str) -> ArtifactError | None:
    failure = explain_artifact_text(address, f"{type(error).__name__}: {error}")
    if failure is not None:
        return ArtifactError(failure, is_general=True)
    if isinstance(error, MlflowException | requests.RequestException):
        return None
    if isinstance(error, OSError):
        known = explain_os_error(error)
        return ArtifactError(
            Failure(known.is_outage, f"{describe_artifact_store(address)}: {known.reason}", known.advice),
            is_general=known.is_outage,
        )
    lines = redact(str(error)).splitlines() or [type(error).__name__]
    reason = f"{describe_artifact_store(address)}: {lines[0]}"
    return ArtifactError(refusal(reason, "check that this machine may use it"), is_general=False)
