import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.data.datasets import Dataset, Splits, load_splits
from pipeline.errors import UserError
from pipeline.evaluation.inference import compute_logits
from pipeline.training.augment import AUGMENT_FUNCTIONS
from pipeline.training.config import AUGMENTATIONS, MODELS, TrainingConfig
from pipeline.training.loop import (
    EpochResult,
    TrainingState,
    autocast_context,
    find_best_epoch,
    never,
    place_dataset,
    start_training,
    train_one_epoch,
)
from pipeline.training.models import build_model
from pipeline.training.optimizer import build_optimizer, describe_optimizer, scale_learning_rate

CPU = torch.device("cpu")
FAST_MODELS = [name for name in MODELS if name != "mobilenet"]  # which test_pretrained.py trains
BASE_CONFIG = TrainingConfig(
    dataset="digits",
    model="cnn",
    epochs=2,
    lr=0.01,
    augment=("none",),
    batch_size=64,
    weight_decay=0.0,
    label_smoothing=0.0,
)


@dataclass
class Training:
    """A training in this process; ``run`` goes through its epochs."""

    splits: Splits
    config: TrainingConfig
    state: TrainingState

    def run_epoch(self) -> EpochResult:
        result = self.run_until(never)
        assert result
        return result

    def run_until(self, should_stop: Callable[[], bool]) -> EpochResult | None:
        splits = self.splits
        return train_one_epoch(self.state, splits.train, splits.validation, self.config, should_stop=should_stop)

    def run(self) -> list[EpochResult]:
        for _ in range(self.config.epochs):
            self.run_epoch()
        return self.state.history


@pytest.fixture(scope="module")
def all_splits() -> Splits:
    return load_splits("digits", Path())


@pytest.fixture
def splits(all_splits: Splits) -> Splits:
    """Return 300 images for training, and all for validation."""
    return all_splits._replace(train=all_splits.train.subset(slice(300)))


def prepare(splits: Splits, **changes: Any) -> Training:
    """Return a training before its first epoch; ``changes`` are fields of the configuration."""
    config = replace(BASE_CONFIG, **changes)
    torch.manual_seed(0)
    model = build_model(config.model, len(splits.train.classes), splits.train.images)
    state = start_training(model, config, len(splits.train), CPU)
    return Training(splits, config, state)


def train_weights(splits: Splits, **changes: Any) -> torch.Tensor:
    """Return all weights after a training, in one vector."""
    training = prepare(splits, **changes)
    training.run()
    return join_weights(training.state)


def join_weights(state: TrainingState) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in state.model.state_dict().values()])


# --- does it learn? -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAST_MODELS)
def test_every_network_learns_the_digits(all_splits: Splits, name: str) -> None:
    train = all_splits.train.subset(slice(600))
    history = prepare(all_splits._replace(train=train), model=name, epochs=4).run()
    assert history[-1].validation_accuracy > 0.5
    assert history[-1].train_loss < history[0].train_loss / 2


