"""The configuration of a training, and its defaults for each data set. Imports nothing heavy."""

import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from pipeline.errors import UserError

MODELS = ("cnn", "resnet", "mlp", "mobilenet")  # models.py builds them
AUGMENTATIONS = ("affine", "flip", "erase", "crop", "jitter", "none")  # augment.py has them
PRETRAINED_MODEL = "mobilenet"  # the one that takes pretrained weights
KEPT_WEIGHTS = ("last", "best")
DEVICES = ("cpu", "cuda", "mps")
MAX_SHOWN_LENGTH = 100  # characters of a value in a message
NEW_FIELDS = ("keep", "from_run", "weights_sha256")  # a run that was logged before they existed used their defaults


SHA256 = re.compile("[0-9a-f]{64}")


class Range(NamedTuple):
    """The finite numbers from ``minimum`` to ``maximum``; without the minimum if it is ``exclusive``."""

    minimum: float
    maximum: float
    exclusive: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.minimum <= value <= self.maximum and not (self.exclusive and value == self.minimum)


MAX_COUNT = 1_000_000_000
RANGES = {  # of the fields of TrainingConfig
    "epochs": Range(1, 1_000_000),
    "lr": Range(0, 1000, exclusive=True),
    "limit": Range(1, MAX_COUNT),
    "batch_size": Range(1, MAX_COUNT),
    "weight_decay": Range(0, 1000),
    "label_smoothing": Range(0, 1),
    "seed": Range(0, 2**63 - 1),  # PyTorch takes 64 bits
}


@dataclass(frozen=True)
class DatasetDefaults:
    """What a training on a data set uses if nothing else was chosen.

    Attributes
    ----------
    model : name of the network, one of `MODELS`.
    lr : peak learning rate.
    augment : how training images are varied, names of `AUGMENTATIONS`.
    epochs : passes over the training images; None: by the number of images, see `default_epochs`.
    """

    model: str = "cnn"
    lr: float = 0.01
    augment: tuple[str, ...] = ("affine",)
    epochs: int | None = None


