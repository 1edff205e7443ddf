import os
import subprocess
from pathlib import Path

import pytest

from pipeline.provenance.source import describe_code
from support.git import run_git
from support.secrets import TOKENS


@pytest.fixture
def repository(tmp_path: Path, git_author: None) -> Path:
    """Return a repository with one commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "train.py").write_text("lr = 0.01\n")
    (folder / "gone.py").write_text("pass\n")
    (folder / "api_token.txt").write_text("old\n")
    (folder / "picture.png").write_bytes(bytes(range(256)) * 10)
    (folder / ".gitignore").write_text("data/\n")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "--quiet", "--message", "first")
    return folder


def change_files(repository: Path) -> None:
    """Change, delete, add, stage and ignore files."""
    (repository / "train.py").write_bytes(b"lr = 0.02\r\n\xff no newline at the end")
    (repository / "gone.py").unlink()
    (repository / "new" / "deep").mkdir(parents=True)
    (repository / "new" / "deep" / "layers.py").write_text("x = 2\n")
    (repository / "picture.png").write_bytes(bytes(range(255, 0, -1)) * 10)
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
    assert "new/deep/layers.py" in files
    assert "gone.py" not in files


def test_code_beside_the_folder_does_not_count(repository: Path) -> None:
    change_files(repository)
    code = describe_code(repository / "new")
    assert code.tags["dirty"] == "true"
    assert code.patch.count(b"diff --git") == 1
    assert b"new/deep/layers.py" in code.patch


def test_change_of_one_line_is_the_patch(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.5\n")
    patch = describe_code(repository).patch.splitlines()
    changed = [line for line in patch if line.startswith((b"+", b"-")) and not line.startswith((b"+++", b"---"))]
    assert changed == [b"-lr = 0.01", b"+lr = 0.5"]


@pytest.mark.parametrize("name", ["photos/a.png", "monday.tar", "weights.bin", "out.json", "table.csv", "signing.pub"])
def test_untracked_file_without_code_changes_nothing(name: str, repository: Path) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("x = 1\n")
    assert describe_code(repository).tags["dirty"] == "false"


@pytest.mark.parametrize(
    "name", ["a.py", "b/gates.toml", "c.yaml", "d.txt", "e.md", "Makefile", "f/Dockerfile", "g.sh"]
)
def test_untracked_code_is_in_the_patch(name: str, repository: Path) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("x = 1\n")
    code = describe_code(repository)
    assert code.tags["dirty"] == "true"
    assert f"+++ b/{name}\n".encode() in code.patch


def test_link_is_not_followed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("hunter2 of another account\n")
    (repository / "link.py").symlink_to(tmp_path / "outside.txt")
    code = describe_code(repository)
    assert b"hunter2" not in code.patch
    assert (code.tags["dirty"], code.tags["patch"]) == ("true", "without 1 links or repositories")


def test_renamed_and_executable_files_are_restored(repository: Path, tmp_path: Path) -> None:
    (repository / "gone.py").rename(repository / "d\xe9plac\xe9.py")
    (repository / "train.py").rename(repository / os.fsdecode(b"\xff \n.py"))
    (repository / "picture.png").chmod(0o755)
    code = describe_code(repository)
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    (tmp_path / "source.patch").write_bytes(code.patch)
    run_git(clone, "apply", str(tmp_path / "source.patch"))
    assert {path.name for path in clone.iterdir()} == {path.name for path in repository.iterdir()}
    assert os.access(clone / "picture.png", os.X_OK)


def test_no_program_of_the_settings_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/ran\ncat\n')
    spy.chmod(0o755)
    for hook in ("post-index-change", "reference-transaction"):
        (repository / ".git" / "hooks" / hook).symlink_to(spy)
    settings = ("core.fsmonitor", "diff.external", "diff.spy.command", "diff.spy.textconv", "core.pager")
    for setting in (*settings, "filter.spy.clean", "filter.spy.process"):
        run_git(repository, "config", setting, str(spy))
    (repository / ".git" / "info" / "attributes").write_text("*.py diff=spy filter=spy\n")
    (repository / "train.py").write_text("lr = 0.5\n")
    subprocess.run(["git", "-C", str(repository), "diff"], capture_output=True, check=False)
    assert (tmp_path / "ran").exists()  # Git itself runs them
    (tmp_path / "ran").unlink()
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(spy))
    assert b"+lr = 0.5" in describe_code(repository).patch
    assert not (tmp_path / "ran").exists()


def test_settings_of_the_account_change_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_bytes(b"lr = 0.5\r\n")
    before = describe_code(repository)
    settings = "[diff]\nnoprefix = true\ncontext = 9\n[color]\nui = always\n[core]\nautocrlf = true\nexcludesFile = x\n"
    (tmp_path / "gitconfig").write_text(settings)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert describe_code(repository) == before


def test_repository_itself_stays_as_it_is(repository: Path) -> None:
    change_files(repository)
    before = run_git(repository, "status", "--porcelain"), run_git(repository, "count-objects")
    describe_code(repository)
    assert (run_git(repository, "status", "--porcelain"), run_git(repository, "count-objects")) == before


def test_files_named_like_secrets_stay_out(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.5\n")
    for name in (".env", "server.pem", "api_token.txt", "deploy/MySecrets.yaml", "id_rsa"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("hunter2\n")
    code = describe_code(repository)
    assert b"lr = 0.5" in code.patch
    assert b"hunter2" not in code.patch
    assert code.tags["patch"] == "without 2 files whose names look like secrets"  # nobody takes the others for code


def test_patch_with_a_secret_is_left_out(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PASSWORD", "correct horse")
    (repository / "train.py").write_text("lr = 0.01\nx = ['correct horse']\n")
    code = describe_code(repository)
    assert code.patch == b""
    assert code.tags["patch"] == "left out: train.py:2 looks like the value of SERVER_PASSWORD"
    assert "patch_sha256" not in code.tags


@pytest.mark.parametrize("kind", TOKENS)
def test_patch_with_a_token_is_left_out(kind: str, repository: Path) -> None:
    (repository / "new.md").write_text(f"# Notes\n\nuse {TOKENS[kind]}\n")
    code = describe_code(repository)
    assert code.patch == b""
    assert code.tags["patch"].startswith("left out: new.md:3 looks like a")
    assert TOKENS[kind].strip() not in str(code.tags)


def test_binary_file_with_a_token_is_left_out(repository: Path) -> None:
    (repository / "picture.png").write_bytes(bytes(range(256)) + TOKENS["a GitHub token"].encode())
    assert describe_code(repository).tags["patch"] == "left out: picture.png:1 looks like a GitHub token"


def test_patch_that_is_too_large_is_left_out(repository: Path) -> None:
    (repository / "picture.png").write_bytes(os.urandom(2_000_000))
    code = describe_code(repository)
    assert code.patch == b""
    assert code.tags["patch"].endswith("bytes are more than 1,000,000")


@pytest.mark.parametrize("password", ["hunter2", "a/b@c", "a#b?c", "a b"])
def test_remote_is_named_without_credentials(password: str, repository: Path) -> None:
    run_git(repository, "remote", "add", "origin", f"https://me:{password}@github.com/me/demo.git")
    assert describe_code(repository).tags["remote"] == "https://github.com/me/demo.git"


def test_code_outside_of_a_repository_is_unknown(tmp_path: Path) -> None:
    code = describe_code(tmp_path)
    assert (code.tags, code.patch) == ({"commit": "unknown: not in a Git repository"}, b"")


def test_code_without_git_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_code(tmp_path).tags == {"commit": "unknown: git is not installed"}
