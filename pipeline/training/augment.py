"""How training images are varied, on batches, by random numbers of the given generator.

Every function takes pixels [N, 1, height, width], uint8 or float32, and a `torch.Generator` on the same device.
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
ERASED_SIDE = 8  # pixels


def apply_affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` as if drawn again: float32, interpolated bilinearly, filled with 0.

    Each image is rotated by up to 10 degrees, stretched along both axes and sheared by up to 10%, and shifted by up to
    a pixel.
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
    return F.grid_sample(images.float(), grid, align_corners=False)


def apply_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images``, each mirrored left to right with probability 0.5."""
    is_mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(is_mirrored, images.flip(3), images)


def apply_erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images``, each with a black square of 8x8 pixels (Cutout, https://arxiv.org/abs/1708.04552)."""
    side = images.shape[-1]
    corners = torch.randint(side + 1 - ERASED_SIDE, (2, len(images), 1), generator=generator, device=images.device)
    top, left = corners
    position = torch.arange(side, device=images.device)
    is_row = (position >= top) & (position < top + ERASED_SIDE)
    is_column = (position >= left) & (position < left + ERASED_SIDE)
    is_erased = is_row[:, :, None] & is_column[:, None, :]
    return images.masked_fill(is_erased[:, None], 0)


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` unchanged."""
    return images


# The names are those of `pipeline.training.config.AUGMENTATIONS`.
AUGMENT_FUNCTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "affine": apply_affine,
    "flip": apply_flip,
    "erase": apply_erase,
    "none": identity,
}


def augment_batch(images: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Return ``images`` after the augmentations of these names, in this order."""
    for name in names:
        images = AUGMENT_FUNCTIONS[name](images, generator)
    return images
