"""The shell commands in docs/promotion.md, "Signatures", run as they stand there, in their order."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.pipelines import PipelineRun
from support.promotions import NAME
from support.scripts import ROOT
from support.stores import open_store

PROGRAMS = ("openssl", "mlflow", "model_signing")


def read_commands() -> list[str]:
    """Return the lines of the section's code blocks that call one of the programs, continued lines joined."""
    _, _, section = (ROOT / "docs" / "promotion.md").read_text().partition("\n## Signatures\n")
    lines = re.sub(r"\\\n *", "", section).splitlines()
    return [line.strip() for line in lines if line.startswith(tuple(f"    {program} " for program in PROGRAMS))]


def run(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True)


def test_documented_commands_verify_a_model(digits_pipeline: PipelineRun) -> None:
    folder = digits_pipeline.folder
    commands = read_commands()
    assert [command.split()[0] for command in commands] == [*["openssl"] * 3, "mlflow", "mlflow", "model_signing"]
    for command in commands[:3]:
        fingerprint = run(folder, command)
        assert fingerprint.returncode == 0, fingerprint.stderr

    script = f"{sys.executable} {ROOT}/promote.py"
    promoted = run(folder, f"{script} --model-name {NAME} --version 1 --signing-key signing.key")
    assert promoted.returncode == 0, promoted.stderr
    assert f"signed by key SHA-256 {fingerprint.stdout[:12]}..." in promoted.stderr

    run_id = open_store(folder).get_model_version(NAME, "1").tags["gate.signature_run_id"]
    for command in commands[3:]:
        done = run(folder, command.replace("<MODEL>", NAME).replace("<DECISION_RUN_ID>", run_id))
        assert done.returncode == 0, done.stderr + done.stdout
    assert "Verification succeeded" in done.stdout

    (folder / "downloaded" / "MLmodel").write_text("changed")
    assert run(folder, commands[-1]).returncode == 1
