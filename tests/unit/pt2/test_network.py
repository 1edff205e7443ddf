import copy

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.evaluation.inference import count_multiply_adds
from pipeline.pt2.archive import GRAPH_RECORD, WEIGHTS_RECORD, read_archive
from pipeline.pt2.network import FUNCTIONS, build_network
from pipeline.pt2.operators import OPERATORS
from pipeline.training.config import MODELS
from support.archives import change_text, load_with_torch, make_archive, make_network, read_graph


def make_images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 1, 28, 28), generator=generator).float()


def read_network(name: str) -> nn.Module:
    return build_network(read_archive(make_archive(name), "here"))


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_torch_export(name: str) -> None:
    network = read_network(name)
    expected = load_with_torch(make_archive(name))
    with torch.inference_mode():
        for count in (1, 2, 37):
            images = make_images(count)
            assert torch.equal(network(images), expected(images))


@pytest.mark.parametrize("name", MODELS)
def test_channels_last_answers_are_the_same_too(name: str) -> None:
    network = read_network(name).to(memory_format=torch.channels_last)
    expected = load_with_torch(make_archive(name)).to(memory_format=torch.channels_last)
    images = make_images(37).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(network(images), expected(images))


@pytest.mark.parametrize("name", MODELS)
def test_images_and_weights_stay_as_they_are(name: str) -> None:
    network = read_network(name)
    images = make_images(5)
    before = copy.deepcopy(network.state_dict())
    with torch.inference_mode():
        network(images)
    assert torch.equal(images, make_images(5))
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_multiply_adds_are_counted(name: str) -> None:
    expected = count_multiply_adds(load_with_torch(make_archive(name)), (1, 28, 28))
    assert count_multiply_adds(read_network(name), (1, 28, 28)) == expected


def test_copy_answers_alone() -> None:
    network = read_network("mlp")
    twin = copy.deepcopy(network)
    images = make_images(3)
    answers = network(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(twin(images), answers)
    assert not torch.equal(network(images), answers)


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 32, 32), (1, 64, 48), (3, 64, 256)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_network_of_any_size_is_read(name: str, shape: tuple[int, int, int]) -> None:
    content = make_archive(name, shape)
    images = torch.randint(0, 256, (3, *shape)).float()
    with torch.inference_mode():
        answers = build_network(read_archive(content, "here"))(images)
        assert torch.equal(answers, load_with_torch(content)(images))
        assert torch.allclose(answers, make_network(name, shape)(images), atol=1e-4)


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_weights_fit_the_original_network(name: str) -> None:
    original = make_network(name)
    state = read_network(name).state_dict()
    assert state.keys() == original.state_dict().keys()
    assert all(torch.equal(values, state[name]) for name, values in original.state_dict().items())
    copy.deepcopy(original).load_state_dict(state)


@pytest.mark.parametrize("name", MODELS)
def test_network_is_in_evaluation_mode(name: str) -> None:
    network = read_network(name)
    assert not any(module.training for module in network.modules())
    expected = {parameter for parameter, _ in make_network(name).named_parameters()}
    assert {parameter for parameter, _ in network.named_parameters()} == expected


@pytest.mark.parametrize("name", ["forward.weight", "training", "_parameters.x", "1._buffers", "__class__.x"])
def test_weight_with_a_name_of_pytorch_is_refused(name: str) -> None:
    renamed = change_text(make_archive("mlp"), WEIGHTS_RECORD, '"2.value"', f'"{name}"')
    renamed = change_text(renamed, GRAPH_RECORD, '"2.value"', f'"{name}"')
    program = read_archive(renamed, "here")
    with pytest.raises(UserError, match=r"here is refused, because .*already exists"):
        build_network(program)


# --- operators ------------------------------------------------------------------------------------------------------


def test_operators_are_those_of_the_networks() -> None:
    used = set()
    for name in MODELS:
        used |= {node["target"] for node in read_graph(make_archive(name))["graph_module"]["graph"]["nodes"]}
    assert used == OPERATORS.keys() == FUNCTIONS.keys()
