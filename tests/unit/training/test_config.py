from dataclasses import fields

import pytest

from pipeline.data.catalog import DATASET_NAMES
from pipeline.errors import UserError
from pipeline.training.config import (
    AUGMENTATIONS,
    DEFAULTS,
    MODELS,
    NEW_FIELDS,
    TrainingConfig,
    build_config,
    default_epochs,
)


def as_logged(config: TrainingConfig) -> dict[str, str]:
    """Return the parameters as MLflow gives them back."""
    return {name: str(value) for name, value in config.as_params().items()}


@pytest.mark.parametrize("dataset", DATASET_NAMES)
def test_defaults_name_what_exists(dataset: str) -> None:
    config = build_config(dataset, 1_000, "cpu", {})
    assert config.model in MODELS
    assert set(config.augment) <= set(AUGMENTATIONS)


def test_every_default_belongs_to_a_dataset() -> None:
    assert set(DEFAULTS) <= set(DATASET_NAMES)


def test_chosen_values_replace_defaults() -> None:
    chosen = {"lr": 0.5, "augment": ["none"], "epochs": None, "run_name": "not a field"}
    config = build_config("mnist", 55_000, "cpu", chosen)
    assert (config.lr, config.augment, config.epochs, config.model) == (0.5, ("none",), 6, "cnn")


def test_own_data_trains_by_its_size() -> None:
    assert build_config("/my/letters", 100, "cpu", {"batch_size": 10}).epochs == 30
    assert (default_epochs(100, 256), default_epochs(60_000, 256)) == (300, 6)


def test_photos_have_defaults_of_their_own() -> None:
    config = build_config("/my/flowers", 300, "cpu", {"epochs": 3}, is_photo=True)
    assert (config.model, config.augment, config.epochs) == ("resnet", ("crop", "flip"), 3)
    assert build_config("mnist", 55_000, "cpu", {}, is_photo=True) == build_config("mnist", 55_000, "cpu", {})


def test_pretrained_weights_are_for_a_mobilenet() -> None:
    chosen = {"model": "mobilenet", "weights_sha256": "0" * 64}
    config = build_config("digits", 100, "cpu", chosen)
    assert TrainingConfig.from_params(as_logged(config)) == config
    for changes in ({"model": "cnn"}, {"weights_sha256": "0" * 63}, {"weights_sha256": "g" * 64}):
        with pytest.raises(ValueError, match="weights_sha256 is"):
            build_config("digits", 100, "cpu", chosen | changes)


@pytest.mark.parametrize("limit", [None, 100])
def test_logged_parameters_give_the_configuration_back(limit: int | None) -> None:
    chosen = {"augment": ["flip", "erase"], "limit": limit, "lr": 1e-05}
    config = build_config("fashion-mnist", 100, "cuda", chosen)
    assert TrainingConfig.from_params(as_logged(config)) == config


@pytest.mark.parametrize("name", [field.name for field in fields(TrainingConfig) if field.name not in NEW_FIELDS])
def test_missing_parameter_is_named(name: str) -> None:
    params = as_logged(build_config("mnist", 100, "cpu", {}))
    del params[name]
    with pytest.raises(UserError, match=f"lack {name}; choose a run that pytorch_demo.py logged"):
        TrainingConfig.from_params(params)


@pytest.mark.parametrize("name", NEW_FIELDS)
def test_parameter_that_older_runs_lack_has_its_default(name: str) -> None:
    config = build_config("mnist", 100, "cpu", {})
    params = as_logged(config)
    del params[name]
    assert TrainingConfig.from_params(params) == config


def test_parameter_of_wrong_type_is_named() -> None:
    params = as_logged(build_config("mnist", 100, "cpu", {})) | {"epochs": "many"}
    with pytest.raises(UserError, match="the parameter epochs is 'many'"):
        TrainingConfig.from_params(params)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("epochs", "0"),
        ("epochs", "9" * 20),
        ("epochs", "9" * 5000),
        ("lr", "nan"),
        ("lr", "1e400"),
        ("lr", "0.0"),
        ("limit", "-1"),
        ("batch_size", "0"),
        ("label_smoothing", "1.5"),
        ("seed", "-1"),
        ("model", "transformer"),
        ("augment", "rotate"),
        ("dataset", ""),
        ("device", "meta"),
        ("keep", "first"),
    ],
)
def test_parameter_that_cannot_be_is_named(name: str, text: str) -> None:
    params = as_logged(build_config("mnist", 100, "cpu", {})) | {name: text}
    with pytest.raises(UserError, match=f"the parameter {name}.*choose a run that pytorch_demo.py logged"):
        TrainingConfig.from_params(params)
