"""Git, as the tests use it."""

import shutil
import subprocess
from pathlib import Path

from support.scripts import ROOT

# What the scripts need, and what a commit of the project would hold of it.
PROJECT_FILES = (
    "*.py",
    "gates.toml",
    "MLproject",
    "Makefile",
    "python_env.yaml",
    "requirements*",
    ".dockerignore",
    ".env.example",
    ".gitignore",
)
PROJECT_FOLDERS = ("pipeline", "deploy", ".github")


def run_git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` and return what it printed."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def clone_project(folder: Path) -> Path:
    """Return a clone of this project's code as it is now, as the only commit of a repository below ``folder``."""
    origin, checkout = folder / "origin", folder / "checkout"
    origin.mkdir()
    for pattern in PROJECT_FILES:
        for file in ROOT.glob(pattern):
            shutil.copy(file, origin)
    for name in PROJECT_FOLDERS:
        shutil.copytree(ROOT / name, origin / name, ignore=shutil.ignore_patterns("__pycache__", ".env"))
    run_git(origin, "init", "--quiet", "--initial-branch", "main")
    run_git(origin, "add", ".")
    run_git(origin, "commit", "--quiet", "--message", "everything")
    run_git(folder, "clone", "--quiet", str(origin), str(checkout))
    return checkout
