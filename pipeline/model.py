"""The networks. Raw pixels in, logits out: normalisation is part of the model, so nobody has to remember it."""

import torch
from torch import Tensor, nn

NAMES = ("cnn", "resnet", "mlp")


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
    """Divide logits by a constant that is stored in the model; `pipeline.training.calibrate` sets it."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(1.0))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the divided logits; any shape."""
        return logits / self.value


def build(name: str, classes: int, images: Tensor) -> nn.Sequential:
    """Return a freshly initialised network for 28x28 images.

    It takes float32 [N, 1, 28, 28] with raw pixel values, 0 to 255, and returns logits, float32 [N, classes].

    Parameters
    ----------
    name
        One of `NAMES`: ``cnn``, three convolutions, made for speed; ``resnet``, seven, four of them in residual blocks
        (He et al., https://arxiv.org/abs/1512.03385), ten times dearer, for images that are harder than digits;
        ``mlp``, the fully connected network of PyTorch's own quickstart
        (https://pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html).
    classes
        Number of classes.
    images
        uint8 [N, 1, 28, 28], the training images, whose mean and standard deviation normalise the input.
    """
    histogram = torch.bincount(images.flatten(), minlength=256).double()  # no float copy of the images
    share, levels = histogram / histogram.sum(), torch.arange(256.0, dtype=torch.float64)
    mean = (share * levels).sum()
    std = (share * (levels - mean) ** 2).sum().sqrt().clamp(min=1.0)
    normalize = Normalize(mean.item(), std.item())
    if name == "mlp":
        return nn.Sequential(
            normalize,
            nn.Flatten(),
            nn.Linear(28 * 28, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, classes),
            Temperature(),
        )
    if name == "resnet":
        return nn.Sequential(
            normalize,
            *_block(1, 32, padding=1, pool=2),  # 14x14
            *_block(32, 64, padding=1, pool=2),  # 7x7
            _Residual(64),
            *_block(64, 128, padding=1),
            _Residual(128),
            nn.MaxPool2d(2),  # 3x3
            nn.Flatten(),
            nn.Linear(128 * 3 * 3, classes),
            Temperature(),
        )
    return nn.Sequential(
        normalize,
        *_block(1, 16, kernel=5, stride=2),  # 12x12: the stride saves work where the pixels are most
        *_block(16, 32, pool=2),  # 5x5: no padding, so each layer has fewer places to compute
        *_block(32, 96),  # 3x3: channels are cheap where places are few
        nn.Flatten(),
        nn.Linear(96 * 3 * 3, classes),
        Temperature(),
    )


def _block(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 0, pool: int = 1
) -> list[nn.Module]:
    """Convolution, normalisation and activation; pooling comes first of the cheap steps and makes the rest cheaper."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        *([nn.MaxPool2d(pool)] if pool > 1 else []),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class _Residual(nn.Module):
    """Two blocks, added to what went into them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*_block(channels, channels, padding=1), *_block(channels, channels, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = images + self.blocks(images)
        return out


def summary(model: nn.Module) -> str:
    """Return a table of layers, output shapes, parameters and multiply-adds for one image."""
    import torchinfo

    return str(
        torchinfo.summary(model, (1, 1, 28, 28), col_names=("output_size", "num_params", "mult_adds"), verbose=0)
    )
