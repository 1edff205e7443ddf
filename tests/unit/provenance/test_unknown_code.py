"""Code that Git cannot compare with a commit: what the run records then, and what people are told."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.provenance.source import describe_code
from support.git import run_git

COMMIT = "c0ffee" * 6 + "c0de"


@pytest.fixture
def repository(tmp_path: Path, git_author: None) -> Path:
    """Return a repository with one commit."""
    return create_repository(tmp_path / "repository")


def create_repository(folder: Path) -> Path:
    folder.mkdir()
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "train.py").write_text("lr = 0.01\n")
    (folder / ".gitignore").write_text("others/\n")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "--quiet", "--message", "first")
    return folder


def damage_object(folder: Path, revision: str) -> None:
    """Overwrite the file of an object."""
    name = run_git(folder, "rev-parse", revision)
    file = folder / ".git" / "objects" / name[:2] / name[2:]
    file.chmod(0o644)
    file.write_bytes(b"no object")


def remove_all_commits(folder: Path) -> None:
    run_git(folder, "update-ref", "-d", "HEAD")


def become_an_orphan(folder: Path) -> None:
    """Make the folder a worktree of a repository that is gone."""
    main = create_repository(folder.parent / "main")
    shutil.rmtree(folder)
    run_git(main, "worktree", "add", "--quiet", str(folder))
    shutil.rmtree(main)


def damage_settings(folder: Path) -> None:
    (folder / ".git" / "config").write_text("[core\n")


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder / ".git")
    (folder / ".git").write_text("nonsense\n")


BROKEN = {
    "no commit yet": (remove_all_commits, "git says: Needed a single revision (there is no commit yet)"),
    "orphaned worktree": (become_an_orphan, "git says: not a git repository: /"),
    "damaged settings": (damage_settings, "git says: bad config line 1 in file .git/config"),
    "nonsense in place of .git": (replace_by_a_file, "git says: invalid gitfile format: /"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_message_of_git_is_quoted(kind: str, repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage, message = BROKEN[kind]
    damage(repository)
    code = describe_code(repository)
    assert list(code.tags) == ["commit"]
    assert code.tags["commit"].startswith(f"unknown: {message}")
    assert message in caplog.text
    assert "name its commit in CODE_COMMIT" in caplog.text


@pytest.mark.parametrize("revision", ["HEAD", "HEAD^{tree}"])
def test_commit_of_a_damaged_repository_is_not_compared(
    revision: str, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = run_git(repository, "rev-parse", "HEAD")
    damage_object(repository, revision)
    tags = describe_code(repository).tags
    assert tags["commit"] == commit
    assert tags["commit_source"].startswith("HEAD, not compared with the files: git says: loose object ")
    assert "is corrupt" in caplog.text


def test_damaged_index_does_not_matter(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    (repository / ".git" / "index").write_bytes(b"no index")
    assert describe_code(repository).tags["dirty"] == "false"
    assert not caplog.text


def test_shallow_clone_is_compared(repository: Path, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", "clone")
    assert describe_code(tmp_path / "clone").tags["dirty"] == "false"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_repository_of_another_account_is_read(repository: Path) -> None:
    for path in (repository, repository / ".git"):
        os.chown(path, 65534, 65534)
    assert describe_code(repository).tags["dirty"] == "false"


def test_commit_of_another_project_is_not_recorded(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = repository / "others" / "project"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("lr = 0.5\n")
    assert describe_code(folder).tags == {"commit": f"unknown: the repository {repository} does not have this folder"}
    assert "does not have this folder" in caplog.text


def test_program_git_that_cannot_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("no program")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_code(tmp_path).tags["commit"] == "unknown: git cannot be run (OSError)"


# --- the environment ------------------------------------------------------------------------------------------------


def test_image_names_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CODE_COMMIT", COMMIT)
    assert describe_code(tmp_path).tags == {
        "commit": COMMIT,
        "commit_source": "CODE_COMMIT, not compared with the files: not in a Git repository",
    }
    assert not caplog.text


def test_named_commit_of_a_broken_repository_is_a_warning(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damage_settings(repository)
    monkeypatch.setenv("CODE_COMMIT", COMMIT)
    assert describe_code(repository).tags["commit"] == COMMIT
    assert f"the run records commit {COMMIT} from CODE_COMMIT, not compared with the files: git says: " in caplog.text


def test_git_wins_over_the_environment(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_COMMIT", COMMIT)
    assert describe_code(repository).tags["commit"] == run_git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("text", ["main", "v1.2", "$(git rev-parse HEAD)", "abc", "-" * 40, " "])
def test_what_is_no_commit_is_not_recorded(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_COMMIT", text)
    assert describe_code(tmp_path).tags == {"commit": "unknown: not in a Git repository"}


def set_github_job(monkeypatch: pytest.MonkeyPatch, workspace: Path, **variables: str) -> None:
    job = {"ACTIONS": "true", "SHA": COMMIT, "WORKSPACE": str(workspace), "EVENT_NAME": "push"}
    for name, value in (job | variables).items():
        monkeypatch.setenv(f"GITHUB_{name}", value)


def test_checkout_of_a_job_without_git_has_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_github_job(monkeypatch, tmp_path)
    tags = describe_code(tmp_path).tags
    assert tags["commit"] == COMMIT
    assert tags["commit_source"].startswith("GITHUB_SHA, not compared with the files")


@pytest.mark.parametrize(
    "variables", [{"ACTIONS": ""}, {"WORKSPACE": "/elsewhere"}, {"EVENT_NAME": "pull_request_target"}, {"SHA": ""}]
)
def test_commit_of_other_code_is_not_taken(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_github_job(monkeypatch, tmp_path, **variables)
    assert describe_code(tmp_path).tags == {"commit": "unknown: not in a Git repository"}


@pytest.mark.parametrize(
    ("variables", "branch"),
    [
        ({"REF_NAME": "v1.2"}, "v1.2"),
        ({"REF_NAME": "7/merge", "HEAD_REF": "feature"}, "feature"),
        ({"REF_NAME": "v1.2", "SHA": COMMIT}, "HEAD"),  # the job checked out another commit
        ({"REF_NAME": "v1.2", "ACTIONS": ""}, "HEAD"),
    ],
)
def test_branch_of_a_detached_head_is_that_of_the_job(
    variables: dict[str, str], branch: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_git(repository, "checkout", "--quiet", "--detach")
    commit = run_git(repository, "rev-parse", "HEAD")
    set_github_job(monkeypatch, repository, **({"SHA": commit} | variables))
    assert describe_code(repository).tags["branch"] == branch
