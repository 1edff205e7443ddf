"""A model that somebody exchanged after its promotion: every script that loads it refuses, in one line."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from PIL import Image

import evaluate
import predict
import promote
from pipeline.tracking import registry
from pipeline.tracking.loading import compute_identity
from pipeline.tracking.registry import ModelReference
from support.pipelines import PipelineRun
from support.promotions import NAME
from support.scripts import Result, call_main, run_script
from support.servers import find_free_port
from support.stores import open_store, register_once_more

VERSION = ("--model-name", NAME, "--version", 1)
FIRST = ModelReference(f"models:/{NAME}/1", NAME, 1)


@pytest.fixture
def pipeline(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> PipelineRun:
    """Return a store with version 1 in Production, and a picture; it is the current store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{digits_pipeline.folder}/mlflow.db")
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    picture = Image.new("L", (28, 28), 255)
    picture.paste(0, (12, 4, 16, 24))
    picture.save(digits_pipeline.folder / "one.png")
    return digits_pipeline


def find_model_folder(pipeline: PipelineRun) -> Path:
    """Return the folder of the model of version 1."""
    model = open_store(pipeline.folder).get_logged_model(pipeline.model_uri.removeprefix("models:/"))
    return Path(model.artifact_location.removeprefix("file://"))


# --- what somebody may do to the files -------------------------------------------------------------------------------


def change_metadata(folder: Path, change: Callable[[dict[str, dict[str, dict[str, object]]]], None]) -> None:
    file = folder / "MLmodel"
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))


def exchange_a_byte(folder: Path) -> None:
    file = folder / "data" / "model.pt2"
    with zipfile.ZipFile(file) as archive:
        offset = archive.getinfo("archive/data/weights/weight_0").header_offset
    content = bytearray(file.read_bytes())
    content[offset + 200] ^= 1
    file.write_bytes(content)


def exchange_class_names(folder: Path) -> None:
    names = {"1": "7", "7": "1"}

    def change(content: dict[str, dict[str, dict[str, object]]]) -> None:
        classes = content["metadata"]["classes"]
        content["metadata"]["classes"] = [names.get(name, name) for name in classes]  # type: ignore[assignment]

    change_metadata(folder, change)


def name_another_file(folder: Path) -> None:
    other = folder / "elsewhere"
    other.mkdir()
    (other / "model.pt2").write_bytes((folder / "data" / "model.pt2").read_bytes())
    change_metadata(folder, lambda content: content["flavors"]["pytorch"].update(model_data="elsewhere"))


CHANGES = (exchange_a_byte, exchange_class_names, name_another_file)


def check_refusal(result: Result, recorded: str, present: str, version: int = 1) -> None:
    """Check that the last line names the version and both identities, and that nothing was answered."""
    assert result.code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert f"{NAME} version {version} is not the model that" in error
    assert f"SHA-256 {present[:12]}..., recorded is {recorded[:12]}..." in error
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("change", CHANGES)
def test_exchanged_model_is_refused_everywhere(pipeline: PipelineRun, change: Callable[[Path], None]) -> None:
    recorded = compute_identity(FIRST)
    second = register_once_more(pipeline.model_uri, pipeline.run_id)  # so that a rollback would restore version 1
    assert call_main(promote.main, "--model-name", NAME, "--version", second, folder=pipeline.folder).code == 0
    change(find_model_folder(pipeline))
    present = compute_identity(FIRST)
    calls: dict[str, tuple[Callable[..., int], tuple[object, ...]]] = {
        "predict": (predict.main, ("one.png", "--model-uri", f"models:/{NAME}/1")),
        "evaluate": (evaluate.main, ("--model-uri", f"models:/{NAME}/1")),
        "promote": (promote.main, VERSION),
        "roll back": (promote.main, ("--model-name", NAME, "--rollback", "--reason", "test")),
    }
    for main, arguments in calls.values():
        result = call_main(main, *arguments, folder=pipeline.folder)
        assert result.stdout == ""
        check_refusal(result, recorded, present)
    result = call_main(evaluate.main, "--run-id", pipeline.run_id, folder=pipeline.folder)
    check_refusal(result, recorded, present, version=second)
    assert registry.alias_version(NAME) == second


@pytest.mark.parametrize("change", CHANGES)
def test_page_does_not_start_with_an_exchanged_model(pipeline: PipelineRun, change: Callable[[Path], None]) -> None:
    recorded = compute_identity(FIRST)
    change(find_model_folder(pipeline))
    result = run_script(pipeline.folder, "app.py", "--port", find_free_port())
    check_refusal(result, recorded, compute_identity(FIRST))


# --- MLflow's own server, as the documents start it ------------------------------------------------------------------


def put_a_pickle_in_its_place(folder: Path) -> None:
    """Leave a model in MLflow's other format: the pickle of a plain dictionary."""
    (folder / "data" / "model.pt2").unlink()
    torch.save({"no": "model"}, folder / "data" / "model.pth")
    (folder / "data" / "pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")


def test_served_pickle_is_refused(pipeline: PipelineRun) -> None:
    """The command of docs/own-images.md."""
    folder = find_model_folder(pipeline)
    put_a_pickle_in_its_place(folder)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    env = {**os.environ, "PATH": path, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [*command, "--env-manager", "local", "--port", str(find_free_port())],
        cwd=pipeline.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in done.stderr


@pytest.mark.parametrize("variable", ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "DATABRICKS_RUNTIME_VERSION"])
def test_no_environment_makes_a_pickle_welcome(pipeline: PipelineRun, variable: str) -> None:
    folder = find_model_folder(pipeline)
    put_a_pickle_in_its_place(folder)
    result = run_script(pipeline.folder, "predict.py", "one.png", env={**os.environ, variable: "true"})
    assert result.code == 2
    assert "is not the model that" in result.stderr
