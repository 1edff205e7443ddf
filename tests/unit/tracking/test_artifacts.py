from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import artifacts, runs


@pytest.fixture
def run_id(store: Path) -> str:
    return runs.create_run(runs.get_or_create_experiment("demo"), {})


def test_directory_is_logged_below_a_folder(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.txt").write_text("a")
    artifacts.log_artifacts(run_id, tmp_path / "figures", "evaluation")
    assert artifacts.list_artifact_paths(run_id) == {"evaluation"}
    assert artifacts.list_artifact_paths(run_id, "evaluation") == {"evaluation/a.txt"}
    assert artifacts.list_artifact_paths(run_id, "absent") == set()


def test_downloaded_file_has_the_logged_text(run_id: str, tmp_path: Path) -> None:
    artifacts.log_text(run_id, "# fine", "verdict.md")
    directory = tmp_path / "download"
    directory.mkdir()
    path = artifacts.download_artifact(run_id, "verdict.md", directory)
    assert path == directory / "verdict.md"
    assert path.read_text() == "# fine"


def test_json_is_read_back(run_id: str) -> None:
    artifacts.log_text(run_id, '{"decision": "promoted"}', "verdict.json")
    assert artifacts.read_json_artifact(run_id, "verdict.json") == {"decision": "promoted"}


def test_missing_or_damaged_json_is_none(run_id: str) -> None:
    artifacts.log_text(run_id, "{", "verdict.json")
    assert artifacts.read_json_artifact(run_id, "verdict.json") is None
    assert artifacts.read_json_artifact(run_id, "absent.json") is None


def test_small_file_is_read(run_id: str) -> None:
    artifacts.log_text(run_id, "fine", "a.txt")
    artifacts.log_text(run_id, "fine", "folder/b.txt")
    assert artifacts.read_artifact(run_id, "a.txt", max_size=4) == b"fine"
    assert artifacts.read_artifact(run_id, "folder/b.txt", max_size=4) == b"fine"


def test_large_file_is_not_read(run_id: str) -> None:
    artifacts.log_text(run_id, "large", "a.txt")
    with pytest.raises(UserError, match="more than 4 bytes"):
        artifacts.read_artifact(run_id, "a.txt", max_size=4)


@pytest.mark.parametrize("path", ["absent.txt", "folder"])
def test_missing_file_is_named(run_id: str, path: str) -> None:
    artifacts.log_text(run_id, "fine", "folder/b.txt")
    with pytest.raises(UserError, match=f"has no file {path}"):
        artifacts.read_artifact(run_id, path, max_size=4)


def test_file_of_a_missing_run_is_named(store: Path) -> None:
    with pytest.raises(UserError, match=r"cannot get a\.txt of run 8f1c"):
        artifacts.read_artifact("8f1c", "a.txt", max_size=4)
