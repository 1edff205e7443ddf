"""The workflows: valid, frugal with rights, and their shell steps run here as they are written there."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
TESTS = WORKFLOWS / "tests.yml"
PIPELINE = WORKFLOWS / "train-evaluate-promote.yml"
SCRIPTS = ("pytorch_demo.py", "evaluate.py", "promote.py")
TEST_IMAGES = [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]  # of digits, by class: 360

# What GitHub runs a step with: https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax,
# jobs.<job_id>.steps[*].shell. Only a shell that is named has pipefail.
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]}

each_workflow = pytest.mark.parametrize("path", [TESTS, PIPELINE], ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    """Return the workflow; YAML 1.1, which PyYAML reads, takes its key ``on`` for a boolean."""
    content = {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of the workflow's only job."""
    (job,) = load(path)["jobs"].values()
    return list(job["steps"])


# --- as written -----------------------------------------------------------------------------------------------------


@each_workflow
def test_a_workflow_fits_the_github_schema(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@each_workflow
def test_every_action_is_pinned_by_commit_and_names_its_version(path: Path) -> None:
    used = [line.strip() for line in path.read_text().splitlines() if re.search(r"\buses:", line)]
    assert len(used) == sum("uses" in step for step in steps(path)) > 0
    for line in used:
        assert re.fullmatch(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@each_workflow
def test_a_job_may_read_the_repository_and_nothing_else(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert "pull_request_target" not in workflow["on"]  # it would give a fork's code the secrets
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


@each_workflow
def test_no_expression_is_pasted_into_a_shell_script(path: Path) -> None:
    scripts = [step["run"] for step in steps(path) if "run" in step]
    assert scripts
    assert not any("${{" in script for script in scripts)


def test_two_merges_wait_for_each_other_but_a_pull_request_does_not_wait_for_its_past() -> None:
    assert load(PIPELINE)["concurrency"] == {"group": "train-evaluate-promote", "cancel-in-progress": False}
    assert load(TESTS)["concurrency"]["cancel-in-progress"] is True


def test_the_workflow_offers_the_data_sets_that_the_script_knows() -> None:
    from pipeline.data import NAMES

    assert tuple(load(PIPELINE)["on"]["workflow_dispatch"]["inputs"]["dataset"]["options"]) == NAMES


# --- as run ---------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """What a run of the job's shell steps did, in ``folder``."""

    folder: Path
    codes: dict[str, int] = field(default_factory=dict)  # step -> exit code, of the steps that ran
    summary: str = ""
    log: str = ""

    @property
    def failed(self) -> bool:
        """Whether a step failed, and with it the job."""
        return any(self.codes.values())

    def table(self, title: str) -> list[list[str]]:
        """The rows, without header, of the table under the heading ``title`` in the summary."""
        section = self.summary.partition(f"### {title}\n")[2].partition("\n### ")[0]
        rows = [line for line in section.splitlines() if line.startswith("|")][2:]
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def run_job(folder: Path, inputs: dict[str, str] | None = None, secrets: dict[str, str] | None = None) -> Job:
    """Run the shell steps of train-evaluate-promote.yml in ``folder`` as GitHub would, but for the installation.

    What is not set is empty: the inputs on a push, the secrets in a fork.
    """
    workflow = load(PIPELINE)
    (about,) = workflow["jobs"].values()
    shell = workflow.get("defaults", {}).get("run", {}).get("shell")
    # make .venv/installed stands for what it would have made; nothing of the caller's store or CI job gets in
    (folder / ".venv").symlink_to(sys.prefix)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GITHUB_"))}
    environment |= {"CI": "true", "GITHUB_ACTIONS": "true"} | about.get("env", {})
    outputs: dict[str, dict[str, str]] = {}
    contexts = {"inputs": inputs or {}, "secrets": secrets or {}}

    def evaluate(value: str) -> str:
        def replace(match: re.Match[str]) -> str:
            context, *names = match[1].split(".")
            if context == "steps":
                step, kind, output = names
                assert kind == "outputs"
                return outputs[step].get(output, "")
            (name,) = names
            return contexts[context].get(name, "")

        return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", replace, value)

    job = Job(folder)
    for step in about["steps"]:
        if "run" not in step or step["run"] == "make .venv/installed":
            continue
        assert step.get("if") in (None, "always()"), "this test knows no other condition"
        if job.failed and "if" not in step:
            continue
        files = {name: folder.parent / f"{folder.name}.{name}" for name in ("ENV", "OUTPUT", "PATH", "STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        own = {key: evaluate(value) for key, value in step.get("env", {}).items()}
        done = subprocess.run(
            [*SHELLS[step.get("shell", shell)], "-c", step["run"]],
            cwd=folder,
            env=environment | own | {f"GITHUB_{name}": str(file) for name, file in files.items()},
            capture_output=True,
            text=True,
            timeout=240,
        )
        job.codes[step["name"]] = done.returncode
        job.log += f"--- {step['name']}: {done.returncode}\n{done.stdout}{done.stderr}"
        job.summary += files["STEP_SUMMARY"].read_text()
        environment |= pairs(files["ENV"])
        outputs[step.get("id", "")] = pairs(files["OUTPUT"])
        for line in files["PATH"].read_text().splitlines():
            environment["PATH"] = f"{line}{os.pathsep}{environment['PATH']}"
    return job


def pairs(file: Path) -> dict[str, str]:
    """Return what a step wrote to $GITHUB_ENV or $GITHUB_OUTPUT."""
    return {name: value for name, _, value in (line.partition("=") for line in file.read_text().splitlines())}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a directory like a fresh checkout, as far as the workflow looks at it."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    for name in (*SCRIPTS, "gates.toml"):
        shutil.copy(ROOT / name, folder)
    for name in (".github", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def check_confusion(job: Job, accuracy: float) -> None:
    """Check that the summary has the 10x10 matrix of the 360 test images, truth in rows, that gives ``accuracy``."""
    rows = job.table("Confusion matrix")
    assert [name for name, *_ in rows] == [f"**{digit}**" for digit in range(10)]
    counts = [[int(cell) for cell in cells] for _, *cells in rows]
    assert [len(row) for row in counts] == [10] * 10
    assert [sum(row) for row in counts] == TEST_IMAGES
    assert sum(counts[i][i] for i in range(10)) == round(accuracy * sum(TEST_IMAGES))


def test_the_job_puts_a_good_model_in_production_and_sums_up(workspace: Path) -> None:
    job = run_job(workspace, inputs={"dataset": "digits"})
    assert not job.failed, job.log
    assert list(job.codes)[-4:] == ["Train", "Evaluate", "Promote", "Summarise"]
    assert (workspace / "mlflow.db").stat().st_size > 0
    accuracy = json.loads((workspace / "evaluate.json").read_text())["test_accuracy"]

    assert "**Promoted.** digits-classifier version 1 is in Production" in job.summary
    assert job.table("Verdict")[0] == ["min_accuracy", f"{accuracy:.4f}", "-", "0.9500", "passed"]
    assert [row[-1] for row in job.table("Verdict")] == ["passed"] * 5
    assert ["accuracy", f"{accuracy:.4f}"] in job.table("Metrics")
    questions = ["goal", "generalisation", "balance", "errors", "cost"]
    assert [question for question, _, _ in job.table("Checklist")] == questions
    check_confusion(job, accuracy)


def test_a_refusal_fails_the_job_and_is_summed_up(workspace: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, workspace / "mlflow.db")  # spares the seconds of making one
    (workspace / "gates.toml").write_text("[digits]\nmin_accuracy = 1.0\n")
    job = run_job(workspace, inputs={"dataset": "digits", "epochs": "1"})
    assert {name: code for name, code in job.codes.items() if code} == {"Promote": 1}, job.log
    accuracy = json.loads((workspace / "evaluate.json").read_text())["test_accuracy"]

    assert "**Refused.** digits-classifier version 1 does not go to Production" in job.summary
    assert job.table("Verdict") == [["min_accuracy", f"{accuracy:.4f}", "-", "1.0000", "refused"]]
    assert "right) is below 1.0000" in job.summary
    assert ["accuracy", f"{accuracy:.4f}"] in job.table("Metrics")
    check_confusion(job, accuracy)


@pytest.fixture
def stand_ins(workspace: Path) -> Path:
    """Return a workspace whose scripts only write down how they were called and print a result: that takes no time."""
    reports = workspace / "evaluation" / "f00d"
    reports.mkdir(parents=True)
    scores = {"precision": 0.75, "recall": 0.75, "f1": 0.6667}
    record = {"samples": 3, "accuracy": 0.6667, "loss": 0.5, "macro": scores, "images_per_second": 1234.5}
    record["accuracy_interval"] = {"confidence": 0.95, "low": 0.2, "high": 0.9}
    (reports / "evaluation.json").write_text(json.dumps(record))
    answer = {"question": "goal", "verdict": "watch", "sentences": ["It is above the floor.", "Perhaps."]}
    (reports / "checklist.json").write_text(json.dumps([answer]))
    (reports / "predictions.csv").write_text(
        "index,label,prediction,T-shirt/top,Ankle boot\n0,0,0,0.9,0.1\n1,0,1,0.4,0.6\n2,1,1,0.2,0.8\n"
    )
    trained = {"run_id": "f00d", "dataset": "clothes", "test_accuracy": 0.9, "test_loss": 0.5, "training_seconds": 1.5}
    promoted = {"model_name": "clothes-classifier", "version": 4, "decision": "promoted", "previous_version": 3}
    check = {"name": "min_accuracy", "value": 0.6667, "threshold": 0.5, "passed": True, "champion": 0.6}
    printed = (
        trained,
        {"output_dir": "evaluation/f00d"},
        promoted | {"checks": [check], "reason": "every check passed"},
    )
    for name, result in zip(SCRIPTS, printed, strict=True):
        (workspace / name).write_text(
            "import json, os, pathlib, sys\n"
            "seen = {'python': sys.executable, 'arguments': sys.argv[1:]}\n"
            "seen['store'] = {name: value for name, value in os.environ.items() if name.startswith('MLFLOW_')}\n"
            "pathlib.Path(sys.argv[0] + '.called').write_text(json.dumps(seen))\n"
            f"print({json.dumps(result)!r})\n"
        )
    return workspace


def called(folder: Path, script: str) -> dict[str, Any]:
    """Return what a stand-in wrote down: python, arguments, store."""
    return dict(json.loads((folder / f"{script}.called").read_text()))


def test_a_push_trains_with_the_defaults_and_passes_the_run_on(stand_ins: Path) -> None:
    job = run_job(stand_ins)
    assert not job.failed, job.log
    assert called(stand_ins, "pytorch_demo.py")["arguments"] == []
    assert called(stand_ins, "evaluate.py")["arguments"] == ["--run-id", "f00d", "--log-mlflow"]
    assert called(stand_ins, "promote.py")["arguments"] == ["--run-id", "f00d"]


def test_the_scripts_run_with_what_was_installed(stand_ins: Path) -> None:
    run_job(stand_ins)
    assert [called(stand_ins, script)["python"] for script in SCRIPTS] == [str(stand_ins / ".venv/bin/python")] * 3


def test_an_input_is_one_argument_whatever_it_contains(stand_ins: Path) -> None:
    inputs = {"dataset": "mnist", "epochs": '3 --limit 9"; touch injected; "', "lr": "$(touch injected)"}
    job = run_job(stand_ins, inputs)
    assert not job.failed, job.log
    assert called(stand_ins, "pytorch_demo.py")["arguments"] == [f"--{name}={inputs[name]}" for name in inputs]
    assert not (stand_ins / "injected").exists()


def test_the_scripts_get_the_secrets_that_are_set_and_no_empty_ones(stand_ins: Path) -> None:
    secrets = {"MLFLOW_TRACKING_URI": "https://mlflow.example/a=b", "MLFLOW_TRACKING_USERNAME": "ci"}
    job = run_job(stand_ins, secrets=secrets)
    assert not job.failed, job.log
    assert [called(stand_ins, script)["store"] for script in SCRIPTS] == [secrets] * 3


def test_without_secrets_the_scripts_choose_the_store(stand_ins: Path) -> None:
    assert not run_job(stand_ins).failed
    assert [called(stand_ins, script)["store"] for script in SCRIPTS] == [{}] * 3


def test_the_summary_shows_truth_in_rows_under_the_class_names(stand_ins: Path) -> None:
    job = run_job(stand_ins)
    assert "| truth \\ prediction | T-shirt/top | Ankle boot |" in job.summary
    assert job.table("Confusion matrix") == [["**T-shirt/top**", "1", "1"], ["**Ankle boot**", "0", "1"]]
    assert "**Promoted.** clothes-classifier version 4 is in Production; before: version 3." in job.summary


@pytest.mark.parametrize(("script", "step"), [*zip(SCRIPTS, ("Train", "Evaluate", "Promote"), strict=True)])
def test_a_script_that_fails_ends_the_job_and_is_named_in_the_summary(stand_ins: Path, script: str, step: str) -> None:
    (stand_ins / script).write_text("raise SystemExit(2)\n")
    job = run_job(stand_ins)
    assert [name for name, code in job.codes.items() if code] == [step], job.log
    assert list(job.codes)[-2:] == [step, "Summarise"]
    assert f"**No decision.** {script} did not get through" in job.summary
    assert (["accuracy", "0.9000"] in job.table("Metrics")) == (script == "evaluate.py")  # what training measured
