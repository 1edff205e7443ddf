from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from torch import nn

from pipeline.data.forms import MNIST_FORM, describe_form
from pipeline.errors import UserError
from pipeline.tracking import runs
from pipeline.tracking.models import find_model_uri, log_model, save_model
from pipeline.tracking.store import get_client
from support.models import CLASSES, EXAMPLES, log_network, small_network


def log_small_network(folder: Path) -> str:
    with runs.start_run("demo", None) as run_id:
        return log_network(small_network(), run_id, folder).uri


def test_model_folder_has_no_pickle_and_pinned_requirements(store: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(log_small_network(store)))
    suffixes = {file.suffix for file in folder.rglob("*")}
    assert not suffixes & {".pkl", ".pth"}
    requirements = (folder / "requirements.txt").read_text().split()
    assert [requirement.partition("==")[0] for requirement in requirements] == ["mlflow", "torch", "numpy"]
    assert not any("+" in requirement for requirement in requirements)
    assert (folder / "input_example.json").exists()


def test_metadata_says_what_the_model_takes(store: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(log_small_network(store)))
    metadata = mlflow.models.Model.load(folder)
    assert metadata.metadata == {
        "classes": list(CLASSES),
        "shape": [1, 28, 28],
        "preparation": describe_form(MNIST_FORM),
    }
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "MLmodel"]
    assert metadata.model_size_bytes is not None
    assert sum(sizes) < metadata.model_size_bytes < sum(sizes) + 2000


def test_mlflow_loads_the_model_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    network = small_network()
    save_model(network, EXAMPLES, CLASSES, MNIST_FORM, tmp_path / "model")
    module = mlflow.pytorch.load_model(str(tmp_path / "model"))
    images = torch.full((3, 1, 28, 28), 200.0)
    assert torch.equal(module(images), network(images))


def test_network_with_another_operator_is_not_saved(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10), nn.GELU()).eval()
    with pytest.raises(UserError, match=r"cannot be saved \('torch.ops.aten.gelu.default' is not .*; add what is"):
        save_model(network, EXAMPLES, CLASSES, MNIST_FORM, tmp_path / "model")


def test_repeated_logging_gives_the_same_model(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        uri = log_network(small_network(), run_id, store).uri
        assert log_model(run_id, store / "model").uri == uri
    run = runs.get_run(run_id)
    assert run.outputs is not None
    assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == [uri]


@pytest.mark.parametrize("status", [LoggedModelStatus.PENDING, LoggedModelStatus.FAILED])
def test_interrupted_upload_is_completed(store: Path, status: LoggedModelStatus) -> None:
    """Another process that finds the run without its process marks its model as failed."""
    with runs.start_run("demo", None) as run_id:
        experiment_id = runs.get_run(run_id).info.experiment_id
        interrupted = get_client().create_logged_model(experiment_id, name="model", source_run_id=run_id)
        get_client().finalize_logged_model(interrupted.model_id, status)
        uri = log_network(small_network(), run_id, store).uri
    assert uri == f"models:/{interrupted.model_id}" == find_model_uri(run_id)


def test_run_without_a_model_names_its_status(store: Path) -> None:
    with pytest.raises(RuntimeError), runs.start_run("demo", None) as run_id:
        raise RuntimeError
    with pytest.raises(UserError, match=r"has no model .*FAILED"):
        find_model_uri(run_id)


def test_model_of_another_run_is_not_taken(store: Path) -> None:
    uri = log_small_network(store)
    with runs.start_run("demo", None) as run_id:
        get_client().log_outputs(run_id, [LoggedModelOutput(uri.removeprefix("models:/"), step=0)])
    with pytest.raises(UserError, match="has no model"):
        find_model_uri(run_id)
