"""The workflows of GitHub Actions, and their shell steps run as GitHub runs them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.scripts import ROOT

FOLDER = ROOT / ".github" / "workflows"
TESTS = FOLDER / "tests.yml"
PIPELINE = FOLDER / "train-evaluate-promote.yml"
IMAGE = FOLDER / "image.yml"
SECURITY = FOLDER / "security.yml"
VERSIONS = FOLDER / "versions.yml"
WORKFLOWS = tuple(sorted(FOLDER.glob("*.yml")))

# What GitHub runs a step with: https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax,
# jobs.<job_id>.steps[*].shell. Only a shell that is named has pipefail.
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]}
INSTALL_COMMAND = re.compile(r"make \.venv/installed|\.venv/bin/pip install .*")
STEP_FILES = ("ENV", "OUTPUT", "PATH", "STEP_SUMMARY")  # GITHUB_ENV ...: the files that a step may write to
STATUS_FUNCTIONS = ("always", "cancelled", "failure", "success")
OUTCOME = re.compile(r"steps\.(\w+)\.outcome")
TIMEOUT = 120  # seconds
COMMANDS = (
    "add-mask",
    "add-matcher",
    "add-path",
    "debug",
    "echo",
    "endgroup",
    "error",
    "group",
    "notice",
    "remove-matcher",
    "save-state",
    "set-env",
    "set-output",
    "stop-commands",
    "warning",
)
NEW_COMMAND = re.compile(r"\s*::(?P<command>.*?)::(?P<data>.*)")
OLD_COMMAND = re.compile(r"##\[(?P<command>[^\]]*)\](?P<data>.*)")
EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")


def read_workflow(path: Path) -> dict[str, Any]:
    """Return the workflow; YAML 1.1, which PyYAML reads, takes its key ``on`` for a boolean."""
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text())
    if True in workflow:
        workflow["on"] = workflow.pop(True)
    return workflow


@dataclass
class JobResult:
    """What a run of a job's shell steps did.

    Attributes
    ----------
    codes
        Exit code of each step that ran, by its name.
    summary
        The Markdown of all steps.
    log
        What the steps printed.
    """

    codes: dict[str, int] = field(default_factory=dict)
    summary: str = ""
    log: str = ""

    @property
    def failed_steps(self) -> list[str]:
        """The names of the steps that failed."""
        return [name for name, code in self.codes.items() if code]

    def read_table(self, title: str) -> list[list[str]]:
        """Return the rows, without header, of the table under the heading ``title`` in the summary."""
        section = self.summary.partition(f"### {title}\n")[2].partition("\n### ")[0]
        rows = [line for line in section.splitlines() if line.startswith("|")][2:]
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@dataclass(frozen=True)
class Cancellation:
    """A person cancels the job when a step has printed a text.

    Attributes
    ----------
    step : its name.
    text : in what it prints to stderr.
    pauses : seconds from SIGINT to SIGTERM, and from SIGTERM to SIGKILL. The default is what the runner waits:
        https://docs.github.com/actions/reference/workflow-cancellation-reference
    """

    step: str
    text: str
    pauses: tuple[float, float] = (7.5, 2.5)


def run_pipeline_job(
    folder: Path,
    inputs: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    cancellation: Cancellation | None = None,
    env: Mapping[str, str] | None = None,
    job: str = "production",
) -> JobResult:
    """Run the shell steps of a job of train-evaluate-promote.yml in ``folder`` as GitHub would, without installing.

    Inputs on a push and secrets in a fork are empty; ``env`` is what the runner's environment has more.
    """
    (folder / ".venv").symlink_to(sys.prefix)  # what the installation would make
    contexts = {"inputs": dict(inputs or {}), "secrets": dict(secrets or {}), "vars": {}}
    return run_job(PIPELINE, job, folder, contexts, env, cancellation)


def run_job(
    path: Path,
    name: str,
    folder: Path,
    contexts: Mapping[str, Mapping[str, str]] | None = None,
    env: Mapping[str, str] | None = None,
    cancellation: Cancellation | None = None,
) -> JobResult:
    """Run the shell steps of a job in ``folder`` as GitHub would; ``env`` is what the runner's environment has more."""
    workflow = read_workflow(path)
    job = workflow["jobs"][name]
    default_shell = workflow.get("defaults", {}).get("run", {}).get("shell")
    all_env = {**(env or {}), **workflow.get("env", {}), **job.get("env", {})}
    run = _JobRun(folder, contexts or {}, all_env, cancellation)
    for step in job["steps"]:
        if "run" not in step or INSTALL_COMMAND.fullmatch(step["run"]):
            continue
        if run.is_true(step.get("if", "success()")):
            run.run_step(step, SHELLS[step.get("shell", default_shell)])
    return run.result


