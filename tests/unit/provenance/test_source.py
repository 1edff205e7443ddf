import os
from pathlib import Path

import pytest

from pipeline.provenance.source import describe_code
from support.git import run_git


@pytest.fixture
def repository(tmp_path: Path, git_author: None) -> Path:
    """Return a repository with one commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "train.py").write_text("lr = 0.01\n")
    (folder / "gone.py").write_text("pass\n")
    (folder / "api_token.txt").write_text("old\n")
    (folder / ".gitignore").write_text("data/\n")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "--quiet", "--message", "first")
    return folder


def change_files(repository: Path) -> None:
    """Change, delete, add, stage and ignore files."""
    (repository / "train.py").write_bytes(b"lr = 0.02\r\n\xff no newline at the end")
    (repository / "gone.py").unlink()
    (repository / "new" / "deep").mkdir(parents=True)
    (repository / "new" / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 10)
    (repository / "staged.py").write_text("x = 1\n")
    run_git(repository, "add", "staged.py")
    (repository / "data").mkdir()
    (repository / "data" / "ignored").write_text("x")


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file that Git does not ignore, by its path."""
    contents = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] not in (".git", "data"):
            contents[str(path.relative_to(folder))] = path.read_bytes()
    return contents


def test_clean_tree_is_its_commit(repository: Path) -> None:
    code = describe_code(repository)
    assert code.tags == {
        "commit": run_git(repository, "rev-parse", "HEAD"),
        "branch": "main",
        "remote": "none",
        "dirty": "false",
        "patch": "not needed",
    }
    assert code.patch == b""


def test_patch_restores_files_byte_for_byte(repository: Path, tmp_path: Path) -> None:
    commit = run_git(repository, "rev-parse", "HEAD")
    change_files(repository)
    code = describe_code(repository)
    assert (code.tags["commit"], code.tags["dirty"], code.tags["patch"]) == (commit, "true", "complete")

    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    run_git(clone, "checkout", "--quiet", commit)
    (tmp_path / "source.patch").write_bytes(code.patch)
    run_git(clone, "apply", "--binary", str(tmp_path / "source.patch"))
    files = read_files(clone)
    assert files == read_files(repository)
    assert "new/deep/weights.bin" in files
    assert "gone.py" not in files


def test_subfolder_gives_the_same_code(repository: Path) -> None:
    change_files(repository)
    assert describe_code(repository / "new") == describe_code(repository)


def test_repository_itself_stays_as_it_is(repository: Path) -> None:
    change_files(repository)
    before = run_git(repository, "status", "--porcelain"), run_git(repository, "count-objects")
    describe_code(repository)
    assert (run_git(repository, "status", "--porcelain"), run_git(repository, "count-objects")) == before


def test_files_named_like_secrets_stay_out(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.5\n")
    for name in (".env", ".env.local", "server.pem", "api_token.txt", "deploy/MySecrets.yaml", "id_rsa"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("hunter2\n")
    code = describe_code(repository)
    assert b"lr = 0.5" in code.patch
    assert b"hunter2" not in code.patch
    assert code.tags["patch"] == "without 6 files whose names look like secrets"


def test_patch_with_a_secret_is_left_out(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PASSWORD", "correct horse")
    (repository / "train.py").write_text("password = 'correct horse'\n")
    code = describe_code(repository)
    assert code.patch == b""
    assert code.tags["patch"] == "left out: it holds the value of SERVER_PASSWORD"
    assert "patch_sha256" not in code.tags


def test_patch_that_is_too_large_is_left_out(repository: Path) -> None:
    (repository / "big.bin").write_bytes(os.urandom(2_000_000))
    code = describe_code(repository)
    assert code.patch == b""
    assert code.tags["patch"].endswith("bytes are more than 1,000,000")


def test_remote_is_named_without_credentials(repository: Path) -> None:
    run_git(repository, "remote", "add", "origin", "https://me:hunter2@github.com/me/demo.git")
    assert describe_code(repository).tags["remote"] == "https://github.com/me/demo.git"


def test_code_outside_of_a_repository_is_unknown(tmp_path: Path) -> None:
    code = describe_code(tmp_path)
    assert (code.tags, code.patch) == ({"commit": "unknown: not in a Git repository"}, b"")


def test_code_without_git_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_code(tmp_path).tags == {"commit": "unknown: git is not installed"}


def test_image_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_COMMIT", "c0ffee")
    assert describe_code(tmp_path).tags == {"commit": "c0ffee"}
