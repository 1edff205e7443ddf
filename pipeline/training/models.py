"""The networks. Raw pixels in, logits out: normalisation is part of the model, so nobody has to remember it."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipeline.data.forms import Shape
from pipeline.errors import UserError
from pipeline.training.pretrained import IMAGENET_MEAN, IMAGENET_STD, MobileNet

MIN_SIDE = 8  # pixels
SMALL_SIDE = 28  # pixels: up to this size, the networks are those that were chosen on MNIST and Fashion-MNIST
STEM_SIDE = 48  # pixels: larger images are halved by strided convolutions before the blocks of the resnet
MAX_GRID = 8  # positions in height and width before the last layer
BLOCK_SIZE = 2**24  # bytes of images that are counted at once


class Normalize(nn.Module):
    """Shift and scale raw pixels (0 to 255) by constants that are stored in the model.

    The constants of colour images are [3, 1, 1], one for each channel; those of grey images have no dimension.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | Tensor, std: float | Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean))
        self.register_buffer("std", torch.as_tensor(std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the normalised pixels, float32 [N, channels, height, width]."""
        return (pixels - self.mean) / self.std


class Temperature(nn.Module):
    """Divide logits by a constant that is stored in the model; `calibrate_temperature` sets it."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(1.0))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the divided logits; any shape."""
        return logits / self.value


def build_cnn(shape: Shape, classes: int) -> nn.Module:
    """Return three convolutions, made for speed, or more for images larger than 28x28."""
    channels, *sides = shape
    if min(sides) < 20:  # too small to lose the edge in each layer
        layers = _conv_block(channels, 16, kernel=5, padding=2)
        sides = [side // 2 - 2 for side in sides]
        layers += _conv_block(16, 32, padding=1, pool=2)
    else:
        layers = _conv_block(channels, 16, kernel=5, stride=2)  # 12x12: the stride saves work where the pixels are most
        layers += _conv_block(16, 32, pool=2)  # 5x5: without padding each layer has fewer positions to compute
        sides = [((side - 5) // 2 - 1) // 2 - 2 for side in sides]
        while min(sides) > MAX_GRID:
            layers += _conv_block(32, 32, pool=2)
            sides = [side // 2 - 2 for side in sides]
    layers += _conv_block(32, 96)  # 3x3: channels cost little where positions are few
    return nn.Sequential(*layers, *_classify(96, sides, classes))


def build_resnet(shape: Shape, classes: int) -> nn.Module:
    """Return convolutions, some of them in residual blocks (He et al., https://arxiv.org/abs/1512.03385).

    Up to 28x28 they are seven and cost ten times as much as the cnn. Larger images have eight, of more channels, after
    strided convolutions that halve them until they have at most 48x48 positions. It is for images that are harder than
    digits.
    """
    channels, *sides = shape
    if max(sides) > SMALL_SIDE:
        return _build_large_resnet(channels, sides, classes)
    sides = [side // 2 // 2 // 2 for side in sides]
    return nn.Sequential(
        *_conv_block(channels, 32, padding=1, pool=2),  # 14x14
        *_conv_block(32, 64, padding=1, pool=2),  # 7x7
        ResidualBlock(64),
        *_conv_block(64, 128, padding=1),
        ResidualBlock(128),
        nn.MaxPool2d(2),  # 3x3
        *_classify(128, sides, classes),
    )


def _build_large_resnet(channels: int, sides: list[int], classes: int) -> nn.Module:
    """Return the layout of Page's ResNet-9 (https://github.com/davidcpage/cifar10-fast) with half of its channels."""
    layers: list[nn.Module] = []
    while max(sides) > STEM_SIDE and min(sides) >= 2 * MIN_SIDE:
        layers += _conv_block(channels, 32, stride=2, padding=1)
        channels = 32
        sides = [(side + 1) // 2 for side in sides]
    grid = tuple(side // 2 // 2 // 2 for side in sides)
    return nn.Sequential(
        *layers,
        *_conv_block(channels, 32, padding=1),  # 32x32
        *_conv_block(32, 64, padding=1, pool=2),  # 16x16
        ResidualBlock(64),
        *_conv_block(64, 128, padding=1, pool=2),  # 8x8
        ResidualBlock(128),
        *_conv_block(128, 256, padding=1, pool=2),  # 4x4
        nn.MaxPool2d(grid),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


def _classify(channels: int, sides: list[int], classes: int) -> list[nn.Module]:
    """Return the last layers for a grid of ``sides``; one that is too large is averaged."""
    layers: list[nn.Module] = []
    if max(sides) > MAX_GRID:
        sides = [min(side, MAX_GRID) for side in sides]
        layers.append(nn.AdaptiveAvgPool2d(tuple(sides)))
    return [*layers, nn.Flatten(), nn.Linear(channels * math.prod(sides), classes)]


def build_mlp(shape: Shape, classes: int) -> nn.Module:
    """Return the fully connected network of PyTorch's quickstart.

    Source: https://pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )


# The names are those of `pipeline.training.config.MODELS`.
BODIES: dict[str, Callable[[Shape, int], nn.Module]] = {
    "cnn": build_cnn,
    "resnet": build_resnet,
    "mlp": build_mlp,
    "mobilenet": MobileNet,
}


def build_model(name: str, classes: int, images: Tensor) -> nn.Sequential:
    """Return a freshly initialised network: normalisation, the body of that name, temperature.

    It takes raw pixels, float32 [N, channels, height, width], 0 to 255, and returns logits, float32 [N, classes].

    Parameters
    ----------
    name
        One of `BODIES`.
    classes
        Number of classes.
    images
        uint8 [N, channels, height, width], the training images. They give the shape; their mean and
        standard deviation normalise the input of each channel. (A mobilenet has those of ImageNet.)

    Raises
    ------
    UserError
        There is no network of that name, the images are too small, or the body does not end in one logit for each
        class.
    """
    if name not in BODIES:
        raise UserError(f"there is no network {name!r}; choose one of {', '.join(BODIES)}")
    _, channels, height, width = images.shape
    shape = (channels, height, width)
    if min(height, width) < MIN_SIDE:
        raise UserError(
            f"images of {height}x{width} pixels are too small for a network; "
            f"prepare them with at least {MIN_SIDE} pixels a side"
        )
    mean, std = _imagenet_statistics() if BODIES[name] is MobileNet else _pixel_statistics(images)
    model = nn.Sequential(Normalize(mean, std), BODIES[name](shape, classes), Temperature())
    _check_output(name, model, shape, classes)
    return model


def load_weights(model: nn.Sequential, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy the weights of an earlier network into a new one; the temperature is 1 again.

    Parameters
    ----------
    model
        From `build_model`; it changes in place.
    weights
        A state dict.
    origin
        Where it comes from, such as "run 8f1c", for the error message.

    Raises
    ------
    UserError
        The weights are not those of such a network.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(
            f"the weights of {origin} do not fit ({detail}); choose its --model, and a data set with as many classes"
        ) from None
    model[-1].get_buffer("value").fill_(1)


@torch.inference_mode()
def _check_output(name: str, model: nn.Sequential, image_shape: Shape, classes: int) -> None:
    model.eval()
    shape = tuple(model(torch.zeros(2, *image_shape)).shape)
    model.train()
    if shape != (2, classes):
        raise UserError(
            f"the network {name!r} gives an output of shape {shape} for 2 images of {classes} classes, "
            f"not (2, {classes}); end its body with nn.Linear(..., classes)"
        )


def _pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the pixels, float32, of the shape that `Normalize` wants.

    They come from a histogram of each channel, block by block: ``images`` may be larger than the memory.
    """
    _, channels, height, width = images.shape
    histograms = torch.zeros(channels, 256, dtype=torch.int64)
    for block in images.split(max(1, BLOCK_SIZE // (channels * height * width))):
        for channel, histogram in enumerate(histograms):
            histogram += block[:, channel].flatten().bincount(minlength=256).cpu()
    share = histograms.double() / histograms.sum(1, keepdim=True)
    levels = torch.arange(256.0, dtype=torch.float64)
    mean = (share * levels).sum(1, keepdim=True)
    variance = (share * (levels - mean) ** 2).sum(1)
    std = variance.sqrt().clamp(min=1.0)
    size = () if channels == 1 else (channels, 1, 1)
    return mean.float().view(size), std.float().view(size)


def _imagenet_statistics() -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of ImageNet; a grey image becomes three channels when they are applied."""
    return torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)


def _conv_block(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 0, pool: int = 1
) -> list[nn.Module]:
    """Convolution, normalisation and activation. Pooling comes before the last two and makes them cheaper."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)]
    if pool > 1:
        layers.append(nn.MaxPool2d(pool))
    layers.append(nn.BatchNorm2d(outputs))
    layers.append(nn.ReLU(inplace=True))
    return layers


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = _conv_block(channels, channels, padding=1)
        second = _conv_block(channels, channels, padding=1)
        self.blocks = nn.Sequential(*first, *second)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 of the shape of ``images``."""
        result: Tensor = images + self.blocks(images)
        return result


def summarize_model(model: nn.Module, shape: Shape) -> str:
    """Return a table of layers, output shapes, parameters and multiply-adds for one image of ``shape``."""
    import torchinfo

    columns = ("output_size", "num_params", "mult_adds")
    return str(torchinfo.summary(model, (1, *shape), col_names=columns, verbose=0))