class _JobRun:
    """The state that a job's steps share: environment, outputs, outcomes, result so far."""

    def __init__(
        self,
        folder: Path,
        contexts: Mapping[str, Mapping[str, str]],
        env: Mapping[str, str],
        cancellation: Cancellation | None,
    ) -> None:
        self.folder = folder
        self.contexts = contexts
        self.cancellation = cancellation
        self.status = "success"
        self.result = JobResult()
        self.outputs: dict[str, dict[str, str]] = {}
        self.outcomes: dict[str, str] = {}
        # Nothing of the caller's store or CI job gets in.
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GITHUB_"))}
        self.env |= {"CI": "true", "GITHUB_ACTIONS": "true"}
        self.env |= env

    def is_true(self, condition: str) -> bool:
        """Return whether a step with this condition runs: status functions, outcomes of steps, ``&&`` and ``||``."""
        functions = {name: lambda name=name: name in ("always", self.status) for name in STATUS_FUNCTIONS}
        assert any(f"{name}()" in condition for name in functions), "this helper does not add success() to a condition"
        text = OUTCOME.sub(lambda match: repr(self.outcomes.get(match[1], "skipped")), condition)
        text = text.replace("&&", "and").replace("||", "or")
        return bool(eval(text, {"__builtins__": {}}, functions))

    def run_step(self, step: dict[str, Any], shell: list[str]) -> None:
        files = {name: self.folder.parent / f"{self.folder.name}.{name}" for name in STEP_FILES}
        for file in files.values():
            file.write_text("")
        env = self.env | {f"GITHUB_{name}": str(file) for name, file in files.items()}
        for name, value in step.get("env", {}).items():
            env[name] = EXPRESSION.sub(self._evaluate, value)
        log = self.folder.parent / f"{self.folder.name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*shell, "-c", step["run"]], cwd=self.folder, env=env, stdout=output, stderr=output
            )
        outcome = ""
        if self.cancellation and self.cancellation.step == step["name"]:
            _cancel(process, log, self.cancellation)
            outcome = "cancelled"
        code = process.wait()
        if not outcome:
            outcome = "failure" if code else "success"
        if outcome != "success":
            self.status = outcome
        self.outcomes[step.get("id", "")] = outcome
        self.result.codes[step["name"]] = code
        self.result.log += f"--- {step['name']}: {code}\n{log.read_text()}"
        self.result.summary += files["STEP_SUMMARY"].read_text()
        self.outputs[step.get("id", "")] = _read_pairs(files["OUTPUT"])
        self.env |= _read_pairs(files["ENV"])
        for line in files["PATH"].read_text().splitlines():
            self.env["PATH"] = f"{line}{os.pathsep}{self.env['PATH']}"

    def _evaluate(self, expression: "re.Match[str]") -> str:
        """Return the value of ``inputs.x``, ``secrets.x`` or ``steps.x.outputs.y``; empty if it is not set."""
        context, *names = expression[1].split(".")
        if context == "steps":
            step, _, output = names
            return self.outputs[step].get(output, "")
        return self.contexts[context].get(names[0], "")


def find_commands(log: str) -> list[str]:
    """Return the commands that GitHub's runner would carry out in the log of a step, without stopping and resuming.

    As its ActionCommandManager.cs and ActionCommand.cs do it: a line also ends at a carriage return, ``::name::``
    begins a line after blanks, ``##[name]`` is anywhere in it.
    """
    known = set(COMMANDS)
    resume = None
    commands = []
    for line in re.split(r"\r\n|\r|\n", log):
        name, data = _parse_command(line, known)
        if resume is not None:
            if name == resume:
                known.discard(resume)
                resume = None
        elif name == "stop-commands":
            resume = data.lower()
            known.add(resume)
        elif name:
            commands.append(name)
    return commands


def _parse_command(line: str, known: set[str]) -> tuple[str, str]:
    """Return name and data of the command in a line; empty if there is none."""
    for match in (NEW_COMMAND.match(line), OLD_COMMAND.search(line)):
        name = match["command"].partition(" ")[0].lower() if match else ""
        if match and name in known:
            return name, match["data"]
    return "", ""


def _cancel(process: "subprocess.Popen[bytes]", log: Path, cancellation: Cancellation) -> None:
    """Wait for the text, then stop the step as the runner does: it sends its signals to one process."""
    deadline = time.monotonic() + TIMEOUT
    while cancellation.text not in log.read_text():
        assert process.poll() is None, f"the step ended before it was cancelled:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"the step did not print {cancellation.text!r}:\n{log.read_text()}"
        time.sleep(0.05)
    for number, pause in zip((signal.SIGINT, signal.SIGTERM), cancellation.pauses, strict=True):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause)
    process.kill()


def _read_pairs(file: Path) -> dict[str, str]:
    """Return what a step wrote to $GITHUB_ENV or $GITHUB_OUTPUT."""
    pairs = {}
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        pairs[name] = value
    return pairs
