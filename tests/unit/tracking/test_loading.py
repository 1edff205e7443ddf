import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipeline.errors import UserError
from pipeline.tracking import registry, runs
from pipeline.tracking.loading import compute_identity, load_model, open_model, read_model
from pipeline.tracking.models import RUN_DIGEST_TAG, log_model
from pipeline.tracking.registry import DECISION_DIGEST_TAG, DIGEST_TAG, ModelReference
from pipeline.training.config import MODELS
from pipeline.training.models import build_model
from support.models import CLASSES, EXAMPLES, log_network, small_network

NAME = "digits-classifier"


@pytest.fixture
def version(store: Path) -> ModelReference:
    """Return a registered version whose identity was recorded by its run and by the registration."""
    with runs.start_run("demo", None) as run_id:
        model = log_network(small_network(), run_id, store)
        runs.set_tags(run_id, {RUN_DIGEST_TAG: model.sha256})
    number = registry.register_model(NAME, model.uri, run_id, model.sha256)
    return ModelReference(f"models:/{NAME}/{number}", NAME, number)


def find_folder(store: Path) -> Path:
    """Return the folder of the store's only model."""
    (file,) = (store / "mlruns").rglob("MLmodel")
    return file.parent


def get_version(reference: ModelReference) -> registry.ModelVersion:
    assert reference.name is not None
    assert reference.version is not None
    return registry.get_version(reference.name, reference.version)


# --- load -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_computes_the_same(name: str, store: Path) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (37, 1, 28, 28))  # another batch size than that of the export
    network = build_model(name, 10, images.to(torch.uint8)).eval()
    with runs.start_run("demo", None) as run_id:
        uri = log_network(network, run_id, store).uri
    stored = load_model(ModelReference(uri, None, None))
    assert torch.allclose(stored.module(images.float()), network(images.float()), atol=1e-4)
    assert stored.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_loaded_model_knows_its_origin(version: ModelReference, store: Path) -> None:
    stored = load_model(version)
    registered = get_version(version)
    assert (stored.uri, stored.run_id, stored.classes) == (version.uri, registered.run_id, CLASSES)
    assert f"models:/{stored.model_id}" == registered.source
    assert stored.sha256 == compute_identity(version) == registered.tags[DIGEST_TAG]
    assert stored.size == (find_folder(store) / "data" / "model.pt2").stat().st_size


def test_folder_is_there_inside_the_block(version: ModelReference) -> None:
    with open_model(version) as model:
        assert (model.folder / "MLmodel").is_file()
        assert {file.name for file in model.manifest.files} == {
            path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*") if path.is_file()
        }
    assert not model.folder.exists()


def test_read_model_needs_no_network(version: ModelReference) -> None:
    model = read_model(version)
    assert model.program.parameters == 7850
    assert (model.classes, model.sha256) == (CLASSES, compute_identity(version))


def test_run_is_that_of_the_store(version: ModelReference, store: Path) -> None:
    file = find_folder(store) / "MLmodel"
    content = yaml.safe_load(file.read_text())
    content["run_id"] = "0" * 32
    file.write_text(yaml.safe_dump(content))
    forget_digests(version)
    assert load_model(version).run_id == get_version(version).run_id


# --- another model than the recorded one ----------------------------------------------------------------------------


def flip_a_byte(folder: Path) -> None:
    file = folder / "data" / "model.pt2"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def exchange_classes(folder: Path) -> None:
    file = folder / "MLmodel"
    content = yaml.safe_load(file.read_text())
    names = content["metadata"]["classes"]
    names[1], names[7] = names[7], names[1]
    file.write_text(yaml.safe_dump(content))


def add_a_comment(folder: Path) -> None:
    with (folder / "requirements.txt").open("a") as file:
        file.write("# another package\n")


@pytest.mark.parametrize("change", [flip_a_byte, exchange_classes, add_a_comment])
def test_changed_file_is_refused(version: ModelReference, store: Path, change: Callable[[Path], None]) -> None:
    recorded = compute_identity(version)
    change(find_folder(store))
    with pytest.raises(UserError) as caught:
        load_model(version)
    assert str(caught.value) == (
        f"{NAME} version 1 is not the model that its registration recorded: its files have SHA-256 "
        f"{compute_identity(version)[:12]}..., recorded is {recorded[:12]}...; "
        "restore its files, or choose another model"
    )


