import os
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import git

from pipeline import provenance


@pytest.fixture
def repository(tmp_path: Path, somebody: None) -> Path:
    """Return a repository with a commit."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "train.py").write_text("lr = 0.01\n")
    (folder / "gone.py").write_text("pass\n")
    (folder / "api_token.txt").write_text("old\n")
    (folder / ".gitignore").write_text("data/\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    about, patch = provenance.code(repository)
    assert about == {
        "commit": git(repository, "rev-parse", "HEAD"),
        "branch": "main",
        "remote": "none",
        "dirty": "false",
        "patch": "not needed",
    }
    assert patch == b""


def test_the_patch_of_a_dirty_tree_gives_its_files_byte_for_byte(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "train.py").write_bytes(b"lr = 0.02\r\n\xff no newline at the end")
    (repository / "gone.py").unlink()
    (repository / "new" / "deep").mkdir(parents=True)
    (repository / "new" / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 10)
    (repository / "staged.py").write_text("x = 1\n")
    git(repository, "add", "staged.py")
    (repository / "data").mkdir()
    (repository / "data" / "ignored").write_text("x")
    state = git(repository, "status", "--porcelain"), git(repository, "count-objects")

    about, patch = provenance.code(repository / "new")  # from a folder in it, too
    assert (about["commit"], about["dirty"], about["patch"]) == (commit, "true", "complete")
    assert (git(repository, "status", "--porcelain"), git(repository, "count-objects")) == state  # nothing was written

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    git(clone, "checkout", "--quiet", commit)
    (tmp_path / "source.patch").write_bytes(patch)
    git(clone, "apply", "--binary", str(tmp_path / "source.patch"))

    def files(folder: Path) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file() and not {".git", "data"} & set(path.parts)]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    assert files(clone) == files(repository)
    assert "new/deep/weights.bin" in files(clone) and "gone.py" not in files(clone)


def test_files_that_look_like_secrets_stay_out_of_the_patch_and_are_counted(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.5\n")
    for name in (".env", ".env.local", "server.pem", "api_token.txt", "deploy/MySecrets.yaml", "id_rsa"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("hunter2\n")
    about, patch = provenance.code(repository)
    assert b"lr = 0.5" in patch and b"hunter2" not in patch
    assert about["patch"] == "without 6 files whose names look like secrets"


def test_a_patch_that_is_too_large_is_left_out_and_says_so(repository: Path) -> None:
    (repository / "big.bin").write_bytes(os.urandom(2_000_000))
    about, patch = provenance.code(repository)
    assert patch == b"" and about["patch"].startswith("left out: ")


def test_the_remote_is_named_without_credentials(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://me:hunter2@github.com/me/demo.git")
    assert provenance.code(repository)[0]["remote"] == "https://github.com/me/demo.git"


def test_outside_of_a_repository_that_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.code(tmp_path) == ({"commit": "unknown: not in a Git repository"}, b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code(tmp_path) == ({"commit": "unknown: git is not installed"}, b"")


def test_the_hash_of_weights_depends_on_names_and_values_not_on_their_order() -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    expected = provenance.weights_sha256(state)
    assert provenance.weights_sha256(dict(reversed(state.items()))) == expected
    assert provenance.weights_sha256(state | {"a": state["a"].t().contiguous().t()}) == expected  # another layout
    others = [{"a": state["a"]}, state | {"b": torch.tensor(2)}, state | {"a": state["a"].view(3, 2)}]
    others += [{"a": state["a"], "c": state["b"]}, state | {"a": state["a"].double()}]
    assert expected not in [provenance.weights_sha256(other) for other in others]


def test_tags_say_what_a_training_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/pytorch_demo.py", "--run-name", "two words"])
    tags = provenance.tags({"commit": "c0ffee"}, torch.device("cpu"))
    assert tags["code.commit"] == "c0ffee"
    assert tags["invocation.command"] == "pytorch_demo.py --run-name 'two words'"
    assert (tags["environment.threads"], tags["environment.gpu"]) == (str(torch.get_num_threads()), "none")
    assert all(tags[f"environment.{name}"] for name in ("python", "system", "cpu", "cores", "packages_sha256"))
    assert tags["invocation.user"] and tags["invocation.host"] and tags["invocation.job_url"] is None


def test_packages_are_those_that_are_installed() -> None:
    assert f"torch=={version('torch')}\n" in provenance.packages()
    assert "@" not in provenance.packages()  # no addresses, which could hold credentials
