"""MobileNet and its weights: files that the tests make, a server on this machine, and no server."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.training.checkpoint import CheckpointWriter, TrainingJob, load_checkpoint
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import TrainingState, never, start_training, train_one_epoch
from pipeline.training.models import build_model
from pipeline.training.pretrained import (
    MobileNet,
    PretrainedWeights,
    fetch_weights,
    find_weights,
    list_head,
    load_pretrained,
    read_weights,
)
from support.servers import find_free_port

CONFIG = TrainingConfig(
    "pets", "mobilenet", epochs=5, lr=0.01, augment=("crop",), batch_size=8, weights_sha256="a" * 64
)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file as torchvision's, named by the first digits of its hash, with random weights."""
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("weights") / "new.pth"
    torch.save(mobilenet_v3_small().state_dict(), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return file.rename(file.with_name(f"mobilenet-{sha256[:8]}.pth"))


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Return 16 colour images of two classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Dataset("pets", pixels, torch.arange(16) % 2, ("cat", "dog"), "here")


def find_body(model: torch.nn.Sequential) -> MobileNet:
    body = model[1]
    assert isinstance(body, MobileNet)
    return body


def start(images: Dataset, weights: PretrainedWeights) -> TrainingState:
    torch.manual_seed(0)
    model = build_model("mobilenet", 2, images.images)
    load_pretrained(model, weights)
    return start_training(model, CONFIG, len(images), torch.device("cpu"))


def train(state: TrainingState, images: Dataset, epochs: int, should_stop: Callable[[], bool] = never) -> None:
    while state.epoch < epochs:
        if train_one_epoch(state, images, images, CONFIG, should_stop=should_stop) is None:
            return


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; yield the URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((1, 28, 28), (128, 128)),
        ((3, 64, 48), (128, 96)),
        ((3, 160, 160), (160, 160)),
        ((3, 100, 448), (50, 224)),
    ],
    ids=str,
)
def test_layers_see_128_to_224_pixels(shape: tuple[int, int, int], seen: tuple[int, int]) -> None:
    model = build_model("mobilenet", 3, torch.zeros(2, *shape, dtype=torch.uint8)).eval()
    sizes: list[tuple[int, ...]] = []
    body = find_body(model)
    body.features.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    assert model(torch.zeros(2, *shape)).shape == (2, 3)
    assert sizes == [(2, 3, *seen)]


