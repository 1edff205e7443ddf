import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.tracking.manifest import MAX_METADATA_SIZE, Manifest, Usage, build_manifest, check_model_folder

FLAVORS = {
    "pytorch": {"code": None, "model_data": "data", "pytorch_version": "2.15.0"},
    "python_function": {"data": "data", "env": {"conda": "conda.yaml"}, "loader_module": "mlflow.pytorch"},
}
METADATA = {"classes": ["cat", "dog"], "shape": [1, 28, 28], "preparation": "ink"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a model whose archive has three bytes."""
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "model.pt2").write_bytes(b"pt2")
    (folder / "requirements.txt").write_text("torch\n")
    write_metadata(folder, {"flavors": FLAVORS, "metadata": METADATA, "mlflow_version": "3"})
    return folder


def write_metadata(folder: Path, content: Any) -> None:
    (folder / "MLmodel").write_text(yaml.safe_dump(content))


def build(folder: Path) -> Manifest:
    return build_manifest(folder, "pets version 3")


def check(folder: Path) -> Usage:
    return check_model_folder(folder, build(folder), "pets version 3")


# --- what it says ----------------------------------------------------------------------------------------------------


def test_manifest_lists_every_file_and_the_usage(folder: Path) -> None:
    manifest = build(folder)
    assert [file.name for file in manifest.files] == ["MLmodel", "data/model.pt2", "requirements.txt"]
    assert manifest.files[1].size == 3
    assert manifest.files[1].sha256 == hashlib.sha256(b"pt2").hexdigest()
    assert manifest.usage == METADATA


def test_equal_folders_have_one_identity(folder: Path) -> None:
    first = build(folder).sha256
    os.utime(folder / "MLmodel", (0, 0))
    assert build(folder).sha256 == first
    assert len(first) == 64


@pytest.mark.parametrize("name", ["MLmodel", "data/model.pt2", "requirements.txt"])
def test_every_changed_file_changes_the_identity(folder: Path, name: str) -> None:
    first = build(folder).sha256
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    assert build(folder).sha256 != first


def test_exchanged_classes_change_the_identity(folder: Path) -> None:
    first = build(folder).sha256
    write_metadata(folder, {"flavors": FLAVORS, "metadata": METADATA | {"classes": ["dog", "cat"]}})
    assert build(folder).sha256 != first


def test_usage_is_checked_and_typed(folder: Path) -> None:
    usage = check(folder)
    assert (usage.classes, usage.shape, usage.preparation) == (("cat", "dog"), (1, 28, 28), "ink")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data/model.pth", "model.pt2", "code/theirs.py", "data/model.PT2", "extra_files/x"])
def test_other_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"^pets version 3 has a file '{name}', which no model of this pipeline has"):
        check(folder)


@pytest.mark.parametrize("create", [lambda path: path.symlink_to("/etc/hostname"), os.mkfifo])
def test_link_and_pipe_are_refused(folder: Path, create: Callable[[Path], None]) -> None:
    (folder / "requirements.txt").unlink()
    create(folder / "requirements.txt")
    with pytest.raises(UserError, match=r"has 'requirements\.txt', which is no file"):
        check(folder)


def test_model_without_its_archive_is_refused(folder: Path) -> None:
    (folder / "data" / "model.pt2").unlink()
    with pytest.raises(UserError, match="not in MLflow's pt2 format"):
        check(folder)


def test_model_without_metadata_is_refused(folder: Path) -> None:
    (folder / "MLmodel").unlink()
    with pytest.raises(UserError, match=r"MLmodel of pets version 3 is not .* \(it is missing\)"):
        check(folder)


def test_model_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot get pets version 3 \(its files are gone\)"):
        build(tmp_path)


def change(*path: str, to: Any) -> dict[str, Any]:
    """Return the content of MLmodel with another value at the path."""
    content: dict[str, Any] = json.loads(json.dumps({"flavors": FLAVORS, "metadata": METADATA}))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return content


@pytest.mark.parametrize(
    "content",
    [
        change("flavors", "pytorch", "model_data", to="elsewhere"),
        change("flavors", "pytorch", "model_data", to="../data"),
        change("flavors", "pytorch", "code", to="code"),
        change("flavors", "pytorch", "pickle_module", to="theirs"),
        change("flavors", "python_function", "loader_module", to="theirs"),
        change("flavors", "python_function", "data", to="elsewhere"),
        change("flavors", "python_function", "code", to="code"),
        change("flavors", "theirs", to={}),
        change("flavors", to=None),
        change("metadata", "classes", to=["cat", "cat"]),
        change("metadata", "classes", to=["cat", ""]),
        change("metadata", "classes", to=["cat", 1]),
        change("metadata", "classes", to=[]),
        change("metadata", "shape", to=[28, 28]),
        change("metadata", "preparation", to="theirs"),
        change("metadata", to=None),
        change("metadata", to={}),
        change("metadata", to="cat"),
        [],
        "text",
        None,
    ],
)
def test_other_metadata_are_refused(folder: Path, content: Any) -> None:
    honest = build(folder).sha256
    write_metadata(folder, content)
    assert build(folder).sha256 != honest
    with pytest.raises(
        UserError, match=r"^MLmodel of pets version 3 is not one of this pipeline \(.+\); train it again"
    ):
        check(folder)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a: [", b"[" * 100_000, b"!!python/object/apply:os.getcwd []", b"a: &a [*a]"]
)
def test_damaged_metadata_are_refused(folder: Path, content: bytes) -> None:
    (folder / "MLmodel").write_bytes(content)
    with pytest.raises(UserError, match=r"^MLmodel of pets version 3 is not one of this pipeline"):
        check(folder)


def test_huge_metadata_are_refused_unread(folder: Path) -> None:
    (folder / "MLmodel").write_bytes(b" " * (MAX_METADATA_SIZE + 1))
    with pytest.raises(UserError, match=r"MLmodel of pets version 3 is not .* \(it has more than 1,000,000 bytes\)"):
        check(folder)
