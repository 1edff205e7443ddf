"""The files for GitHub and pre-commit: valid, pinned, and with no more rights than they need."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.data.catalog import DATASET_NAMES
from support.scripts import ROOT
from support.workflows import IMAGE, PIPELINE, TESTS, WORKFLOWS, read_workflow

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])


def list_steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs of the workflow."""
    return [step for job in read_workflow(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(
    ("schema", "path"),
    [*(("github-workflows", path) for path in WORKFLOWS), ("dependabot", ROOT / ".github" / "dependabot.yml")],
    ids=lambda value: getattr(value, "stem", value),
)
def test_a_file_fits_its_schema(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_accepts_its_configuration() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_runs_programs_of_the_lock_file() -> None:
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for repository in configuration["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert Path(sys.executable).with_name(Path(hook["entry"].split()[0]).name).exists()


@every_workflow
def test_every_action_is_pinned_by_commit(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    assert lines
    for line in lines:
        assert re.fullmatch(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@every_workflow
def test_no_checkout_keeps_its_token(path: Path) -> None:
    checkouts = [step for step in list_steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


@every_workflow
def test_no_expression_is_inside_a_shell_script(path: Path) -> None:
    scripts = [step["run"] for step in list_steps(path) if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)


@every_workflow
def test_no_fork_gets_the_secrets(path: Path) -> None:
    assert "pull_request_target" not in read_workflow(path)["on"]


@pytest.mark.parametrize("path", [TESTS, PIPELINE], ids=["tests", "pipeline"])
def test_a_job_may_only_read_the_repository(path: Path) -> None:
    workflow = read_workflow(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}).get("contents", "read") == "read"


def test_only_the_job_that_promotes_gets_an_identity() -> None:
    (pipeline,) = read_workflow(PIPELINE)["jobs"].values()
    assert pipeline["permissions"] == {"contents": "read", "id-token": "write"}
    for path in (TESTS, IMAGE):
        assert not any("id-token" in job.get("permissions", {}) for job in read_workflow(path)["jobs"].values())


@every_workflow
def test_caches_depend_on_a_lock_file(path: Path) -> None:
    setups = [step for step in list_steps(path) if step.get("uses", "").startswith("actions/setup-python@")]
    for step in setups:
        assert step["with"]["cache"] == "pip"
        file = ROOT / step["with"]["cache-dependency-path"]
        assert file.suffix == ".lock"
        assert file.exists()


# --- each workflow --------------------------------------------------------------------------------------------------


def test_pull_requests_run_every_command_of_contributors() -> None:
    commands = "\n".join(step.get("run", "") for step in list_steps(TESTS))
    assert re.findall(r"make ([\w-]+)", commands) == ["test", "lint", "test-all"]
    versions = read_workflow(TESTS)["jobs"]["fast"]["strategy"]["matrix"]["python-version"]
    assert versions == ["3.11", "3.12", "3.13"]


def test_a_new_push_stops_the_tests_before_it() -> None:
    assert read_workflow(TESTS)["concurrency"]["cancel-in-progress"] is True


def test_two_merges_decide_one_after_the_other() -> None:
    assert read_workflow(PIPELINE)["concurrency"] == {"group": "train-evaluate-promote", "cancel-in-progress": False}


def test_cancel_reaches_the_scripts_themselves() -> None:
    commands = "\n".join(step.get("run", "") for step in list_steps(PIPELINE))
    assert len(re.findall(r"^exec python \w+\.py", commands, re.MULTILINE)) == 4
    assert not re.findall(r"^python \w+\.py", commands, re.MULTILINE)


def test_artifact_has_what_resumes_a_training() -> None:
    (upload,) = [step for step in list_steps(PIPELINE) if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "always()"
    assert {"checkpoints/", "mlflow.db", "mlruns/"} <= set(upload["with"]["path"].split())


def test_the_workflow_offers_the_data_sets_of_the_script() -> None:
    inputs = read_workflow(PIPELINE)["on"]["workflow_dispatch"]["inputs"]
    assert set(inputs["dataset"]["options"]) <= set(DATASET_NAMES)


def test_only_the_publishing_job_may_write() -> None:
    workflow = read_workflow(IMAGE)
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    assert workflow["permissions"] == {}
    assert check["permissions"] == {"contents": "read"}
    assert publish["permissions"] == {"contents": "read", "packages": "write"}


def test_only_main_publishes_images_that_ran() -> None:
    jobs = read_workflow(IMAGE)["jobs"]
    check, publish = jobs["check"], jobs["publish"]
    assert publish["if"] == "github.ref == 'refs/heads/main' && github.event_name != 'schedule'"
    assert check["if"] == "github.ref != 'refs/heads/main' || github.event_name == 'schedule'"
    assert publish["steps"][:-1] == check["steps"]
    assert publish["steps"][-1]["name"] == "Publish"
    assert [step["name"] for step in check["steps"][1:]] == [
        "Build",
        "Run the digits pipeline in it",
        "Start the team's server, and run the digits pipeline on it",
    ]


def test_images_are_built_every_week() -> None:
    (schedule,) = read_workflow(IMAGE)["on"]["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert (minute + hour).isdecimal()
    assert (day, month, weekday) == ("*", "*", "1")
