import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.tracking import runs
from pipeline.tracking.models import compute_model_sha256, find_model_uri, load_model, log_model, save_model
from pipeline.tracking.store import get_client
from pipeline.training.config import MODELS
from pipeline.training.models import build_model

EXAMPLES = torch.zeros(2, 1, 28, 28)
CLASSES = tuple("0123456789")


def small_network(inputs: int = 28 * 28) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 10)).eval()


def log_network(network: nn.Module, run_id: str, folder: Path) -> str:
    save_model(network, EXAMPLES, CLASSES, folder / "model")
    return log_model(run_id, folder / "model")


def log_small_network(folder: Path) -> str:
    with runs.start_run("demo", None) as run_id:
        return log_network(small_network(), run_id, folder)


def log_with_mlflow(network: nn.Module, **options: object) -> str:
    """Log a model as somebody who does not use our `log_model`."""
    with runs.start_run("demo", None):
        return str(mlflow.pytorch.log_model(network, name="model", pip_requirements=[], **options).model_uri)


# --- log and load ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_computes_the_same(name: str, store: Path) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (37, 1, 28, 28))  # another batch size than that of the export
    network = build_model(name, 10, images.to(torch.uint8)).eval()
    with runs.start_run("demo", None) as run_id:
        stored = load_model(log_network(network, run_id, store))
    assert torch.allclose(stored.module(images.float()), network(images.float()), atol=1e-4)
    assert isinstance(stored.module, torch.fx.GraphModule)  # none of our code is needed


def test_loaded_model_knows_its_origin(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        uri = log_network(small_network(), run_id, store)
    stored = load_model(uri)
    assert (stored.uri, stored.run_id, stored.classes) == (uri, run_id, CLASSES)
    assert find_model_uri(run_id) == uri
    assert uri == f"models:/{stored.model_id}"
    assert stored.sha256 == compute_model_sha256(uri)


def test_model_folder_has_no_pickle_and_pinned_requirements(store: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(log_small_network(store)))
    suffixes = {file.suffix for file in folder.rglob("*")}
    assert not suffixes & {".pkl", ".pth"}
    requirements = (folder / "requirements.txt").read_text().split()
    assert [requirement.partition("==")[0] for requirement in requirements] == ["mlflow", "torch", "numpy"]
    assert not any("+" in requirement for requirement in requirements)
    assert (folder / "input_example.json").exists()


def test_repeated_logging_gives_the_same_model(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        uri = log_network(small_network(), run_id, store)
        assert log_model(run_id, store / "model") == uri
    run = runs.get_run(run_id)
    assert run.outputs is not None
    assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == [uri]


def test_interrupted_upload_is_completed(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        experiment_id = runs.get_run(run_id).info.experiment_id
        pending = get_client().create_logged_model(experiment_id, name="model", source_run_id=run_id)
        uri = log_network(small_network(), run_id, store)
    assert uri == f"models:/{pending.model_id}" == find_model_uri(run_id)
    assert load_model(uri).run_id == run_id


def test_failed_model_is_left_behind(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        experiment_id = runs.get_run(run_id).info.experiment_id
        failed = get_client().create_logged_model(experiment_id, name="model", source_run_id=run_id)
        get_client().finalize_logged_model(failed.model_id, "FAILED")
        uri = log_network(small_network(), run_id, store)
    assert uri != f"models:/{failed.model_id}"
    assert find_model_uri(run_id) == uri


def test_unnamed_classes_are_numbered(store: Path) -> None:
    example = EXAMPLES.numpy()
    signature = mlflow.models.infer_signature(example, np.zeros((2, 3), np.float32))
    network = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 3)).eval()
    uri = log_with_mlflow(network, serialization_format="pt2", input_example=example, signature=signature)
    assert load_model(uri).classes == ("0", "1", "2")


# --- refuse ---------------------------------------------------------------------------------------------------------


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_model_is_refused_unopened(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        uri = log_with_mlflow(small_network(), serialization_format="pickle")
    (file,) = (store / "mlruns").rglob("model.pth")
    torch.save(Trap(store / "sprung"), file)
    with pytest.raises(UserError, match="not in MLflow's pt2 format"):
        load_model(uri)
    assert not (store / "sprung").exists()


def test_model_with_its_own_code_is_refused(store: Path) -> None:
    code = store / "theirs.py"
    code.write_text("raise SystemExit('ran')")
    example = EXAMPLES.numpy()
    uri = log_with_mlflow(small_network(), serialization_format="pt2", input_example=example, code_paths=[str(code)])
    with pytest.raises(UserError, match="brings code of its own"):
        load_model(uri)


def test_model_for_other_images_is_refused(store: Path) -> None:
    example = np.zeros((2, 3, 32, 32), np.float32)
    uri = log_with_mlflow(small_network(3 * 32 * 32), serialization_format="pt2", input_example=example)
    with pytest.raises(UserError, match=r"inputs of shape .*3, 32, 32"):
        load_model(uri)


def test_run_without_a_model_names_its_status(store: Path) -> None:
    with pytest.raises(RuntimeError), runs.start_run("demo", None) as run_id:
        raise RuntimeError
    with pytest.raises(UserError, match=r"has no model .*FAILED"):
        find_model_uri(run_id)


def test_model_without_its_files_is_named(store: Path) -> None:
    uri = log_small_network(store)
    shutil.rmtree(store / "mlruns")
    with pytest.raises(UserError, match=f"cannot get {uri}"):
        load_model(uri)


@pytest.mark.parametrize("uri", ["models:/nobody/1", "models:/nobody@champion", "models:/", "mnist", "runs:/x/model"])
def test_address_without_a_model_is_named(store: Path, uri: str) -> None:
    with pytest.raises(UserError, match=f"cannot get {uri}"):
        load_model(uri)