# Chosen on the validation split of each data set (benchmarks/NOTES.md), except those of kmnist and EMNIST, whose images
# were not at hand: theirs are those of the nearest set, MNIST. A data set that is not here uses the defaults of the
# class above. digits is small: 40 epochs are 200 batches.
DEFAULTS = {
    "mnist": DatasetDefaults(epochs=6),
    "fashion-mnist": DatasetDefaults(model="resnet", lr=0.005, augment=("flip", "erase"), epochs=8),
    "kmnist": DatasetDefaults(epochs=10),
    "emnist-letters": DatasetDefaults(epochs=6),
    "emnist-balanced": DatasetDefaults(epochs=6),
    "digits": DatasetDefaults(epochs=40),
    "cifar10": DatasetDefaults(model="resnet", lr=0.005, augment=("crop", "flip"), epochs=12),
}
PHOTO_DEFAULTS = DatasetDefaults(model="resnet", lr=0.005, augment=("crop", "flip"))  # of photos, and all in colour


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the result of a training, except the code and the machine.

    Attributes
    ----------
    dataset : name of the data set, or the directory of one's own.
    model : name of the network, one of `MODELS`.
    epochs : passes over the training images.
    lr : peak learning rate.
    augment : how training images are varied, in this order; names of `AUGMENTATIONS`.
    limit : train on the first N images only; None: on all.
    batch_size : images a step.
    weight_decay : of the optimizer.
    label_smoothing : share of a label that is spread over all classes, 0 to 1.
    seed : of everything random.
    device : type of the device, such as cpu or cuda.
    keep : which weights are tested and logged: those of the last epoch, or those with the best validation loss.
    from_run : id of the run whose weights the training starts from; None: from random ones.
    weights_sha256 : of the file of pretrained weights that a mobilenet starts from; None: from random ones.

    Raises
    ------
    ValueError
        A value cannot be one: a number is not in `RANGES`, or a name is none of those above.
    """

    dataset: str
    model: str
    epochs: int
    lr: float
    augment: tuple[str, ...]
    limit: int | None = None
    batch_size: int = 256
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    seed: int = 0
    device: str = "cpu"
    keep: str = "last"
    from_run: str | None = None
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        for name, numbers in RANGES.items():
            value = getattr(self, name)
            if value not in numbers and not (name == "limit" and value is None):
                raise ValueError(f"{name} is not from {numbers.minimum} to {numbers.maximum}")
        choices = {"model": MODELS, "keep": KEPT_WEIGHTS, "device": DEVICES}
        for name, names in choices.items():
            if getattr(self, name) not in names:
                raise ValueError(f"{name} is none of {', '.join(names)}")
        if not set(self.augment) <= set(AUGMENTATIONS):
            raise ValueError(f"augment has others than {', '.join(AUGMENTATIONS)}")
        if self.weights_sha256 is not None and not SHA256.fullmatch(self.weights_sha256):
            raise ValueError("weights_sha256 is not a SHA-256")
        if self.weights_sha256 and self.model != PRETRAINED_MODEL:
            raise ValueError(f"weights_sha256 is for a {PRETRAINED_MODEL} only")
        if not self.dataset:
            raise ValueError("dataset is empty")

    def as_params(self) -> dict[str, Any]:
        """Return the configuration as it is logged: names and values, the augmentations in one text."""
        return asdict(self) | {"augment": " ".join(self.augment)}

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> "TrainingConfig":
        """Return the configuration that `as_params` was logged from.

        Raises
        ------
        UserError
            A parameter is missing or is not of its type.
        """
        required = [field.name for field in fields(cls) if field.name not in NEW_FIELDS]
        missing = [name for name in required if name not in params]
        if missing:
            raise UserError(f"the parameters lack {', '.join(missing)}; choose a run that pytorch_demo.py logged")
        types = typing.get_type_hints(cls)
        values = {}
        for field in fields(cls):
            if field.name not in params:
                continue
            text = params[field.name]
            try:
                values[field.name] = _PARSERS[types[field.name]](text)
            except ValueError:
                raise UserError(
                    f"the parameter {field.name} is {text[:MAX_SHOWN_LENGTH]!r}, which it cannot be; "
                    "choose a run that pytorch_demo.py logged"
                ) from None
        try:
            return cls(**values)
        except ValueError as error:
            raise UserError(f"the parameter {error}; choose a run that pytorch_demo.py logged") from None


def _parse_optional_int(text: str) -> int | None:
    return None if text == "None" else int(text)


def _parse_optional_str(text: str) -> str | None:
    return None if text == "None" else text


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# How the text of a parameter becomes a value, by the type of the field.
_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    int | None: _parse_optional_int,
    str | None: _parse_optional_str,
    tuple[str, ...]: _parse_names,
}


def build_config(
    dataset: str, train_size: int, device: str, chosen: Mapping[str, Any], *, is_photo: bool = False
) -> TrainingConfig:
    """Return the configuration of a training on ``train_size`` images.

    A data set that has no defaults of its own has those of photos, or of ink.
    ``chosen`` maps names of fields to values. A value of None, or a missing one, stands for the default.
    """
    names = {field.name for field in fields(TrainingConfig)}
    values = {name: value for name, value in chosen.items() if name in names and value is not None}
    defaults = asdict(DEFAULTS.get(dataset, PHOTO_DEFAULTS if is_photo else DatasetDefaults()))
    values = defaults | values | {"dataset": dataset, "device": device}
    values["augment"] = tuple(values["augment"])
    if values["epochs"] is None:
        batch_size = values.get("batch_size", TrainingConfig.batch_size)
        values["epochs"] = default_epochs(train_size, batch_size)
    return TrainingConfig(**values)


def default_epochs(train_size: int, batch_size: int) -> int:
    """Return the epochs for a data set of which nothing else is known: 6, or more until there are 300 batches."""
    batches = math.ceil(train_size / batch_size)
    return max(6, math.ceil(300 / batches))
