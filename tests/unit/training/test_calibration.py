import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data.splits import Dataset
from pipeline.evaluation.inference import compute_logits
from pipeline.training.calibration import calibrate_temperature
from pipeline.training.models import Temperature

CPU = torch.device("cpu")
SIZE = 1_000


def make_dataset(pixels: torch.Tensor, labels: torch.Tensor) -> Dataset:
    """Return images whose first pixels are ``pixels`` [N, 10]."""
    images = torch.zeros(len(labels), 1, 28, 28, dtype=torch.uint8)
    images.view(len(labels), -1)[:, :10] = pixels
    return Dataset("made", images, labels, tuple("0123456789"), "")


@pytest.fixture
def model() -> nn.Sequential:
    """Return a model whose logits are the first ten pixels."""
    linear = nn.Linear(784, 10, bias=False)
    linear.load_state_dict({"weight": torch.eye(10, 784)})
    return nn.Sequential(nn.Flatten(), linear, Temperature())


@pytest.fixture
def validation() -> Dataset:
    """Return images for which the model is far too confident: right in seven of ten, but sure of all."""
    labels = torch.arange(SIZE) % 10
    is_wrong = torch.arange(SIZE) // 10 % 10 < 3
    predictions = torch.where(is_wrong, (labels + 1) % 10, labels)
    return make_dataset(20 * F.one_hot(predictions, 10), labels)


def measure_loss(model: nn.Sequential, dataset: Dataset) -> float:
    logits = compute_logits(model, dataset.images, device=CPU)
    return F.cross_entropy(logits, dataset.labels).item()


def test_calibration_changes_no_prediction(model: nn.Sequential, validation: Dataset) -> None:
    before = compute_logits(model, validation.images, device=CPU)
    temperature = calibrate_temperature(model, validation, CPU)
    after = compute_logits(model, validation.images, device=CPU)
    assert torch.allclose(after * temperature, before, atol=1e-5)


def test_calibration_makes_confidence_equal_to_accuracy(model: nn.Sequential, validation: Dataset) -> None:
    temperature = calibrate_temperature(model, validation, CPU)
    probabilities = compute_logits(model, validation.images, device=CPU).softmax(1)
    assert temperature > 1
    assert probabilities.amax(1).mean().item() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_no_nearby_temperature_is_better(model: nn.Sequential, validation: Dataset, factor: float) -> None:
    temperature = calibrate_temperature(model, validation, CPU)
    best = measure_loss(model, validation)
    model[-1].get_buffer("value").fill_(temperature * factor)
    assert best < measure_loss(model, validation)


def test_a_perfect_model_does_not_become_certain(model: nn.Sequential) -> None:
    labels = torch.arange(100) % 10
    perfect = make_dataset(8 * F.one_hot(labels, 10), labels)
    calibrate_temperature(model, perfect, CPU)
    probabilities = compute_logits(model, perfect.images, device=CPU).softmax(1)
    # Platt: (N + 1) / (N + 2)
    assert probabilities.amax(1).mean().item() == pytest.approx(101 / 102, abs=1e-3)