def test_pixels_are_normalised_as_the_weights_want_them() -> None:
    model = build_model("mobilenet", 2, torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    pixels = model[0](torch.full((1, 1, 28, 28), 51.0))
    expected = [(0.2 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert torch.allclose(pixels[0, :, 0, 0], torch.tensor(expected))


def test_features_are_those_of_torchvision(weights_file: Path) -> None:
    model = build_model("mobilenet", 2, torch.zeros(2, 3, 128, 128, dtype=torch.uint8)).eval()
    load_pretrained(model, read_weights(weights_file))
    reference = mobilenet_v3_small().eval()
    reference.load_state_dict(torch.load(weights_file, weights_only=True))
    images = torch.rand(2, 3, 128, 128)
    body = find_body(model)
    with torch.inference_mode():
        assert torch.equal(body.features(images), reference.features(images))
        hidden = body.features(images).mean((2, 3))
        assert torch.equal(body.classifier[:2](hidden), reference.classifier[:2](hidden))


# --- head first -----------------------------------------------------------------------------------------------------


def test_body_waits_until_the_head_has_learned(weights_file: Path, images: Dataset) -> None:
    state = start(images, read_weights(weights_file))  # 10 steps, of which the first 3 are for the head
    head = {id(parameter) for parameter in list_head(state.model)}

    def copy_weights() -> list[tuple[bool, torch.Tensor]]:
        return [(id(parameter) in head, parameter.detach().clone()) for parameter in state.model.parameters()]

    def has_changed(*, in_head: bool) -> bool:
        pairs = zip(before, copy_weights(), strict=True)
        return any(not torch.equal(old, new) for (is_head, old), (_, new) in pairs if is_head == in_head)

    asked = iter(range(100))
    before = copy_weights()
    train(state, images, 5, lambda: next(asked) == 3)
    assert has_changed(in_head=True)
    assert not has_changed(in_head=False)
    train(state, images, 2)
    assert has_changed(in_head=False)
    body_rate, head_rate = state.schedule.get_last_lr()
    assert body_rate == pytest.approx(head_rate / 10)
    assert state.history[-1].learning_rate == pytest.approx(0.01)


def test_interrupted_training_ends_with_the_same_weights(weights_file: Path, images: Dataset, tmp_path: Path) -> None:
    weights = read_weights(weights_file)
    complete, interrupted = start(images, weights), start(images, weights)
    train(complete, images, 3)
    asked = iter(range(100))
    train(interrupted, images, 3, lambda: next(asked) == 5)
    digests = {f"{split}_digest": "1" for split in ("train", "validation", "test")}
    job = TrainingJob("f00d", CONFIG, digests, "demo", None, None, None, threads=1)
    assert CheckpointWriter(tmp_path, job).write(interrupted)
    torch.manual_seed(5)
    restored = start_training(build_model("mobilenet", 2, images.images), CONFIG, len(images), torch.device("cpu"))
    load_checkpoint(tmp_path / "last.pt").restore(restored, len(images))
    train(restored, images, 3)
    for name, tensor in complete.model.state_dict().items():
        assert torch.equal(tensor, restored.model.state_dict()[name]), name


# --- files ----------------------------------------------------------------------------------------------------------


def test_file_with_code_is_refused_unopened(tmp_path: Path) -> None:
    torch.save({"features.0.0.weight": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="is not a file of weights"):
        read_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"weights" * 1000])
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth is not a file of weights"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", [".", "missing.pth"])
def test_unreadable_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot read the weights"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_weights_of_another_network_are_named(weights_file: Path, images: Dataset, change: str) -> None:
    weights = read_weights(weights_file)
    tensors = dict(weights.tensors)
    name = "features.1.block.0.0.weight"
    changed = {"shape": tensors[name][:1], "dtype": tensors[name].double()}
    if change == "missing":
        del tensors[name]
    else:
        tensors[name] = changed[change]
    model = build_model("mobilenet", 2, images.images)
    with pytest.raises(UserError, match=rf"has no {name} of shape \(16, 1, 3, 3\)"):
        load_pretrained(model, replace(weights, tensors=tensors))


def test_reproduction_asks_for_the_same_weights(weights_file: Path) -> None:
    sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert find_weights(weights_file, sha256).sha256 == sha256
    with pytest.raises(UserError, match=r"began with the weights bbbbbbbbbbbb\.\.\.; name their file with --weights"):
        find_weights(weights_file, "b" * 64)


# --- the download ---------------------------------------------------------------------------------------------------


def test_weights_are_downloaded_once(weights_file: Path, tmp_path: Path) -> None:
    with serve(weights_file.parent) as url:
        weights = fetch_weights(f"{url}/{weights_file.name}", tmp_path / "cache")
    assert weights.file == tmp_path / "cache" / weights_file.name
    assert weights.sha256 == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    again = fetch_weights(f"{url}/{weights_file.name}", tmp_path / "cache")  # the server is gone
    assert again.sha256 == weights.sha256


def test_download_with_another_hash_is_refused(weights_file: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / weights_file.name).write_bytes(b"something else")
    with serve(tmp_path / "served") as url, pytest.raises(UserError, match="invalid hash value"):
        fetch_weights(f"{url}/{weights_file.name}", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_damaged_file_in_the_cache_is_named(weights_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "mobilenet-00000000.pth"
    file.write_bytes(weights_file.read_bytes())
    with pytest.raises(UserError, match=r"mobilenet-00000000\.pth is damaged .*; delete it and run again"):
        fetch_weights(f"http://127.0.0.1/{file.name}", tmp_path)


def test_no_network_says_where_to_put_the_file(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{find_free_port()}/mobilenet-12345678.pth"
    with pytest.raises(UserError) as refusal:
        fetch_weights(url, tmp_path / "cache")
    message = str(refusal.value)
    assert message.startswith(f"cannot download {url} (")
    assert f"put it into {tmp_path / 'cache'}, or name the file with --weights" in message
    assert "\n" not in message


def test_imagenet_weights_are_those_that_torchvision_names() -> None:
    assert MobileNet_V3_Small_Weights.IMAGENET1K_V1.url.endswith("/mobilenet_v3_small-047dcff4.pth")
