"""MobileNetV3-small for images of any size, and the weights that torchvision's authors trained on ImageNet."""

import hashlib
import http.client
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.downloads import limit_waiting
from pipeline.data.forms import Shape
from pipeline.errors import UserError
from pipeline.regular_files import open_regular_file, read_limited
from pipeline.text import printable

# Of ImageNet's pixels from 0 to 255, as torchvision's weights want them.
IMAGENET_MEAN = [255 * share for share in (0.485, 0.456, 0.406)]
IMAGENET_STD = [255 * share for share in (0.229, 0.224, 0.225)]
MIN_LONGER_SIDE, MAX_LONGER_SIDE = 128, 224  # pixels that the layers see
BATCH_NORM_MOMENTUM = 0.1  # torchvision's 0.01 needs more steps than a small data set has
LAST_LAYER = "classifier.2"  # the only one that depends on the classes
MAX_FILE_SIZE = 100_000_000  # bytes; torchvision's file has 10 million


class MobileNet(nn.Module):
    """MobileNetV3-small (Howard et al., https://arxiv.org/abs/1905.02244), built by torchvision.

    Images are resized so that their longer side has 128 to 224 pixels: smaller ones are enlarged bilinearly, larger
    ones are averaged. The layers divide height and width by 32, so 28 pixels would leave them a single position; of
    128 there are 4x4. 224 is what the weights were trained on. The classifier has no dropout.
    """

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v3_small  # slow to import, and the other networks do not need it

        norm_layer = partial(nn.BatchNorm2d, eps=0.001, momentum=BATCH_NORM_MOMENTUM)
        network = mobilenet_v3_small(num_classes=classes, norm_layer=norm_layer)
        self.sides = shape[1:]
        self.seen_sides = _choose_sides(*shape[1:])
        self.features = network.features
        layers = [layer for layer in network.classifier if not isinstance(layer, nn.Dropout)]
        self.classifier = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32 [N, classes], for normalised images, [N, 3, height, width]."""
        if max(self.seen_sides) > max(self.sides):
            images = F.interpolate(images, self.seen_sides, mode="bilinear", align_corners=False)
        elif self.seen_sides != self.sides:
            images = F.adaptive_avg_pool2d(images, self.seen_sides)
        features = F.adaptive_avg_pool2d(self.features(images), 1)
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def _choose_sides(height: int, width: int) -> tuple[int, int]:
    """Return the height and width that the layers see; the proportions stay."""
    longer = max(height, width)
    target = min(max(longer, MIN_LONGER_SIDE), MAX_LONGER_SIDE)
    return max(1, round(height * target / longer)), max(1, round(width * target / longer))


def list_head(model: nn.Sequential) -> list[nn.Parameter]:
    """Return the parameters of the classifier of a network with a `MobileNet`; they are the last of all."""
    (body,) = (module for module in model if isinstance(module, MobileNet))
    return list(body.classifier.parameters())


# --- weights --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PretrainedWeights:
    """The weights of a MobileNetV3-small in a file of torchvision.

    Attributes
    ----------
    file : where they are.
    sha256 : of the file, in hexadecimal.
    tensors : as torchvision names them.
    """

    file: Path
    sha256: str
    tensors: Mapping[str, Tensor]


def read_weights(file: Path) -> PretrainedWeights:
    """Return the weights in a file that a person has named. Nothing in the file is executed.

    Raises
    ------
    UserError
        The file cannot be read, or holds something else than tensors.
    """
    try:
        with open_regular_file(file) as opened:
            content = read_limited(opened, MAX_FILE_SIZE)
    except OSError as error:
        raise UserError(f"cannot read the weights {file} ({error.strerror}); check --weights") from None
    try:
        tensors: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # the unpickler raises what the instructions in the file make it raise
        tensors = None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{file} is not a file of weights; give the state dict of torchvision's mobilenet_v3_small")
    return PretrainedWeights(file, hashlib.sha256(content).hexdigest(), tensors)


def load_pretrained(model: nn.Sequential, weights: PretrainedWeights) -> None:
    """Copy all weights but those of the last layer into a network with a `MobileNet`; it changes in place.

    Raises
    ------
    UserError
        They are not those of a MobileNetV3-small.
    """
    (body,) = (module for module in model if isinstance(module, MobileNet))
    state = body.state_dict()
    for name, own in state.items():
        if name.startswith(LAST_LAYER):
            continue
        given = weights.tensors.get(name)
        if given is None or given.shape != own.shape or given.dtype != own.dtype or given.layout != torch.strided:
            raise UserError(
                f"{weights.file} has no {printable(name)} of shape {tuple(own.shape)}; "
                "give the state dict of torchvision's mobilenet_v3_small"
            )
        state[name] = given
    body.load_state_dict(state)


def find_weights(file: Path | None, expected_sha256: str | None) -> PretrainedWeights:
    """Return the weights in ``file``, or without one those of ImageNet.

    Raises
    ------
    UserError
        They cannot be had, or their SHA-256 is not the expected one.
    """
    weights = read_weights(file) if file else find_imagenet_weights()
    if expected_sha256 not in (None, weights.sha256):
        raise UserError(
            f"{weights.file} has the SHA-256 {weights.sha256[:12]}..., and the training began with the weights "
            f"{expected_sha256[:12]}...; name their file with --weights"
        )
    return weights


def find_imagenet_weights() -> PretrainedWeights:
    """Return the weights that torchvision's authors trained on ImageNet; they are downloaded once.

    Raises
    ------
    UserError
        They are not there and cannot be downloaded, or the file is damaged.
    """
    from torchvision.models import MobileNet_V3_Small_Weights

    url = MobileNet_V3_Small_Weights.IMAGENET1K_V1.url
    return fetch_weights(url, weights_folder())


def weights_folder() -> Path:
    """Return the folder of this program in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pytorch-demo" / "weights"


def fetch_weights(url: str, folder: Path) -> PretrainedWeights:
    """Return the weights at a URL whose file name ends in the first digits of their SHA-256, as torchvision's do.

    Raises
    ------
    UserError
        They are not in ``folder`` and cannot be downloaded into it, or the file is damaged.
    """
    name = url.rpartition("/")[2]
    file = folder / name
    sha256_start = Path(name).stem.rpartition("-")[2]
    if not file.exists():
        _download(url, file, sha256_start)
    weights = read_weights(file)
    if not weights.sha256.startswith(sha256_start):
        raise UserError(f"{file} is damaged (SHA-256 {weights.sha256[:8]}...); delete it and run again")
    return weights


def _download(url: str, file: Path, sha256_start: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with limit_waiting():
            torch.hub.download_url_to_file(url, str(file), sha256_start, progress=sys.stderr.isatty())
    except (RuntimeError, OSError, http.client.HTTPException) as error:  # a wrong hash is PyTorch's RuntimeError
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot download {url} ({printable(reason)}); get {file.name} on another machine and put it into "
            f"{file.parent}, or name the file with --weights"
        ) from None
