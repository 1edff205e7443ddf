import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.evaluation.inference import (
    choose_device,
    compute_logits,
    compute_probabilities,
    count_multiply_adds,
    count_parameters,
    measure_latencies,
)

CPU = torch.device("cpu")


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=generator)


@pytest.fixture
def linear_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def test_a_missing_device_is_refused() -> None:
    name = "cuda" if torch.backends.mps.is_available() else "mps"  # no machine has both
    with pytest.raises(UserError, match=f"no device '{name}'; choose --device cpu or auto"):
        choose_device(name)


def test_the_cpu_is_always_available() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("batch_size", [1, 7, 49, 1000])
def test_logits_do_not_depend_on_batch_size(images: torch.Tensor, linear_model: nn.Module, batch_size: int) -> None:
    expected = linear_model(images.float())
    logits = compute_logits(linear_model, images, device=CPU, batch_size=batch_size)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=1e-3)  # the values are around 100


def test_probabilities_are_the_softmax_of_the_logits(images: torch.Tensor, linear_model: nn.Module) -> None:
    probabilities = compute_probabilities(linear_model, images, device=CPU)
    logits = compute_logits(linear_model, images, device=CPU)
    assert torch.allclose(torch.from_numpy(probabilities), logits.double().softmax(1))


def test_parameters_are_counted(linear_model: nn.Module) -> None:
    assert count_parameters(linear_model) == 784 * 10 + 10


def test_multiply_adds_are_those_of_the_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    assert count_multiply_adds(model, (1, 28, 28)) == 4 * 26 * 26 * 9 + 4 * 26 * 26 * 10


def test_latencies_are_measured_alternately() -> None:
    calls: list[str] = []

    def first(image: torch.Tensor) -> torch.Tensor:
        calls.append("first")
        return image

    def second(image: torch.Tensor) -> torch.Tensor:
        calls.append("second")
        return image

    latencies = measure_latencies([(first, (1, 28, 28)), (second, (3, 32, 32))], repeats=5)
    assert len(latencies) == 2
    assert min(latencies) > 0
    assert calls == ["first", "second"] * (len(calls) // 2)
