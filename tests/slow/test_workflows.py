"""The shell steps of train-evaluate-promote.yml, run as they are written there."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from support.pipelines import PipelineRun
from support.scripts import ROOT
from support.stores import open_store, read_run_statuses
from support.workflows import Cancellation, JobResult, run_pipeline_job

SCRIPTS = ("pytorch_demo.py", "evaluate.py", "promote.py")
END_STEP = "End the run of a training that was stopped"
TEST_IMAGES = [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]  # of digits, by class: 360


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a directory with what the workflow uses of a checkout."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    for name in (*SCRIPTS, "compare.py", "gates.toml"):
        shutil.copy(ROOT / name, folder)
    for name in (".github", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


# --- with the scripts -----------------------------------------------------------------------------------------------


def check_confusion_matrix(job: JobResult, accuracy: float) -> None:
    """Check that the summary has the 10x10 matrix of the 360 test images, truth in rows, with this accuracy."""
    rows = job.read_table("Confusion matrix")
    counts = [[int(cell) for cell in cells] for _, *cells in rows]
    assert [row[0] for row in rows] == [f"**{digit}**" for digit in range(10)]
    assert [sum(row) for row in counts] == TEST_IMAGES
    assert sum(counts[digit][digit] for digit in range(10)) == round(accuracy * 360)


def test_a_good_model_goes_to_production(workspace: Path) -> None:
    job = run_pipeline_job(workspace, inputs={"dataset": "digits"})
    assert job.failed_steps == [], job.log
    assert list(job.codes)[-5:] == ["Train", "Read the run's id", "Evaluate", "Promote", "Summarise"]
    assert (workspace / "mlflow.db").stat().st_size > 0

    accuracy = read_json(workspace / "evaluate.json")["test_accuracy"]
    verdict = job.read_table("Verdict")
    assert "**Promoted.** digits-classifier version 1 is in Production" in job.summary
    assert verdict[0] == ["min_accuracy", f"{accuracy:.4f}", "-", "0.9500", "passed"]
    assert [row[-1] for row in verdict] == ["passed"] * 7
    assert ["accuracy", f"{accuracy:.4f}"] in job.read_table("Metrics")
    questions = [row[0] for row in job.read_table("Checklist")]
    assert questions == ["goal", "generalisation", "balance", "errors", "cost"]
    check_confusion_matrix(job, accuracy)


def test_a_rehearsal_decides_and_promotes_nothing(workspace: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, workspace / "mlflow.db")
    job = run_pipeline_job(workspace, inputs={"dataset": "digits"}, job="rehearsal")
    assert job.failed_steps == [], job.log
    assert '"decision": "promoted"' in job.log
    version = open_store(workspace).get_model_version("digits-classifier", "1")
    assert version.current_stage == "Staging"
    assert not any(name.startswith("gate.") for name in version.tags)


def test_a_refusal_fails_the_job(workspace: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, workspace / "mlflow.db")  # making one would take seconds
    (workspace / "gates.toml").write_text("[digits]\nmin_accuracy = 1.0\n")
    job = run_pipeline_job(workspace, inputs={"dataset": "digits", "epochs": "1"})
    assert job.failed_steps == ["Promote"], job.log
    assert job.codes["Promote"] == 1

    accuracy = read_json(workspace / "evaluate.json")["test_accuracy"]
    assert "**Refused.** digits-classifier version 1 does not go to Production" in job.summary
    assert "right) is below 1.0000" in job.summary
    verdict = job.read_table("Verdict")
    assert verdict[0] == ["min_accuracy", f"{accuracy:.4f}", "-", "1.0000", "refused"]
    refused = [row[0] for row in verdict if row[-1] == "refused"]
    assert refused == ["min_accuracy", "min_accuracy_lower_end"]
    check_confusion_matrix(job, accuracy)


def test_cancel_ends_the_run(workspace: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, workspace / "mlflow.db")
    inputs = {"dataset": "digits", "epochs": "300"}
    job = run_pipeline_job(workspace, inputs, cancellation=Cancellation("Train", "epoch 2"))
    assert (job.codes["Train"], list(job.codes)[-3:]) == (130, ["Train", END_STEP, "Summarise"]), job.log
    assert read_run_statuses(workspace) == ["KILLED"]
    assert "**No decision.** pytorch_demo.py did not finish" in job.summary


KILLED_TRAINING = """
import signal, sys, time
from pipeline.context import describe_process
from pipeline.tracking.runs import create_run, get_or_create_experiment
from pipeline.tracking.store import connect

