import pytest
import torch

from pipeline.training.augment import (
    AUGMENT_FUNCTIONS,
    apply_affine,
    apply_crop,
    apply_erase,
    apply_flip,
    apply_jitter,
    augment_batch,
    identity,
)
from pipeline.training.config import AUGMENTATIONS


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def random_images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (400, 1, 28, 28), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def varied_blocks() -> torch.Tensor:
    """Return 2,000 variations of a block in the middle, 12 high and 8 wide."""
    images = torch.zeros(2_000, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 8:20, 10:18] = 200
    return apply_affine(images, torch.Generator().manual_seed(0))


def measure_centres(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far right and down of the middle the ink of each image is, in pixels."""
    ink = images.squeeze(1).double()
    offset = torch.arange(28, dtype=torch.float64) - 13.5
    mass = ink.sum((1, 2))
    right = (ink.sum(1) * offset).sum(1) / mass
    down = (ink.sum(2) * offset).sum(1) / mass
    return right, down


def test_every_configured_augmentation_exists() -> None:
    assert tuple(AUGMENT_FUNCTIONS) == AUGMENTATIONS


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_keeps_shape_and_range(name: str, random_images: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    augmented = augment_batch(random_images, [name], generator)
    assert augmented.shape == random_images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 255.01


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 32, 48), (1, 64, 20)], ids=str)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_of_any_shape_are_augmented(name: str, shape: tuple[int, int, int]) -> None:
    images = torch.randint(0, 256, (9, *shape), dtype=torch.uint8)
    augmented = augment_batch(images, [name], torch.Generator().manual_seed(0))
    assert augmented.shape == images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 255.01


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_alone_decides_the_augmentation(name: str, random_images: torch.Tensor) -> None:
    torch.manual_seed(1)
    first = augment_batch(random_images, [name], torch.Generator().manual_seed(0))
    torch.manual_seed(2)
    second = augment_batch(random_images, [name], torch.Generator().manual_seed(0))
    assert torch.equal(first, second)


def test_augmentations_are_applied_in_order(random_images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUGMENT_FUNCTIONS, "halve", lambda images, generator: images // 2)
    monkeypatch.setitem(AUGMENT_FUNCTIONS, "brighten", lambda images, generator: images + 100)
    dark = random_images // 4
    augmented = augment_batch(dark, ["halve", "brighten"], torch.Generator())
    assert torch.equal(augmented, dark // 2 + 100)


def test_identity_changes_nothing(random_images: torch.Tensor, generator: torch.Generator) -> None:
    assert torch.equal(identity(random_images, generator), random_images)


# --- affine ---------------------------------------------------------------------------------------------------------


def test_affine_gives_float_pixels_of_the_same_range(varied_blocks: torch.Tensor) -> None:
    assert varied_blocks.dtype == torch.float32
    assert varied_blocks.max() <= 200.01


def test_affine_varies_every_image_differently(varied_blocks: torch.Tensor) -> None:
    assert len(varied_blocks.flatten(1).unique(dim=0)) == 2_000


def test_affine_shifts_by_at_most_a_pixel(varied_blocks: torch.Tensor) -> None:
    for offset in measure_centres(varied_blocks):  # stretching adds up to 10%
        assert 0.8 < offset.abs().max() < 1.3
        assert offset.mean().abs() < 0.05


def test_affine_stretches_by_about_ten_percent(varied_blocks: torch.Tensor) -> None:
    ink = varied_blocks.double().sum((1, 2, 3)) / (12 * 8 * 200)
    assert 0.75 < ink.min() < 0.9
    assert 1.1 < ink.max() < 1.4


def test_affine_rotates_to_both_sides(varied_blocks: torch.Tensor) -> None:
    right, down = measure_centres(varied_blocks)
    offset = torch.arange(28, dtype=torch.float64) - 13.5
    x = offset - right[:, None, None]
    y = offset[:, None] - down[:, None, None]
    slope = (varied_blocks.squeeze(1).double() * x * y).sum((1, 2))
    assert 0.3 < (slope > 0).double().mean() < 0.7


def test_affine_continues_the_edge_of_colour_images() -> None:
    images = torch.full((200, 3, 24, 32), 90, dtype=torch.uint8)
    assert torch.allclose(apply_affine(images, torch.Generator().manual_seed(0)), torch.tensor(90.0))


# --- flip and erase -------------------------------------------------------------------------------------------------


def test_flip_mirrors_about_half_of_the_images(random_images: torch.Tensor, generator: torch.Generator) -> None:
    flipped = apply_flip(random_images, generator)
    is_same = (flipped == random_images).flatten(1).all(1)
    is_mirrored = (flipped == random_images.flip(3)).flatten(1).all(1)
    assert (is_same | is_mirrored).all()
    assert 150 < int(is_mirrored.sum()) < 250


def test_erase_blackens_a_square_of_8x8(generator: torch.Generator) -> None:
    images = torch.full((5_000, 1, 28, 28), 200, dtype=torch.uint8)
    is_black = apply_erase(images, generator).squeeze(1) == 0
    assert (is_black.sum((1, 2)) == 64).all()
    assert is_black.sum(1).unique().tolist() == [0, 8]
    assert is_black.sum(2).unique().tolist() == [0, 8]


def test_erase_reaches_every_pixel(generator: torch.Generator) -> None:
    images = torch.full((5_000, 1, 28, 28), 200, dtype=torch.uint8)
    is_black = apply_erase(images, generator) == 0
    assert is_black.any(0).all()


def test_erase_fills_with_the_mean_colour(generator: torch.Generator) -> None:
    images = torch.zeros(50, 3, 56, 70, dtype=torch.uint8)
    images[:, 0] = 200
    images[:, 2, :28] = 100
    erased = apply_erase(images, generator)
    is_filled = (erased != images).any(1)
    assert (erased[:, 0] == 200).all()
    assert (erased[:, 1] == 0).all()
    assert (erased[:, 2][is_filled] == 50).all()
    assert is_filled.sum((1, 2)).tolist() == [16 * 16] * 50


# --- crop and jitter ------------------------------------------------------------------------------------------------


def test_crop_shows_half_of_the_image_or_more(generator: torch.Generator) -> None:
    """The images are ramps from left to right and from top to bottom, so that the ends tell what is seen."""
    ramp = torch.linspace(0, 255, 64)
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).repeat(2_000, 1, 1, 1)
    cropped = apply_crop(images, generator)
    width = (cropped[:, 0, :, -1] - cropped[:, 0, :, 0]).mean(1) / 255
    height = (cropped[:, 1, -1] - cropped[:, 1, 0]).mean(1) / 255
    area = width * height
    assert 0.45 < area.min() < 0.55
    assert 0.9 < area.max() <= 1
    ratio = width / height
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4
    left = cropped[:, 0, :, 0].mean(1) / 255
    assert left.min() < 0.02
    assert left.max() > 0.2


def test_crop_keeps_one_colour(generator: torch.Generator) -> None:
    images = torch.full((100, 3, 9, 20), 77, dtype=torch.uint8)
    assert torch.allclose(apply_crop(images, generator), torch.tensor(77.0))


def test_jitter_changes_brightness_by_up_to_30_percent(generator: torch.Generator) -> None:
    images = torch.full((2_000, 1, 8, 8), 100, dtype=torch.uint8)
    levels = apply_jitter(images, generator)[:, 0, 0, 0]
    assert 70 <= levels.min() < 72
    assert 128 < levels.max() <= 130


def test_jitter_changes_contrast_about_the_mean(generator: torch.Generator) -> None:
    images = torch.full((2_000, 1, 8, 8), 50, dtype=torch.uint8)
    images[:, :, :, 4:] = 150
    jittered = apply_jitter(images, generator)
    contrast = (jittered[:, 0, 0, 7] - jittered[:, 0, 0, 0]) / jittered.mean((1, 2, 3))
    assert 0.7 <= contrast.min() < 0.72
    assert 1.28 < contrast.max() <= 1.3001


def test_jitter_leaves_grey_grey_and_red_red(generator: torch.Generator) -> None:
    images = torch.full((500, 3, 8, 8), 100, dtype=torch.uint8)
    grey = apply_jitter(images, generator)
    assert torch.allclose(grey, grey.mean(1, keepdim=True), atol=1e-3)
    images[:, 0] = 180
    red = apply_jitter(images, generator)
    assert (red[:, 0] > red[:, 1]).all()
    assert torch.allclose(red[:, 1], red[:, 2])
    assert len(red[:, 0, 0, 0].unique()) > 490  # a few reach 255
