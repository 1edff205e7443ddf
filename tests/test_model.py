import pytest
import torch

from pipeline import model
from pipeline.evaluation import parameters

IMAGES = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", model.NAMES)
def test_raw_pixels_in_logits_out(name: str) -> None:
    logits = model.build(name, 7, IMAGES)(IMAGES.float())
    assert (logits.shape, logits.dtype) == ((50, 7), torch.float32)


def test_normalisation_is_by_mean_and_standard_deviation_of_the_training_images() -> None:
    normalize = next(model.build("cnn", 10, IMAGES).children())
    normalized = normalize(IMAGES.float())
    assert normalized.mean().item() == pytest.approx(0, abs=1e-5)
    assert normalized.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_images_of_one_colour_do_not_divide_by_zero() -> None:
    black = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    assert model.build("cnn", 10, black)(black.float()).isfinite().all()


def test_constants_of_the_normalisation_are_stored_in_the_model() -> None:
    state = model.build("cnn", 10, IMAGES).state_dict()
    assert state["0.mean"].item() == pytest.approx(IMAGES.float().mean().item())


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([value.flatten() for value in model.build("cnn", 10, IMAGES).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_summary_counts_parameters_and_multiply_adds() -> None:
    network = model.build("mlp", 10, IMAGES)
    expected = (784 * 512 + 512) + (512 * 512 + 512) + (512 * 10 + 10)
    assert parameters(network) == expected
    text = model.summary(network)
    assert f"Total params: {expected:,}" in text
    assert "Total mult-adds" in text
    assert "[1, 512]" in text
