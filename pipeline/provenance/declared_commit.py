"""The commit and the branch that the environment names, for code of which Git does not know them.

A variable can be left over from other code. So a commit from there is taken only where it is set for this code, and the
run records which variable it was and that nobody compared the files with it.
"""

import os
import re
from pathlib import Path

COMMIT = re.compile("[0-9a-f]{6,64}")
# Of GitHub Actions: the events whose checkout is the commit GITHUB_SHA, unless the workflow asks for another one.
# After others, such as pull_request_target and workflow_run, workflows usually do.
CHECKOUT_EVENTS = ("push", "pull_request", "workflow_dispatch", "schedule", "merge_group", "release")
DETACHED = "HEAD"  # what Git says in place of a branch


def find_declared_commit(root: Path) -> tuple[str, str] | None:
    """Return the commit that a variable names for the code in ``root``, and the name of the variable, or None.

    ``CODE_COMMIT`` is that of an image, see deploy/Dockerfile. ``GITHUB_SHA`` counts if ``root`` is the workspace of a
    GitHub Actions job: without Git, actions/checkout downloads the files and makes no repository.
    """
    for name in ("CODE_COMMIT", "GITHUB_SHA"):
        commit = os.environ.get(name, "").strip().lower()
        if COMMIT.fullmatch(commit) and (name == "CODE_COMMIT" or _is_checkout_of_job(root)):
            return commit, name
    return None


def _is_checkout_of_job(root: Path) -> bool:
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if not workspace or not _is_github_job() or os.environ.get("GITHUB_EVENT_NAME") not in CHECKOUT_EVENTS:
        return False
    return root.resolve() == Path(workspace).resolve()  # an image in the job has other code


def _is_github_job() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def find_branch(branch: str, commit: str) -> str:
    """Return ``branch`` as Git names it; for a detached HEAD at the commit of a GitHub Actions job, that of the job."""
    if branch != DETACHED or not _is_github_job() or os.environ.get("GITHUB_SHA") != commit:
        return branch
    return os.environ.get("GITHUB_HEAD_REF") or os.environ.get("GITHUB_REF_NAME") or branch
