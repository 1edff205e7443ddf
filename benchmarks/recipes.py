"""Three ways to train on MNIST behind one interface: this pipeline's, and two public ones to compare it with.

The two public recipes are written anew from what their sources state, with the same layers, optimizer, schedule,
batches and data path. No code of theirs is in here. If a recipe had to differ, its docstring says so. Both train on
all 60,000 images, as published: on train and validation of this pipeline, which holds validation out.

The clock is the same for all: it runs from the first batch to the last, with the data in memory, and stops while a
model is evaluated. Loading the data and building the model come before it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.data
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from pipeline.data.datasets import Splits
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import autocast_context, start_training, train_one_epoch
from pipeline.training.models import Normalize, build_model

MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels between 0 and 1; both public recipes normalise by these
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Point:
    """The state of a training at one moment.

    Attributes
    ----------
    seconds : of training since the first batch, without evaluations.
    epoch : passes over the training images, with fractions.
    images : how many images it was trained on, repetitions counted.
    model : takes raw pixels, as every model of this pipeline. It is in evaluation mode until the next point.
    """

    seconds: float
    epoch: float
    images: int
    model: nn.Module


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes
    ----------
    name : for the table.
    source : a URL or a module.
    train : ``train(splits, seed)`` trains a new model on the CPU and yields a `Point` after every epoch, or more often.
    """

    name: str
    source: str
    train: Callable[[Splits, int], Iterator[Point]]


# --- this pipeline --------------------------------------------------------------------------------------------------


def build_pipeline_recipe(**settings: Any) -> Recipe:
    """Return this pipeline's training, called as ``pytorch_demo.py`` calls it.

    ``settings`` are the fields of `TrainingConfig`, without the seed. The learning rate falls to zero at the last
    epoch, so the shortest way to an accuracy is a training of few epochs, not the start of a longer one. There is a
    point for each epoch.
    """
    config = TrainingConfig(**settings)

    def train(splits: Splits, seed: int) -> Iterator[Point]:
        seeded = replace(config, seed=seed)
        torch.manual_seed(seed)
        model = build_model(config.model, len(splits.train.classes), splits.train.images)
        state = start_training(model, seeded, len(splits.train), CPU)
        seconds = 0.0
        for _ in range(config.epochs):
            train_one_epoch(state, splits.train, splits.validation, seeded)
            result = state.history[-1]
            seconds += len(splits.train) / result.images_per_second  # without the validation
            yield Point(seconds, float(result.epoch), result.epoch * len(splits.train), model)

    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    return Recipe(f"this pipeline, {config.model}, {epochs}", "pipeline.training.loop", train)


# --- PyTorch's example ----------------------------------------------------------------------------------------------


def build_example_recipe(*, epochs: int = 14, points: int = 4) -> Recipe:
    """Return PyTorch's own MNIST example, with ``points`` points in each epoch.

    Convolutions of 32 and 64 3x3 filters, ReLU after each, 2x2 max pooling, dropout 0.25, linear layer of 128, ReLU,
    dropout 0.5, linear layer, log-softmax; PyTorch's default initialisation. Negative log-likelihood, Adadelta with
    learning rate 1.0, times 0.7 after each epoch, batches of 64, float32. A `DataLoader` without workers loads the
    images one by one through PIL, ``ToTensor`` and ``Normalize``. Nothing depends on the number of epochs, so the
    first of its 14 epochs are a true part of a full run.

    Source: https://github.com/pytorch/examples/blob/main/mnist/main.py (commit d0b7e37 of that file). It shuffles
    with an accelerator and, by an oversight since July 2020, not on the CPU. Here it shuffles, which costs no
    measurable time. Its progress lines are left out.
    """

    def train(splits: Splits, seed: int) -> Iterator[Point]:
        torch.manual_seed(seed)
        images, labels = _join_train_and_validation(splits)
        loader = torch.utils.data.DataLoader(_PilDataset(images, labels), batch_size=64, shuffle=True)
        model = _build_example_model(len(splits.train.classes))
        optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)

        def train_batches() -> Iterator[int]:
            for _ in range(epochs):
                for batch, target in loader:
                    optimizer.zero_grad()
                    loss = F.nll_loss(model(batch), target)
                    loss.backward()
                    optimizer.step()
                    yield len(batch)
                schedule.step()

        yield from _yield_points(train_batches(), model, len(images), len(loader), points)

    return Recipe("PyTorch's example", "https://github.com/pytorch/examples/blob/main/mnist/main.py", train)


