"""Versions with a recorded evaluation, and models whose files nobody needs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.forms import MNIST_FORM
from pipeline.data.splits import Dataset
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import EVALUATION_FOLDER
from pipeline.tracking import artifacts, registry
from pipeline.tracking.registry import ModelReference
from support.evaluations import MODEL_SHA256, record_evaluation
from support.promotions import NAME, PETS, evaluate_pets, register_version

PARAMETERS = 7  # of a model that does not exist, as its record says


class ConstantModel(nn.Module):
    """Takes every image for one of its first class."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.scores = nn.Parameter(-torch.arange(classes, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        return self.scores.expand(len(images), len(self.scores))


class FakeModels:
    """Stands for `pipeline.tracking.loading`: every version has a `ConstantModel`.

    Attributes
    ----------
    facts : what `loading.read_model` says of versions, by number, if it is not what the records say.
    errors : what `loading.read_model` raises, by number.
    load_errors : what `loading.load_model` raises, by number.
    """

    def __init__(self) -> None:
        self.facts: dict[int, dict[str, Any]] = {}
        self.errors: dict[int, Exception] = {}
        self.load_errors: dict[int, Exception] = {}

    def read_model(self, reference: ModelReference) -> Any:
        """Return what is known of a model without loading it."""
        assert reference.name is not None
        assert reference.version is not None
        number = int(reference.version)
        if number in self.errors:
            raise self.errors[number]
        known = {
            "sha256": MODEL_SHA256,
            "classes": PETS,
            "program": SimpleNamespace(parameters=PARAMETERS),
            "run_id": registry.get_version(reference.name, number).run_id,
            "reference": reference,
        }
        return SimpleNamespace(**{**known, **self.facts.get(number, {})})

    def load_model(self, reference: ModelReference) -> Any:
        """Return the model, loaded."""
        assert reference.version is not None
        number = int(reference.version)
        if number in self.load_errors:
            raise self.load_errors[number]
        module = ConstantModel(len(self.read_model(reference).classes))
        known = {"module": module, "uri": reference.uri, "form": MNIST_FORM}
        return SimpleNamespace(**{**known, **self.facts.get(number, {})})


def build_test_split(evaluation: Evaluation) -> Dataset:
    """Return a data set of black images with the labels of the evaluation."""
    images = torch.zeros(len(evaluation.labels), 1, 28, 28, dtype=torch.uint8)
    return Dataset("pets", images, torch.from_numpy(evaluation.labels), evaluation.classes, "")


def register_evaluated_version(folder: Path, correct: int = 9, images: int = 10, **facts: Any) -> int:
    """Register a version that has so many images right, see `register_with_evaluation`."""
    return register_with_evaluation(folder, evaluate_pets(correct, images), **facts)


def register_with_evaluation(
    folder: Path, evaluation: Evaluation, run_digest: str | None = None, **changes: Any
) -> int:
    """Register a version with this evaluation in its record; return its number.

    ``changes`` are other values of the record; ``run_digest`` is that of the run's own test set, if it is another one.
    """
    test = build_test_split(evaluation)
    version = register_version(params={"dataset": "pets", "test_digest": run_digest or test.digest})
    record = record_evaluation(evaluation, test, parameters=PARAMETERS)
    folder = folder / f"version {version}"
    folder.mkdir()
    record.model_copy(update={"overlap": 0, **changes}).write(folder)
    artifacts.log_artifacts(find_run(version), folder, EVALUATION_FOLDER)
    return version


def find_run(version: int) -> str:
    """Return the id of the run of a version."""
    return str(registry.get_version(NAME, version).run_id)
