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
from support.workflows import IMAGE, PIPELINE, SECURITY, TESTS, VERSIONS, WORKFLOWS, read_workflow

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])


ON_MAIN = "github.ref == 'refs/heads/main'"
WRITING_JOBS = {
    "production": {"id-token"},
    "publish": {"packages", "attestations", "id-token"},
    "codeql": {"security-events"},
    "zizmor": {"security-events"},
    "scorecard": {"security-events"},
}
SCRIPTS = ("Train", "Evaluate", "Promote", "End the run of a training that was stopped")


def list_steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of all jobs of the workflow; a job that calls another workflow has none."""
    return [step for job in read_workflow(path)["jobs"].values() for step in job.get("steps", [])]


def read_jobs(path: Path) -> list[dict[str, Any]]:
    """Return the jobs of the workflow."""
    return list(read_workflow(path)["jobs"].values())


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
        if "uses: ./" not in line:
            assert re.fullmatch(r"(- )?uses: [\w-]+(/[\w-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_commit_everywhere() -> None:
    commits: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for owner, repository, pin in re.findall(r"uses: ([\w-]+)/([\w-]+)\S*@(.*)", path.read_text()):
            commits.setdefault(f"{owner}/{repository}", set()).add(pin)
    assert len(commits) >= 9
    assert {action: pins for action, pins in commits.items() if len(pins) > 1} == {}


@every_workflow
def test_no_checkout_keeps_its_token(path: Path) -> None:
    checkouts = [step for step in list_steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts, path
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


@every_workflow
def test_no_expression_is_inside_a_shell_script(path: Path) -> None:
    assert not any("${{" in step.get("run", "") for step in list_steps(path))


@every_workflow
def test_no_fork_gets_the_secrets(path: Path) -> None:
    workflow = read_workflow(path)
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(workflow["on"])
    if "pull_request" in workflow["on"]:
        for name, job in workflow["jobs"].items():
            is_main_only = str(job.get("if", "")).startswith(ON_MAIN)
            assert is_main_only or "secrets." not in str(job), name
            assert is_main_only or "environment" not in job, name


@every_workflow
def test_a_job_has_the_rights_that_it_names(path: Path) -> None:
    workflow = read_workflow(path)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"]["contents"] == "read"
        others = {right for right, kind in job["permissions"].items() if kind == "write"}
        assert others == WRITING_JOBS.get(name, set()), name


def test_a_job_with_an_identity_runs_on_main_only() -> None:
    for path in WORKFLOWS:
        for name, job in read_workflow(path)["jobs"].items():
            if "id-token" in job["permissions"]:
                assert job["if"].startswith(ON_MAIN), name


@every_workflow
def test_caches_depend_on_a_lock_file(path: Path) -> None:
    setups = [step for step in list_steps(path) if step.get("uses", "").startswith("actions/setup-python@")]
    for step in setups:
        assert step["with"]["cache"] == "pip"
        file = ROOT / step["with"]["cache-dependency-path"]
        assert file.suffix == ".lock"
        assert file.exists()


# --- Production -----------------------------------------------------------------------------------------------------


def test_only_main_gets_the_environment_of_production() -> None:
    jobs = read_workflow(PIPELINE)["jobs"]
    assert jobs["production"]["if"] == ON_MAIN
    assert jobs["production"]["environment"] == "production"
    assert jobs["rehearsal"]["if"] == ON_MAIN.replace("==", "!=")
    assert "environment" not in jobs["rehearsal"]
    for path in WORKFLOWS:
        names = [name for name, job in read_workflow(path)["jobs"].items() if "environment" in job]
        assert names == (["production"] if path == PIPELINE else [])


def test_only_the_scripts_get_the_secrets_of_production() -> None:
    workflow = read_workflow(PIPELINE)
    production, rehearsal = workflow["jobs"]["production"], workflow["jobs"]["rehearsal"]
    assert [step["name"] for step in production["steps"] if "secrets." in str(step)] == list(SCRIPTS)
    for part in (workflow["env"], production.get("env"), rehearsal):
        assert "secrets." not in str(part)
    assert not any("GITHUB_ENV" in step.get("run", "") for step in list_steps(PIPELINE))


def test_other_branches_train_the_same_and_promote_nothing() -> None:
    production, rehearsal = ({step.get("name"): step for step in job["steps"]} for job in read_jobs(PIPELINE))
    for name in ("Train", "Evaluate"):
        assert rehearsal[name]["run"] == production[name]["run"]
    promotions = [step["run"] for step in rehearsal.values() if "promote.py" in step.get("run", "")]
    assert len(promotions) == 1
    assert "--dry-run" in promotions[0]
    assert "--sign" not in promotions[0]


def test_code_owners_approve_what_decides_about_production() -> None:
    lines = (ROOT / ".github" / "CODEOWNERS").read_text().splitlines()
    owned = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert owned >= {"/gates.toml", "/promote.py", "/pipeline/promotion/", "/.github/", "/deploy/", "/requirements*"}
    assert all(list(ROOT.glob(pattern.strip("/"))) for pattern in owned)


# --- each workflow --------------------------------------------------------------------------------------------------


def test_pull_requests_run_every_command_of_contributors() -> None:
    commands = "\n".join(step.get("run", "") for step in list_steps(TESTS))
    assert re.findall(r"make ([\w-]+)", commands) == ["test", "lint", "test-all"]
    versions = read_workflow(TESTS)["jobs"]["fast"]["strategy"]["matrix"]["python-version"]
    assert versions == ["3.11", "3.12", "3.13"]


def test_other_mlflow_versions_are_tried_weekly() -> None:
    workflow = read_workflow(VERSIONS)
    assert [step["run"] for step in list_steps(VERSIONS) if "run" in step] == ["make test-versions"]
    (schedule,) = workflow["on"]["schedule"]
    assert schedule["cron"].split()[2:4] == ["*", "*"]


def test_a_new_push_stops_the_tests_before_it() -> None:
    assert read_workflow(TESTS)["concurrency"]["cancel-in-progress"] is True


def test_two_merges_decide_one_after_the_other() -> None:
    group = "train-evaluate-promote-${{ github.ref }}"  # a run on a branch takes no place in the queue of main
    assert read_workflow(PIPELINE)["concurrency"] == {"group": group, "cancel-in-progress": False}


def test_cancel_reaches_the_scripts_themselves() -> None:
    commands = "\n".join(step.get("run", "") for step in list_steps(PIPELINE))
    assert len(re.findall(r"^exec python \w+\.py", commands, re.MULTILINE)) == 8
    assert not re.findall(r"^python \w+\.py", commands, re.MULTILINE)


def test_artifact_has_what_resumes_a_training() -> None:
    upload, same = [step for step in list_steps(PIPELINE) if "upload-artifact" in step.get("uses", "")]
    assert upload == same
    assert upload["if"] == "always()"
    assert {"checkpoints/", "mlflow.db", "mlruns/"} <= set(upload["with"]["path"].split())


def test_the_workflow_offers_the_data_sets_of_the_script() -> None:
    inputs = read_workflow(PIPELINE)["on"]["workflow_dispatch"]["inputs"]
    assert set(inputs["dataset"]["options"]) <= set(DATASET_NAMES)


def test_only_the_publishing_job_may_write() -> None:
    workflow = read_workflow(IMAGE)
    check, publish = workflow["jobs"]["check"], workflow["jobs"]["publish"]
    assert check["permissions"] == {"contents": "read"}
    assert publish["permissions"]["packages"] == "write"


def test_only_main_publishes_images_that_ran() -> None:
    jobs = read_workflow(IMAGE)["jobs"]
    check, publish = jobs["check"], jobs["publish"]
    assert publish["if"] == "github.ref == 'refs/heads/main' && github.event_name != 'schedule'"
    assert check["if"] == "github.ref != 'refs/heads/main' || github.event_name == 'schedule'"
    assert publish["steps"][:4] == check["steps"]
    assert [step["name"] for step in publish["steps"][4:]] == [
        "List what is in the image",
        "Publish",
        "State where the image comes from",
        "State what is in the image",
    ]


def test_an_image_is_published_after_the_tests() -> None:
    jobs = read_workflow(IMAGE)["jobs"]
    assert jobs["publish"]["needs"] == "tests"
    assert jobs["tests"]["uses"] == f"./{TESTS.relative_to(ROOT)}"
    assert jobs["tests"]["if"] == jobs["publish"]["if"]
    assert set(read_workflow(TESTS)["on"]) == {"pull_request", "workflow_call"}


def test_what_is_published_is_attested() -> None:
    steps = {step.get("name"): step for step in read_workflow(IMAGE)["jobs"]["publish"]["steps"]}
    origin, content = steps["State where the image comes from"], steps["State what is in the image"]
    for step in (origin, content):
        assert step["with"]["subject-digest"] == "${{ steps.publish.outputs.digest }}"
        assert step["with"]["push-to-registry"] is True
    assert origin["uses"].startswith("actions/attest-build-provenance@")
    assert content["with"]["sbom-path"] == steps["List what is in the image"]["with"]["output-file"]


def test_an_image_is_checked_in_two_steps() -> None:
    check = read_workflow(IMAGE)["jobs"]["check"]
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


def test_code_workflows_and_packages_are_scanned() -> None:
    jobs = read_workflow(SECURITY)["jobs"]
    assert jobs["codeql"]["strategy"]["matrix"]["language"] == ["python", "actions"]
    assert any("zizmor " in step.get("run", "") for step in jobs["zizmor"]["steps"])
    assert any("requirements*.lock" in step.get("run", "") for step in jobs["packages"]["steps"])
    assert set(read_workflow(SECURITY)["on"]) == {"push", "pull_request", "schedule"}


def test_lint_checks_dockerfiles_and_workflows() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "\n\thadolint deploy/Dockerfile tests/stand_ins/Dockerfile" in recipe
    assert "\n\tzizmor --offline --quiet .github" in recipe


def test_updates_wait_a_week() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} >= {"pip", "github-actions", "docker", "docker-compose"}
    assert {update["cooldown"]["default-days"] for update in updates} == {7}