def make_coloured_squares(*, grey: bool) -> Splits:
    """Return squares that are red, green or blue, of the same grey level, on a background of noise of that level."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    colours = torch.tensor([[200, 85.88, 85.88], [79, 148.85, 79], [104.56, 104.56, 240]])  # each has a level of 120
    images = (colours.mean(1).mean() + 20 * torch.randn(600, 1, 20, 20, generator=generator)).expand(-1, 3, -1, -1)
    images = images.clone()
    for image, label in zip(images, labels, strict=True):
        top, left = torch.randint(1, 9, (2,), generator=generator).tolist()
        image[:, top : top + 10, left : left + 10] = colours[label][:, None, None]
    if grey:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        images = (images * weights).sum(1, keepdim=True)
    dataset = Dataset("squares", images.round().clamp(0, 255).byte(), labels, ("red", "green", "blue"), "here")
    return Splits(dataset.subset(slice(450)), dataset.subset(slice(450, 600)), dataset)


def test_colour_alone_tells_classes_apart() -> None:
    accuracies = {}
    for grey in (False, True):
        splits = make_coloured_squares(grey=grey)
        history = prepare(splits, augment=("crop", "flip", "jitter"), epochs=6).run()
        accuracies[grey] = history[-1].validation_accuracy
    assert accuracies[False] > 0.95
    assert accuracies[True] < 0.5  # chance is a third


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_trains(splits: Splits, name: str) -> None:
    history = prepare(splits, augment=(name,), epochs=4).run()
    assert history[-1].train_accuracy > 0.5


def test_a_diverging_training_names_the_learning_rate(splits: Splits) -> None:
    training = prepare(splits, lr=1000.0, weight_decay=1000.0, model="mlp", epochs=3)
    with pytest.raises(UserError, match=r"diverged in epoch \d.*--lr"):
        training.run()


def test_label_smoothing_makes_the_model_less_confident(splits: Splits) -> None:
    training = prepare(splits, epochs=8, label_smoothing=0.3)
    training.run()
    logits = compute_logits(training.state.model, splits.train.images, device=CPU)
    confidence = logits.softmax(1).amax(1).mean()
    assert 0.6 < confidence < 0.8  # 0.73 would be perfect: the true class keeps 0.7 and a tenth of 0.3


def test_reported_loss_is_without_label_smoothing(splits: Splits) -> None:
    history = prepare(splits, epochs=8, label_smoothing=0.3).run()
    assert history[-1].train_loss < 0.6  # with smoothing it cannot fall below 1.17, the entropy of such labels


# --- is it the same again? ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAST_MODELS)
def test_the_same_seed_gives_the_same_weights(splits: Splits, name: str) -> None:
    first = train_weights(splits, model=name, epochs=1, augment=("affine",))
    second = train_weights(splits, model=name, epochs=1, augment=("affine",))
    assert torch.equal(first, second)


def test_another_seed_gives_other_weights(splits: Splits) -> None:
    assert not torch.equal(train_weights(splits, seed=0), train_weights(splits, seed=1))


# --- an epoch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 64, 299, 300, 5_000])
def test_an_epoch_uses_every_image_once(splits: Splits, monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    batches: list[torch.Tensor] = []

    def record_batch(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batches.append(images)
        return images

    monkeypatch.setitem(AUGMENT_FUNCTIONS, "none", record_batch)
    prepare(splits, batch_size=batch_size, augment=("none",)).run_epoch()
    used = sorted(image.numpy().tobytes() for image in torch.cat(batches))
    assert used == sorted(image.numpy().tobytes() for image in splits.train.images)
    assert max(len(batch) for batch in batches) <= batch_size


def test_an_epoch_is_added_to_the_history(splits: Splits) -> None:
    training = prepare(splits)
    result = training.run_epoch()
    assert training.state.epoch == result.epoch == 1
    assert training.state.history == [result]
    assert training.state.training_seconds == result.training_seconds


def test_validation_metrics_are_those_of_the_model(splits: Splits) -> None:
    training = prepare(splits)
    result = training.run()[-1]
    validation = splits.validation
    logits = training.state.model.eval()(validation.images.float())
    accuracy = (logits.argmax(1) == validation.labels).double().mean().item()
    assert result.validation_loss == pytest.approx(F.cross_entropy(logits, validation.labels).item(), 1e-4)
    assert result.validation_accuracy == pytest.approx(accuracy)


def test_metrics_have_the_documented_names(splits: Splits) -> None:
    result = prepare(splits).run_epoch()
    assert set(result.metrics()) >= {
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "images_per_second",
    }
    assert not {"epoch", "training_seconds"} & set(result.metrics())


def test_a_result_prints_as_one_line(splits: Splits) -> None:
    line = str(prepare(splits).run_epoch())
    assert line.startswith("epoch 1: loss ")
    assert "\n" not in line


# --- images that are a file -----------------------------------------------------------------------------------------


def test_images_in_a_file_train_as_those_in_memory(splits: Splits, tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, splits.train.images.numpy())
    mapped = torch.from_numpy(np.load(file, mmap_mode="c"))
    train = replace(splits.train, images=mapped)
    first = train_weights(splits, augment=("affine",))
    second = train_weights(splits._replace(train=train), augment=("affine",))
    assert torch.equal(first, second)


def test_images_on_the_cpu_are_not_copied(splits: Splits) -> None:
    placed = place_dataset(splits.train, CPU)
    assert placed.images.data_ptr() == splits.train.images.data_ptr()


def test_images_that_do_not_fit_stay_on_the_cpu(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = torch.device("meta")  # a device without memory
    size = splits.train.images.numel()
    for free, device in ((2 * size, meta), (2 * size - 1, CPU)):
        monkeypatch.setattr("pipeline.training.loop._free_memory", lambda _, free=free: free)
        placed = place_dataset(splits.train, meta)
        assert (placed.images.device, placed.labels.device) == (device, meta)


# --- the learning rate ----------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_then_falls(splits: Splits) -> None:
    history = prepare(splits, epochs=10).run()
    rates = [result.learning_rate for result in history]
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 2  # of ten epochs the first three rise
    assert 0 < rates[-1] < 0.001


def test_a_training_of_one_step_uses_the_full_rate() -> None:
    assert scale_learning_rate(0, 1) == 1


# --- the optimizer --------------------------------------------------------------------------------------------------


def test_the_optimizer_has_the_configured_settings() -> None:
    config = replace(BASE_CONFIG, lr=0.02, weight_decay=0.1)
    (group,) = build_optimizer(nn.Linear(2, 2), config).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)


def test_the_optimizer_is_described_by_changed_settings() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.5, momentum=0.9, nesterov=True)
    expected = {"optimizer": "SGD", "optimizer_momentum": 0.9, "optimizer_nesterov": True}
    assert describe_optimizer(optimizer) == expected


# --- bfloat16 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_used_if_the_hardware_has_it(
    splits: Splits, monkeypatch: pytest.MonkeyPatch, is_native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_native})
    with autocast_context(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    with autocast_context(CPU, "mobilenet"):
        float_product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (product.dtype, float_product.dtype) == (dtype, torch.float32)
    assert math.isfinite(prepare(splits).run_epoch().train_loss)


# --- interrupted epochs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_interrupted_epoch_continues_with_the_same_result(splits: Splits, batches: int) -> None:
    complete, interrupted = (prepare(splits, augment=("affine",)) for _ in range(2))
    asked = iter(range(100))
    assert interrupted.run_until(lambda: next(asked) == batches) is None
    assert interrupted.state.epoch == 0
    assert interrupted.state.progress
    assert interrupted.state.progress.batches == batches
    expected, result = complete.run_epoch(), interrupted.run_epoch()
    assert (result.train_loss, result.train_accuracy) == (expected.train_loss, expected.train_accuracy)
    assert result.validation_loss == expected.validation_loss


def test_seconds_of_an_interrupted_epoch_add_up(splits: Splits) -> None:
    training = prepare(splits)
    asked = iter(range(100))
    training.run_until(lambda: next(asked) == 1)
    assert training.state.progress
    training.state.progress.seconds += 1000
    assert training.run_epoch().training_seconds > 1000
    assert training.run_epoch().training_seconds > 1000
    assert training.state.history[0].images_per_second < 1


def test_best_weights_are_those_of_the_best_epoch(splits: Splits) -> None:
    training = prepare(splits, epochs=6, lr=0.03)
    state = training.state
    weights = {}
    for _ in range(4):  # the second is the best
        result = training.run_epoch()
        weights[result.epoch] = join_weights(state)
    best = min(state.history, key=lambda result: result.validation_loss).epoch
    assert state.best
    assert state.best.epoch == best == find_best_epoch(state.history)
    assert best < 4, "the last epoch is the best, so this test shows nothing"
    state.model.load_state_dict(state.best.weights)
    assert torch.equal(join_weights(state), weights[best])
