"""What MLflow and Gradio report to their makers: nothing, in whatever the Makefile and the documents start."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from support.pipelines import PipelineRun
from support.scripts import ROOT
from support.servers import find_free_port, is_listening, run_server
from support.telemetry import Recorder, record_connections

MAKERS = "config.mlflow-telemetry.io"
DOCUMENTS = (ROOT / "README.md", ROOT / "MLproject", *sorted((ROOT / "docs").glob("*.md")))
SWITCH = "export MLFLOW_DISABLE_TELEMETRY=true"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with record_connections() as recorder:
        yield recorder


def run_command(command: str, folder: Path, recorder: Recorder, port: int) -> AbstractContextManager[object]:
    """Run a server by a command of the shell until the end of the block."""
    return run_server(["bash", "-c", command], folder, lambda: is_listening(port), recorder.env)


def read_ui_settings(port: int) -> dict[str, Any]:
    """Return what the server tells MLflow's page about telemetry; it asks its makers first, if it may."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ajax-api/3.0/mlflow/ui-telemetry", timeout=60) as answer:
        settings: dict[str, Any] = json.load(answer)
        return settings


def read_blocks(document: Path) -> list[str]:
    """Return the blocks of commands of a document: indented lines, or a comment of MLproject."""
    text = document.read_text().replace("\n#     ", "\n    ")
    return [
        "\n".join(line.strip() for line in block.splitlines()) for block in re.findall(r"(?:^    .*\n)+", text, re.M)
    ]


def test_without_the_switch_mlflow_reports(digits_pipeline: PipelineRun, recorder: Recorder) -> None:
    """What the other tests miss is really recorded."""
    port = find_free_port()
    with run_command(f"mlflow ui --port {port}", digits_pipeline.folder, recorder, port):
        read_ui_settings(port)
    assert MAKERS in recorder.hosts


def test_make_ui_reports_nothing(digits_pipeline: PipelineRun, recorder: Recorder) -> None:
    folder, port = digits_pipeline.folder, find_free_port()
    shutil.copy(ROOT / "Makefile", folder)
    with run_command(f"make --old-file=.venv/installed ui PORT={port}", folder, recorder, port):
        assert read_ui_settings(port)["disable_ui_telemetry"] is True
    assert recorder.hosts == set()


def test_the_documented_ui_reports_nothing(digits_pipeline: PipelineRun, recorder: Recorder) -> None:
    (block,) = [block for block in read_blocks(ROOT / "README.md") if block.endswith("mlflow ui")]
    (switch,) = [line for line in block.splitlines() if line.startswith("export ")]
    port = find_free_port()
    with run_command(f"{switch}\nmlflow ui --port {port}", digits_pipeline.folder, recorder, port):
        assert read_ui_settings(port)["disable_ui_telemetry"] is True
    assert recorder.hosts == set()


def test_the_documented_model_server_reports_nothing(digits_pipeline: PipelineRun, recorder: Recorder) -> None:
    (block,) = [block for block in read_blocks(ROOT / "docs" / "own-images.md") if "mlflow models serve" in block]
    port = find_free_port()
    recorder.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{digits_pipeline.folder}/mlflow.db"
    lines = block.replace("dataset_cleaned-classifier", "digits-classifier").replace("5001", str(port)).splitlines()
    with run_command("\n".join(lines[1:]), digits_pipeline.folder, recorder, port):
        pass
    assert recorder.hosts == set()


def test_the_documented_run_from_git_reports_nothing(checkout: Path, tmp_path: Path, recorder: Recorder) -> None:
    (block,) = [block for block in read_blocks(checkout / "MLproject") if "mlflow run" in block]
    command = block.replace("dataset=mnist", "dataset=digits").replace("mlflow run .", f"mlflow run {checkout}")
    recorder.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=recorder.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert recorder.hosts == set()


def test_the_page_reports_nothing(digits_pipeline: PipelineRun, recorder: Recorder) -> None:
    port = find_free_port()
    command = f"python {ROOT}/app.py --model-name digits-classifier --port {port}"
    with (
        run_command(command, digits_pipeline.folder, recorder, port),
        urllib.request.urlopen(f"http://127.0.0.1:{port}"),
    ):
        pass
    assert recorder.hosts == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_with_mlflow_switches_it_off(document: Path) -> None:
    for block in read_blocks(document):
        call = re.search(r"^(?:\w+=\S+ )*mlflow |^import mlflow", block, re.MULTILINE)
        if call:
            assert SWITCH in block[: call.start()], block