with connect():
    create_run(get_or_create_experiment("pytorch-demo"), {"invocation.process": describe_process()})
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("epoch 2", file=sys.stderr, flush=True)
time.sleep(100)
"""


def test_run_of_a_killed_training_is_ended(workspace: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, workspace / "mlflow.db")
    (workspace / "pytorch_demo.py").write_text(KILLED_TRAINING)
    job = run_pipeline_job(workspace, cancellation=Cancellation("Train", "epoch 2", pauses=(0.1, 0.1)))
    assert job.codes["Train"] == -signal.SIGKILL
    assert "said RUNNING, but its process is gone" in job.log
    assert read_run_statuses(workspace) == ["KILLED"]


# --- with stand-ins for the scripts ---------------------------------------------------------------------------------


@pytest.fixture
def stand_ins(workspace: Path, digits_pipeline: PipelineRun) -> Path:
    """Return a workspace whose scripts only record how they are called and print a result: that takes no time."""
    reports = digits_pipeline.folder / "evaluation" / digits_pipeline.run_id
    shutil.copytree(reports, workspace / "evaluation" / "f00d")
    trained = {"run_id": "f00d", "dataset": "digits", "test_accuracy": 0.9, "test_loss": 0.5, "training_seconds": 1.5}
    check = {"name": "min_accuracy", "value": 0.6667, "threshold": 0.5, "passed": True, "champion": 0.6}
    promoted = {"model_name": "digits-classifier", "version": 4, "decision": "promoted", "previous_version": 3}
    promoted |= {"checks": [check], "reason": "every check passed", "notices": [], "signer": ""}
    write_stand_in(workspace / "pytorch_demo.py", trained)
    write_stand_in(workspace / "evaluate.py", {"output_dir": "evaluation/f00d"})
    write_stand_in(workspace / "promote.py", promoted)
    write_stand_in(workspace / "compare.py", {})
    return workspace


def write_stand_in(script: Path, result: dict[str, Any]) -> None:
    """Write a script that records its call in ``<script>.call`` and prints the result."""
    script.write_text(
        "import json, os, pathlib, sys\n"
        "store = {name: value for name, value in os.environ.items() if name.startswith('MLFLOW_')}\n"
        "call = {'python': sys.executable, 'arguments': sys.argv[1:], 'store': store}\n"
        "pathlib.Path(sys.argv[0] + '.call').write_text(json.dumps(call))\n"
        f"print({json.dumps(result)!r})\n"
    )


def read_calls(folder: Path, key: str) -> list[Any]:
    """Return an item of the call of each script."""
    return [read_json(folder / f"{script}.call")[key] for script in SCRIPTS]


def test_a_push_uses_the_defaults(stand_ins: Path) -> None:
    job = run_pipeline_job(stand_ins)
    assert job.failed_steps == [], job.log
    run = ["--run-id", "f00d"]
    assert read_calls(stand_ins, "arguments") == [[], [*run, "--log-mlflow"], run]


@pytest.mark.parametrize(
    ("name", "token_url", "signs"),
    [
        ("production", "https://token.example", True),
        ("production", "", False),
        ("rehearsal", "https://token.example", False),
    ],
)
def test_only_main_on_github_signs(stand_ins: Path, name: str, token_url: str, signs: bool) -> None:
    job = run_pipeline_job(stand_ins, env={"ACTIONS_ID_TOKEN_REQUEST_URL": token_url}, job=name)
    assert job.failed_steps == [], job.log
    assert ("--sign-keyless" in read_calls(stand_ins, "arguments")[2]) == signs


def test_the_scripts_run_in_the_installed_environment(stand_ins: Path) -> None:
    run_pipeline_job(stand_ins)
    assert read_calls(stand_ins, "python") == [str(stand_ins / ".venv/bin/python")] * 3


def test_an_input_is_one_argument(stand_ins: Path) -> None:
    inputs = {"dataset": "mnist", "epochs": '3 --limit 9"; touch injected; "', "lr": "$(touch injected)"}
    job = run_pipeline_job(stand_ins, inputs)
    assert job.failed_steps == [], job.log
    assert read_calls(stand_ins, "arguments")[0] == [f"--{name}={value}" for name, value in inputs.items()]
    assert not (stand_ins / "injected").exists()


@pytest.mark.parametrize(
    "secrets", [{}, {"MLFLOW_TRACKING_URI": "https://mlflow.example/a=b", "MLFLOW_TRACKING_USERNAME": "ci"}]
)
def test_the_scripts_get_no_empty_secrets(stand_ins: Path, secrets: dict[str, str]) -> None:
    job = run_pipeline_job(stand_ins, secrets=secrets)
    assert job.failed_steps == [], job.log
    assert read_calls(stand_ins, "store") == [secrets | {"MLFLOW_DISABLE_TELEMETRY": "true"}] * 3


def test_a_rehearsal_gets_no_secrets(stand_ins: Path) -> None:
    secrets = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "MLFLOW_TRACKING_PASSWORD": "secret"}
    job = run_pipeline_job(stand_ins, secrets=secrets, job="rehearsal")
    assert job.failed_steps == [], job.log
    assert read_calls(stand_ins, "store") == [{"MLFLOW_DISABLE_TELEMETRY": "true"}] * 3
    assert read_calls(stand_ins, "arguments")[2] == ["--run-id", "f00d", "--dry-run"]


def test_the_summary_names_the_version_before(stand_ins: Path) -> None:
    job = run_pipeline_job(stand_ins)
    assert "**Promoted.** digits-classifier version 4 is in Production; before: version 3." in job.summary


@pytest.mark.parametrize(("script", "step"), [*zip(SCRIPTS, ("Train", "Evaluate", "Promote"), strict=True)])
def test_a_failed_script_ends_the_job(stand_ins: Path, script: str, step: str) -> None:
    (stand_ins / script).write_text("raise SystemExit(2)\n")
    job = run_pipeline_job(stand_ins)
    assert job.failed_steps == [step], job.log
    end = [END_STEP] if step == "Train" else []
    steps = list(job.codes)
    assert steps[steps.index(step) :] == [step, *end, "Summarise"]
    assert f"**No decision.** {script} " in job.summary
    measured_by_training = ["accuracy", "0.9000"] in job.read_table("Metrics")
    assert measured_by_training == (script == "evaluate.py")