def test_each_record_is_compared(version: ModelReference) -> None:
    run_id = str(get_version(version).run_id)
    runs.set_tags(run_id, {RUN_DIGEST_TAG: "0" * 64})
    with pytest.raises(UserError, match="not the model that its training recorded"):
        read_model(version)
    MlflowClient().set_model_version_tag(NAME, "1", DECISION_DIGEST_TAG, "0" * 64)
    with pytest.raises(UserError, match=r"not the model that the decision recorded: .* recorded is 000000000000\.\.\."):
        read_model(version)


def test_deleted_run_is_no_obstacle(version: ModelReference) -> None:
    runs.delete_run(str(get_version(version).run_id))
    assert read_model(version).sha256 == get_version(version).tags[DIGEST_TAG]


def forget_digests(version: ModelReference) -> None:
    MlflowClient().delete_model_version_tag(NAME, "1", DIGEST_TAG)
    MlflowClient().delete_tag(str(get_version(version).run_id), RUN_DIGEST_TAG)


def test_unrecorded_model_is_said(version: ModelReference, caplog: pytest.LogCaptureFixture) -> None:
    forget_digests(version)
    read_model(version)
    assert caplog.messages == [f"nobody recorded the SHA-256 of {NAME} version 1, so its files may have been changed"]


def test_version_of_another_run_is_refused(version: ModelReference) -> None:
    with runs.start_run("demo", None) as other:
        pass
    number = MlflowClient().create_model_version(NAME, str(get_version(version).source), other).version
    with pytest.raises(UserError, match=f"version 2 names run {other}, but the store says that run"):
        read_model(ModelReference(f"models:/{NAME}/{number}", NAME, int(number)))


# --- what is no model of this pipeline -------------------------------------------------------------------------------


def log_with_mlflow(network: torch.nn.Module, **options: object) -> ModelReference:
    """Log a model as somebody who does not use our `log_model`."""
    with runs.start_run("demo", None):
        model = mlflow.pytorch.log_model(network, name="model", pip_requirements=[], **options)
    return ModelReference(str(model.model_uri), None, None)


def test_pickled_model_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        reference = log_with_mlflow(small_network(), serialization_format="pickle")
        with pytest.raises(UserError, match="not in MLflow's pt2 format"):
            load_model(reference)


def test_model_with_its_own_code_is_refused(store: Path) -> None:
    code = store / "theirs.py"
    code.write_text("raise SystemExit('ran')")
    example = EXAMPLES.numpy()
    reference = log_with_mlflow(
        small_network(), serialization_format="pt2", input_example=example, code_paths=[str(code)]
    )
    with pytest.raises(UserError, match=r"has a file 'code/theirs\.py', which no model of this pipeline has"):
        load_model(reference)


def test_model_for_other_images_is_refused(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        network = small_network(3 * 32 * 32)
        model = log_network(network, run_id, store, examples=torch.zeros(2, 3, 32, 32))
    with pytest.raises(UserError, match=r"takes inputs of shape \(-1, 3, 32, 32\)"):
        load_model(ModelReference(model.uri, None, None))


def test_other_number_of_classes_is_refused(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        model = log_network(small_network(), run_id, store, classes=CLASSES[:3])
    with pytest.raises(UserError, match="names 3 classes and gives 10 logits"):
        load_model(ModelReference(model.uri, None, None))


def test_model_without_its_files_is_named(version: ModelReference, store: Path) -> None:
    shutil.rmtree(store / "mlruns")
    with pytest.raises(UserError, match=f"cannot get {NAME} version 1"):
        load_model(version)


@pytest.mark.parametrize("uri", ["models:/m-0", "models:/", "mnist", "runs:/x/model", "/tmp", "models:/m-1/../m-2"])
def test_address_without_a_model_is_named(store: Path, uri: str) -> None:
    with pytest.raises(UserError, match=f"^cannot get {uri} "):
        load_model(ModelReference(uri, None, None))


def test_repeated_logging_keeps_the_identity(store: Path) -> None:
    with runs.start_run("demo", None) as run_id:
        first = log_network(small_network(), run_id, store)
        assert log_model(run_id, store / "model") == first
    assert compute_identity(ModelReference(first.uri, None, None)) == first.sha256


def test_probabilities_do_not_depend_on_the_batch(version: ModelReference) -> None:
    module = load_model(version).module
    images = torch.rand(5, 1, 28, 28) * 255
    one_by_one = np.concatenate([module(image[None]).detach().numpy() for image in images])
    assert np.allclose(module(images).detach().numpy(), one_by_one, atol=1e-4)
