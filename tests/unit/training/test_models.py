from collections.abc import Sequence

import pytest
import torch
from torch import nn

from pipeline.data.forms import Shape
from pipeline.errors import UserError
from pipeline.evaluation.inference import count_multiply_adds, count_parameters
from pipeline.training.config import MODELS
from pipeline.training.models import BODIES, Temperature, build_model, summarize_model


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=generator)


def build_without_last_layer(shape: Sequence[int], classes: int) -> nn.Module:
    return nn.Flatten()


def test_every_configured_network_can_be_built() -> None:
    assert tuple(BODIES) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_network_gives_logits_for_raw_pixels(name: str, images: torch.Tensor) -> None:
    logits = build_model(name, 7, images)(images.float())
    assert logits.shape == (50, 7)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8), (3, 8, 8), (3, 9, 40), (3, 19, 20), (3, 32, 32), (1, 64, 64), (3, 65, 49), (3, 224, 160)],
    ids=str,
)
@pytest.mark.parametrize("name", MODELS)
def test_a_network_takes_images_of_any_shape(name: str, shape: Shape) -> None:
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    model = build_model(name, 7, images)
    assert model(images.float()).shape == (3, 7)
    assert count_multiply_adds(model.eval(), shape) > 0
    assert "Total mult-adds" in summarize_model(model, shape)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
@pytest.mark.parametrize("shape", [(3, 1024, 1024), (3, 8, 1024)], ids=str)
def test_the_largest_images_need_few_parameters(name: str, shape: Shape) -> None:
    model = build_model(name, 10, torch.zeros(1, *shape, dtype=torch.uint8))
    assert count_parameters(model) < 1_000_000


@pytest.mark.parametrize("shape", [(1, 7, 28), (3, 32, 1)], ids=str)
def test_too_small_images_are_refused(shape: Shape) -> None:
    images = torch.zeros(2, *shape, dtype=torch.uint8)
    with pytest.raises(UserError, match=rf"images of {shape[1]}x{shape[2]} pixels are too small .*at least 8 pixels"):
        build_model("cnn", 10, images)


# Earlier releases trained these: their runs, checkpoints and models have to fit.
@pytest.mark.parametrize(
    ("name", "parameters", "last"),
    [("cnn", 41_594, "1.11.weight"), ("resnet", 473_834, "1.15.weight"), ("mlp", 669_706, "1.5.weight")],
)
def test_networks_for_grey_28x28_stay(name: str, parameters: int, last: str, images: torch.Tensor) -> None:
    model = build_model(name, 10, images)
    state = model.state_dict()
    assert count_parameters(model) == parameters
    assert (state["0.mean"].shape, state["0.std"].shape) == ((), ())
    assert last in state


@pytest.mark.parametrize("name", MODELS)
def test_a_new_network_is_in_training_mode(name: str, images: torch.Tensor) -> None:
    assert all(module.training for module in build_model(name, 10, images).modules())


def test_an_unknown_network_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"no network 'vgg'; choose one of cnn"):
        build_model("vgg", 10, images)


def test_a_body_without_logits_is_refused(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BODIES, "unfinished", build_without_last_layer)
    with pytest.raises(UserError, match=r"'unfinished' gives an output of shape \(2, 784\).*not \(2, 10\)"):
        build_model("unfinished", 10, images)


def test_input_is_normalised_by_the_training_images(images: torch.Tensor) -> None:
    normalize = build_model("cnn", 10, images)[0]
    pixels = normalize(images.float())
    assert pixels.mean().item() == pytest.approx(0, abs=1e-5)
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_colour_is_normalised_by_channel() -> None:
    images = torch.randint(0, 50, (20, 3, 32, 40), dtype=torch.uint8)
    images[:, 1] += 200
    images[:, 2] *= 5
    normalize = build_model("cnn", 10, images)[0]
    pixels = normalize(images.float())
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(pixels.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_statistics_of_many_blocks_are_those_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (50, 3, 10, 10), dtype=torch.uint8)
    expected = build_model("cnn", 10, images)[0].state_dict()
    monkeypatch.setattr("pipeline.training.models.BLOCK_SIZE", 1_000)  # three images
    state = build_model("cnn", 10, images)[0].state_dict()
    assert torch.equal(state["mean"], expected["mean"])
    assert torch.equal(state["std"], expected["std"])


def test_images_of_one_colour_give_finite_logits() -> None:
    black = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    assert build_model("cnn", 10, black)(black.float()).isfinite().all()


def test_the_model_stores_its_normalisation(images: torch.Tensor) -> None:
    state = build_model("cnn", 10, images).state_dict()
    assert state["0.mean"].item() == pytest.approx(images.float().mean().item())


def test_the_last_layer_divides_by_the_temperature(images: torch.Tensor) -> None:
    model = build_model("mlp", 10, images)
    assert isinstance(model[-1], Temperature)
    logits = model(images.float())
    model[-1].value.fill_(2)
    assert torch.allclose(model(images.float()), logits / 2)


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides_the_first_weights(name: str, images: torch.Tensor) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        parameters = build_model(name, 10, images).parameters()
        weights.append(torch.cat([parameter.flatten() for parameter in parameters]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_summary_counts_parameters_and_multiply_adds(images: torch.Tensor) -> None:
    model = build_model("mlp", 10, images)
    expected = (784 * 512 + 512) + (512 * 512 + 512) + (512 * 10 + 10)
    summary = summarize_model(model, (1, 28, 28))
    assert count_parameters(model) == expected
    assert f"Total params: {expected:,}" in summary
    assert "Total mult-adds" in summary
    assert "[1, 512]" in summary
