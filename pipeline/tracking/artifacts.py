"""The files of a run."""

import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.exceptions import MlflowException

from pipeline.documents import DamagedError, parse_json
from pipeline.errors import UserError
from pipeline.redact import redact_file
from pipeline.regular_files import MAX_RECORD_SIZE
from pipeline.tracking.artifact_store import check_files_are_shared, is_refused
from pipeline.tracking.failures import describe_failure, is_outage
from pipeline.tracking.store import get_client

TEXT_SUFFIXES = (".txt", ".json", ".md", ".html", ".svg", ".yaml", ".yml")  # predictions.csv is numbers, with a digest


def log_artifacts(run_id: str, directory: Path, folder: str | None = None) -> None:
    """Log every file in ``directory`` to the run, below ``folder`` if it is not None; text without secrets.

    A file of another suffix than `TEXT_SUFFIXES` goes as it is, such as the patch, which was searched when it was made.
    """
    redacted = {}
    for path in directory.rglob("*"):
        if path.suffix in TEXT_SUFFIXES and path.is_file():
            content = path.read_bytes()
            clean = redact_file(path.name, content)
            if clean != content:
                redacted[path.relative_to(directory)] = clean
    if not redacted:
        get_client().log_artifacts(run_id, str(directory), folder)
        return
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        for name, clean in redacted.items():
            (Path(copy) / name).write_bytes(clean)
        get_client().log_artifacts(run_id, copy, folder)


def log_text(run_id: str, text: str, file: str) -> None:
    """Log ``text`` as the file of that name, without secrets."""
    get_client().log_text(run_id, redact_file(file, text.encode()).decode(), file)


def list_artifact_paths(run_id: str, folder: str | None = None) -> set[str]:
    """Return the paths of the run's files in ``folder``; of those at the top if it is None."""
    return {item.path for item in get_client().list_artifacts(run_id, folder)}


def download_artifact(run_id: str, path: str, directory: Path) -> Path:
    """Download a file or folder of the run into ``directory``; return its path there."""
    return Path(get_client().download_artifacts(run_id, path, str(directory)))


def read_artifact(run_id: str, path: str, max_size: int) -> bytes:
    """Return the content of the run's file at ``path``, if it has at most ``max_size`` bytes.

    Raises
    ------
    UserError
        The run or the file is gone, or the file is larger; a larger one is not downloaded if the store says so.
    """
    folder = str(PurePosixPath(path).parent)
    try:
        items = get_client().list_artifacts(run_id, None if folder == "." else folder)
        sizes = {item.path: item.file_size for item in items if not item.is_dir}
        if path not in sizes:
            raise UserError(f"run {run_id} has no file {path}")
        if (sizes[path] or 0) > max_size:
            raise UserError(f"{path} of run {run_id} has more than {max_size:,} bytes")
        with (
            tempfile.TemporaryDirectory() as directory,
            download_artifact(run_id, path, Path(directory)).open("rb") as file,
        ):
            content = file.read(max_size + 1)
    except (MlflowException, OSError, ValueError) as error:
        if is_outage(error) or is_refused(error):
            raise
        raise UserError(f"cannot get {path} of run {run_id} ({describe_failure(error)})") from None
    if len(content) > max_size:
        raise UserError(f"{path} of run {run_id} has more than {max_size:,} bytes")
    return content


def check_artifact(run_id: str, path: str) -> None:
    """Check that the run's file at ``path``, which was just logged, can be read here, and that the server sees it too.

    Raises
    ------
    UserError
        The artifact store does not hand the file out.
    ArtifactError
        The server keeps its files in a folder of another machine.
    """
    read_artifact(run_id, path, MAX_RECORD_SIZE)
    client = get_client()
    check_files_are_shared(str(client.get_run(run_id).info.artifact_uri), run_id, client.list_artifacts(run_id))


def read_json_artifact(run_id: str, path: str) -> Any:
    """Return the content of the run's JSON file at ``path``; None if it is missing or not readable."""
    try:
        return parse_json(read_artifact(run_id, path, MAX_RECORD_SIZE))
    except (UserError, DamagedError):
        return None
