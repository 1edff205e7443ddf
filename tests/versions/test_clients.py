"""Older clients read what the scripts wrote to a server of this project's MLflow."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import evaluate
import promote
import pytorch_demo
from support.accounts import act_as
from support.mlflow_versions import run_python
from support.promotions import NAME
from support.scripts import call_main
from support.servers import run_mlflow_server

READER = Path(__file__).with_name("read_registry.py")


@dataclass(frozen=True)
class Registry:
    """A server with a model in Production, and what a client of this project's MLflow reads of it."""

    uri: str
    run_id: str
    expected: dict[str, Any]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    work = tmp_path_factory.mktemp("work")
    with run_mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        with act_as({"MLFLOW_TRACKING_URI": uri}), chdir(work):
            run_id = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", 5).json["run_id"]
            assert call_main(evaluate.main, "--run-id", run_id, "--log-mlflow").code == 0
            assert call_main(promote.main, "--run-id", run_id, "--min-accuracy", 0.5).code == 0
        command = [sys.executable, str(READER), uri, NAME]
        yield Registry(uri, run_id, json.loads(subprocess.check_output(command)))


@pytest.mark.parametrize("version", ["2.22", "3.0", "3.14"])
def test_older_client_reads_the_same(version: str, registry: Registry) -> None:
    content = json.loads(run_python(version, READER, registry.uri, NAME))
    assert content.pop("client").startswith(f"{version}.")
    assert content == {name: value for name, value in registry.expected.items() if name != "client"}


def test_reader_sees_what_the_scripts_wrote(registry: Registry) -> None:
    assert (registry.expected["champion"], registry.expected["production"]) == (1, 1)
    assert registry.expected["params"]["epochs"] == "5"
    assert registry.expected["tags"]["gate.decision"] == "promoted"
    assert "data/model.pt2" in registry.expected["files"]