def _build_example_model(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
        nn.LogSoftmax(1),
    )


class _PilDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """As torchvision's MNIST: each image becomes a PIL image and goes through the transforms alone."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images.squeeze(1)
        self.labels = labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        return self.transform(image), int(self.labels[index])


# --- the record recipe ----------------------------------------------------------------------------------------------


def build_record_recipe(*, epochs: int = 1, bf16: bool = True, points: int = 10) -> Recipe:
    """Return the public record recipe, 99% in 0.76 s on a laptop's GPU, with ``points`` points in each epoch.

    24 5x5 filters, 2x2 max pooling, ReLU; 32 3x3 filters, 2x2 max pooling, ReLU; linear layer of 256, ReLU, linear
    layer, log-softmax; no padding, no dropout, PyTorch's default initialisation. Negative log-likelihood, Adam with
    betas 0.7 and 0.9, one epoch of one cycle (PyTorch's ``OneCycleLR``: cosine, a rise over 30% of the steps from
    1/25 of the peak) with peak learning rate 0.01 and constant betas, batches of 256. The normalised images lie on
    the device, shuffled once while they are stored; a batch is a slice.

    Source: https://github.com/tuomaso/train_mnist_fast (commit 98e79e0: ``8_Final_00s76.ipynb``, ``data_saver.py``;
    99.04% mean of 30 seeds on a GeForce GTX 1660 Ti). Here the stored order is drawn from the seed, so that each seed
    stands for another person who runs it. With ``bf16`` it has what makes it fast on a CPU: channels_last, and
    bfloat16 autocast if the CPU has that in hardware. Without, it stays float32 and contiguous, as published.
    """

    def train(splits: Splits, seed: int) -> Iterator[Point]:
        torch.manual_seed(seed)
        layout = torch.channels_last if bf16 else torch.contiguous_format
        images, labels = _join_train_and_validation(splits)
        order = torch.randperm(len(images))
        images = ((images[order].float() / 255 - MEAN) / STD).contiguous(memory_format=layout)
        batches = list(zip(images.split(256), labels[order].split(256), strict=True))
        model = _build_record_model(len(splits.train.classes)).to(memory_format=layout)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.01, total_steps=epochs * len(batches), cycle_momentum=False
        )

        def train_batches() -> Iterator[int]:
            for _ in range(epochs):
                for batch, target in batches:
                    optimizer.zero_grad()
                    with autocast_context(CPU) if bf16 else nullcontext():
                        output = model(batch)
                    loss = F.nll_loss(output.float(), target)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    yield len(batch)

        yield from _yield_points(train_batches(), model, len(images), len(batches), points)

    name = "record recipe, bf16 channels_last" if bf16 else "record recipe, float32"
    return Recipe(name, "https://github.com/tuomaso/train_mnist_fast", train)


def _build_record_model(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 24, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
        nn.LogSoftmax(1),
    )


# --- what the public recipes share ----------------------------------------------------------------------------------


def _join_train_and_validation(splits: Splits) -> tuple[Tensor, Tensor]:
    """Return images and labels of both: the public recipes hold no validation images out."""
    images = torch.cat([splits.train.images, splits.validation.images])
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    return images, labels


def _yield_points(
    trained_batches: Iterator[int], model: nn.Module, images: int, batches: int, points: int
) -> Iterator[Point]:
    """Train, and yield ``points`` points in each epoch of ``batches`` batches.

    ``trained_batches`` trains on one batch whenever it is asked for the next size of a batch.
    """
    raw_model = nn.Sequential(Normalize(MEAN * 255, STD * 255), model)  # takes raw pixels, as the evaluation has them
    ends = {math.ceil(batches * part / points) for part in range(1, points + 1)}
    trained_images = 0
    seconds = 0.0
    start = time.perf_counter()
    raw_model.train()
    for step, size in enumerate(trained_batches):
        trained_images += size
        if step % batches + 1 in ends:
            seconds += time.perf_counter() - start
            yield Point(seconds, trained_images / images, trained_images, raw_model.eval())
            raw_model.train()
            start = time.perf_counter()


# By the names that time_to_accuracy.py and its results use.
RECIPES: dict[str, Callable[..., Recipe]] = {
    "ours": build_pipeline_recipe,
    "record": build_record_recipe,
    "example": build_example_recipe,
}
