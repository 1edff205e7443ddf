"""How training images are varied, on batches, by random numbers of the given generator.

Every function takes pixels [N, channels, height, width], uint8 or float32, 1 or 3 channels, and a `torch.Generator` on
the same device. The classes of torchvision.transforms.v2 draw one set of parameters for a whole batch, and draw it from
the process's generator. Here each image has its own, from the generator of the training, which a checkpoint saves.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION = math.radians(10)
MAX_SHEAR = 0.1
MAX_STRETCH = 0.1
MAX_SHIFT = 1 / 14  # half of the image is 1, so this is one pixel of 28
ERASED_SHARE = 8 / 28  # of the shorter side
CROPPED_AREA = (0.5, 1.0)  # share of the image
CROPPED_RATIO = (3 / 4, 4 / 3)  # width by height, relative to that of the image
MAX_JITTER = 0.3  # brightness, contrast and saturation are multiplied by 1 - this to 1 + this
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as torchvision and Pillow


def apply_affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` as if drawn again: float32, interpolated bilinearly.

    Each image is rotated by up to 10 degrees, stretched along both axes and sheared by up to 10%, and shifted by up to
    a pixel of 28. What was outside is black in grey images, and continues the edge in colour images.
    """
    random = 2 * torch.rand(6, len(images), generator=generator, device=images.device) - 1
    rotation = MAX_ROTATION * random[0]
    shear = MAX_SHEAR * random[1]
    width = 1 + MAX_STRETCH * random[2]
    height = 1 + MAX_STRETCH * random[3]
    shift_x = MAX_SHIFT * random[4]
    shift_y = MAX_SHIFT * random[5]
    first_row = [width * rotation.cos(), shear - rotation.sin(), shift_x]
    second_row = [rotation.sin(), height * rotation.cos(), shift_y]
    matrices = torch.stack(first_row + second_row, 1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    padding = "zeros" if images.shape[1] == 1 else "border"
    return F.grid_sample(images.float(), grid, align_corners=False, padding_mode=padding)


def apply_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images``, each mirrored left to right with probability 0.5."""
    is_mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(is_mirrored, images.flip(3), images)


def apply_erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images``, each with a square filled, 8x8 pixels of 28x28 (Cutout, https://arxiv.org/abs/1708.04552).

    It is black in grey images, and has the mean colour of the image in colour images, where black is a colour as any.
    """
    height, width = images.shape[2:]
    erased = max(1, round(ERASED_SHARE * min(height, width)))
    longest = max(height, width) + 1 - erased
    corners = torch.randint(longest, (2, len(images), 1), generator=generator, device=images.device)
    top = corners[0] * (height + 1 - erased) // longest
    left = corners[1] * (width + 1 - erased) // longest
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    is_row = (row >= top) & (row < top + erased)
    is_column = (column >= left) & (column < left + erased)
    is_erased = (is_row[:, :, None] & is_column[:, None, :])[:, None]
    if images.shape[1] == 1:
        return images.masked_fill(is_erased, 0)
    means = images.float().mean((2, 3), keepdim=True).to(images.dtype)
    return torch.where(is_erased, means, images)


def apply_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random part of each image, resized to the whole: float32, interpolated bilinearly.

    The part has 50 to 100% of the area, and proportions of 3:4 to 4:3 times those of the image, as Szegedy et al. do
    (https://arxiv.org/abs/1409.4842, section 6), who begin at 8%: small images have no details to enlarge.
    """
    random = torch.rand(4, len(images), generator=generator, device=images.device)
    smallest, largest = CROPPED_AREA
    area = smallest + (largest - smallest) * random[0]
    low, high = (math.log(ratio) for ratio in CROPPED_RATIO)
    stretch = (low + (high - low) * random[1]).mul(0.5).exp()
    width = (area.sqrt() * stretch).clamp(max=1)
    height = (area.sqrt() / stretch).clamp(max=1)
    shift_x = (1 - width) * (2 * random[2] - 1)
    shift_y = (1 - height) * (2 * random[3] - 1)
    zero = torch.zeros_like(width)
    matrices = torch.stack([width, zero, shift_x, zero, height, shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")


def apply_jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` as if photographed in other light: brightness, contrast and saturation change by up to 30%.

    float32, 0 to 255. Grey images have no saturation. The hue stays: it tells many classes apart.
    """
    pixels = images.float()
    random = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=images.device)
    brightness, contrast, saturation = 1 + MAX_JITTER * (2 * random - 1)
    pixels = pixels * brightness
    grey = _convert_to_grey(pixels)
    mean = grey.mean((1, 2, 3), keepdim=True)
    pixels = mean + contrast * (pixels - mean)
    if images.shape[1] == 3:
        grey = mean + contrast * (grey - mean)
        pixels = grey + saturation * (pixels - grey)
    jittered: Tensor = pixels.clamp(0, 255)
    return jittered


def _convert_to_grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    weights = torch.tensor(GREY_WEIGHTS, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` unchanged."""
    return images


# The names are those of `pipeline.training.config.AUGMENTATIONS`.
AUGMENT_FUNCTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "affine": apply_affine,
    "flip": apply_flip,
    "erase": apply_erase,
    "crop": apply_crop,
    "jitter": apply_jitter,
    "none": identity,
}


def augment_batch(images: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Return ``images`` after the augmentations of these names, in this order."""
    for name in names:
        images = AUGMENT_FUNCTIONS[name](images, generator)
    return images
