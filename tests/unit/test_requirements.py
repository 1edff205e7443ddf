"""The requirement files and their lock files."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from support.scripts import ROOT

FILES = ("requirements", "requirements-server", "requirements-signing", "requirements-audit", "requirements-dev")
OLDER = tuple(sorted(f"tests/versions/{path.stem}" for path in (ROOT / "tests" / "versions").glob("*.txt")))


def read_requirements(path: Path) -> dict[str, str]:
    """Return the versions of a requirement file and of those that it includes, by package."""
    versions = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            versions.update(read_requirements(path.parent / line.removeprefix("-r ")))
        pin = re.match(r"([\w-]+)(?:\[\w+\])?==(\S+)", line)
        if pin:
            versions[pin[1]] = pin[2]
    return versions


def read_lock(path: Path) -> dict[str, str]:
    """Return the versions of a lock file, by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", FILES + OLDER)
def test_lock_has_the_required_versions(name: str) -> None:
    lock = read_lock(ROOT / f"{name}.lock")
    for package, version in read_requirements(ROOT / f"{name}.txt").items():
        assert lock[package] == version, f"{package}: run make lock"


@pytest.mark.parametrize("name", FILES + OLDER)
def test_every_locked_package_has_hashes(name: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / f"{name}.lock").read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) >= 30
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("name", FILES + OLDER)
def test_lock_names_no_index_and_no_extras(name: str) -> None:
    text = (ROOT / f"{name}.lock").read_text()
    assert "://" not in text
    assert "[" not in text  # pip refuses constraints with extras


@pytest.mark.parametrize("name", FILES[:-1])
def test_locks_agree_on_every_version(name: str) -> None:
    everything = read_lock(ROOT / "requirements-dev.lock")
    for package, version in read_lock(ROOT / f"{name}.lock").items():
        if name != "requirements-audit" or package in everything:
            assert everything[package] == version, package


@pytest.mark.parametrize("name", FILES + OLDER)
def test_every_requirement_says_why(name: str) -> None:
    lines = (ROOT / f"{name}.txt").read_text().splitlines()
    for line in lines:
        assert not line or line.startswith(("#", "-r ")) or re.fullmatch(r"\S+==\S+ +# .+", line), line


PIP_INSTALL = re.compile(r"pip install (.*)")
INSTALLING_FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / ".github" / "workflows").glob("*.yml"),
    ROOT / "deploy" / "Dockerfile",
    ROOT / "deploy" / "install_cpu.sh",
]


@pytest.mark.parametrize("path", INSTALLING_FILES, ids=lambda path: path.name)
def test_packages_are_installed_by_their_hashes(path: Path) -> None:
    for line in path.read_text().splitlines():
        for command in PIP_INSTALL.findall("" if line.lstrip().startswith("#") else line.split("  #")[0]):
            is_torch = "--no-deps --index-url" in command  # PyTorch's index, for two packages only: install_cpu.sh
            assert "--require-hashes" in command or (is_torch and path.name == "install_cpu.sh"), line
        assert "extra-index-url" not in line


def test_mlflow_installs_the_lock_file() -> None:
    environment = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    assert environment["dependencies"] == ["-r requirements.lock"]


def test_images_and_users_get_no_test_tools() -> None:
    for name in FILES[:-1]:
        installed = read_lock(ROOT / f"{name}.lock")
        assert not installed.keys() & {"pytest", "playwright", "moto", "mypy", "hypothesis", "ruff"}


def test_supported_python_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert "--python-version 3.11" in (ROOT / "Makefile").read_text()
