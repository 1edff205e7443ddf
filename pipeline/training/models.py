"""The networks. Raw pixels in, logits out: normalisation is part of the model, so nobody has to remember it."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipeline.data.forms import Shape
from pipeline.errors import UserError


class Normalize(nn.Module):
    """Shift and scale raw pixels (0 to 255) by constants that are stored in the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the normalised pixels; any shape."""
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
    """Return three convolutions, made for speed."""
    return nn.Sequential(
        *_conv_block(shape[0], 16, kernel=5, stride=2),  # 12x12: the stride saves work where the pixels are most
        *_conv_block(16, 32, pool=2),  # 5x5: without padding each layer has fewer positions to compute
        *_conv_block(32, 96),  # 3x3: channels cost little where positions are few
        nn.Flatten(),
        nn.Linear(96 * 3 * 3, classes),
    )


def build_resnet(shape: Shape, classes: int) -> nn.Module:
    """Return seven convolutions, four of them in residual blocks (He et al., https://arxiv.org/abs/1512.03385).

    It costs ten times as much as the cnn. It is for images that are harder than digits.
    """
    return nn.Sequential(
        *_conv_block(shape[0], 32, padding=1, pool=2),  # 14x14
        *_conv_block(32, 64, padding=1, pool=2),  # 7x7
        ResidualBlock(64),
        *_conv_block(64, 128, padding=1),
        ResidualBlock(128),
        nn.MaxPool2d(2),  # 3x3
        nn.Flatten(),
        nn.Linear(128 * 3 * 3, classes),
    )


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
BODIES: dict[str, Callable[[Shape, int], nn.Module]] = {"cnn": build_cnn, "resnet": build_resnet, "mlp": build_mlp}


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
        standard deviation normalise the input.

    Raises
    ------
    UserError
        There is no network of that name, or its body does not end in one logit for each class.
    """
    if name not in BODIES:
        raise UserError(f"there is no network {name!r}; choose one of {', '.join(BODIES)}")
    _, channels, height, width = images.shape
    shape = (channels, height, width)
    mean, std = _pixel_statistics(images)
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


def _pixel_statistics(images: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels, by their histogram: no float copy of the images."""
    histogram = torch.bincount(images.flatten(), minlength=256).double()
    share = histogram / histogram.sum()
    levels = torch.arange(256.0, dtype=torch.float64)
    mean = (share * levels).sum()
    variance = (share * (levels - mean) ** 2).sum()
    return mean.item(), variance.sqrt().clamp(min=1.0).item()


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
