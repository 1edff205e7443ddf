"""Three ways to train on MNIST behind one interface: this pipeline's, and two public ones to measure it against.

The two public recipes are written anew from what their sources state, with the same layers, optimizer, schedule,
batches and data path; no code of theirs is in here. Where they had to differ, their docstrings say so. Both train on
all 60,000 images, as published: on train and validation of `pipeline.data`, where this pipeline holds validation out.

The clock is the same for all: it runs from the first batch to the last, with the data in memory, and stands still
while a model is evaluated. Loading data and building a model come before it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.data
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from pipeline import model as networks
from pipeline import training
from pipeline.data import Splits

MEAN, STD = 0.1307, 0.3081  # of MNIST's pixels between 0 and 1; both public recipes normalise by these
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Point:
    """Where a training stands.

    Attributes
    ----------
    seconds : spent training since the first batch, evaluations left out.
    epoch : passes over the training images, with fractions.
    images : how many it has seen, repetitions counted.
    model : takes raw pixels as every model of this pipeline does, in evaluation mode until the next point is asked for.
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
    name : what the table calls it.
    source : where it comes from, a URL or a module.
    train : ``train(data, seed)`` trains a fresh model on the CPU and yields a `Point` after every epoch or more often.
    """

    name: str
    source: str
    train: Callable[[Splits, int], Iterator[Point]]


def ours(*, model: str, epochs: int, lr: float, weight_decay: float, **settings: Any) -> Recipe:
    """Return this pipeline's training: `pipeline.training.fit` itself, asked as ``pytorch_demo.py`` asks it.

    Its learning rate falls to zero at the last of ``epochs``, so the shortest way to some accuracy is a run of few
    epochs, not the start of a longer one. A point per epoch: `fit` gives no finer ones.
    """

    def train(data: Splits, seed: int) -> Iterator[Point]:
        torch.manual_seed(seed)
        network = networks.build(model, len(data.train.classes), data.train.images)
        seconds = 0.0
        for epoch in training.fit(
            network,
            training.optimizer(network, lr, weight_decay),
            data.train,
            data.validation,
            epochs=epochs,
            seed=seed,
            device=CPU,
            **settings,
        ):
            seconds += len(data.train) / epoch.images_per_second  # training_seconds has the evaluations in it
            yield Point(seconds, epoch.epoch, epoch.epoch * len(data.train), network)

    return Recipe(f"this pipeline, {model}, {_plural(epochs)}", "pipeline.training.fit", train)


def example(*, epochs: int = 14, points: int = 4) -> Recipe:
    """Return PyTorch's own MNIST example, with ``points`` points in each epoch.

    Convolutions of 32 and 64 3x3 filters, ReLU after each, 2x2 max pooling, dropout 0.25, linear layer of 128, ReLU,
    dropout 0.5, linear layer, log-softmax; PyTorch's default initialisation. Negative log-likelihood, Adadelta with
    learning rate 1.0, times 0.7 after each epoch, batches of 64, float32. A `DataLoader` without workers takes the
    images one by one through PIL, ``ToTensor`` and ``Normalize``. Nothing in it depends on the number of epochs, so
    the first of its 14 are a true part of a full run.

    Source: https://github.com/pytorch/examples/blob/main/mnist/main.py (commit d0b7e37 of that file). It shuffles
    where it finds an accelerator and, by an oversight since July 2020, not on the CPU; here it shuffles, which costs
    no time worth mentioning. Its progress lines are left out.
    """

    def train(data: Splits, seed: int) -> Iterator[Point]:
        torch.manual_seed(seed)
        images, labels = _all(data)
        loader = torch.utils.data.DataLoader(_OneByOne(images, labels), batch_size=64, shuffle=True)
        network = nn.Sequential(
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
            nn.Linear(128, len(data.train.classes)),
            nn.LogSoftmax(1),
        )
        optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)

        def steps() -> Iterator[int]:
            for _ in range(epochs):
                for batch, target in loader:
                    optimizer.zero_grad()
                    F.nll_loss(network(batch), target).backward()
                    optimizer.step()
                    yield len(batch)
                schedule.step()

        yield from _timed(steps(), network, len(images), len(loader), points)

    return Recipe("PyTorch's example", "https://github.com/pytorch/examples/blob/main/mnist/main.py", train)


class _OneByOne(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """What torchvision's own MNIST class does: an image becomes a PIL image and goes through the transforms, alone."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.squeeze(1), labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), int(self.labels[index])


def record(*, epochs: int = 1, bf16: bool = True, points: int = 10) -> Recipe:
    """Return the public record recipe, 99% in 0.76 s on a laptop's GPU, with ``points`` points in each epoch.

    24 5x5 filters, 2x2 max pooling, ReLU; 32 3x3 filters, 2x2 max pooling, ReLU; linear layer of 256, ReLU, linear
    layer, log-softmax; no padding, no dropout, PyTorch's default initialisation. Negative log-likelihood, Adam with
    betas 0.7 and 0.9, one epoch of one cycle (PyTorch's ``OneCycleLR``: cosine, a rise over 30% of the steps from
    1/25 of the peak) with peak learning rate 0.01 and betas that stay, batches of 256. The normalised images lie on
    the device, shuffled once while they are stored; a batch is a slice.

    Source: https://github.com/tuomaso/train_mnist_fast (commit 98e79e0: ``8_Final_00s76.ipynb``, ``data_saver.py``;
    99.04% mean of 30 seeds on a GeForce GTX 1660 Ti). Here the stored order is drawn from the seed, so that each seed
    stands for someone else who runs it. With ``bf16`` it is moved to the CPU as well as can be, in channels_last and
    with bfloat16 autocast where the CPU has that in hardware; without, it stays float32 and contiguous, as published.
    """

    def train(data: Splits, seed: int) -> Iterator[Point]:
        torch.manual_seed(seed)
        layout = torch.channels_last if bf16 else torch.contiguous_format
        images, labels = _all(data)
        order = torch.randperm(len(images))
        images = ((images[order].float() / 255 - MEAN) / STD).contiguous(memory_format=layout)
        batches = list(zip(images.split(256), labels[order].split(256), strict=True))
        network = nn.Sequential(
            nn.Conv2d(1, 24, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 5 * 5, 256),
            nn.ReLU(),
            nn.Linear(256, len(data.train.classes)),
            nn.LogSoftmax(1),
        ).to(memory_format=layout)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.7, 0.9))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.01, total_steps=epochs * len(batches), cycle_momentum=False
        )

        def steps() -> Iterator[int]:
            for _ in range(epochs):
                for batch, target in batches:
                    optimizer.zero_grad()
                    with training.autocast(CPU) if bf16 else nullcontext():
                        output = network(batch)
                    F.nll_loss(output.float(), target).backward()
                    optimizer.step()
                    schedule.step()
                    yield len(batch)

        yield from _timed(steps(), network, len(images), len(batches), points)

    name = "record recipe, bf16 channels_last" if bf16 else "record recipe, float32"
    return Recipe(name, "https://github.com/tuomaso/train_mnist_fast", train)


def _all(data: Splits) -> tuple[Tensor, Tensor]:
    """Return all images to learn from and their labels; the public recipes hold no validation set out."""
    return (
        torch.cat([data.train.images, data.validation.images]),
        torch.cat([data.train.labels, data.validation.labels]),
    )


def _timed(steps: Iterator[int], network: nn.Module, images: int, batches: int, points: int) -> Iterator[Point]:
    """Go through ``steps``, each a batch that tells its size, and yield ``points`` points in each epoch."""
    whole = nn.Sequential(networks.Normalize(MEAN * 255, STD * 255), network)  # raw pixels in, as evaluation gives them
    due = {math.ceil(batches * part / points) for part in range(1, points + 1)}
    seen, seconds, start = 0, 0.0, time.perf_counter()
    whole.train()
    for step, size in enumerate(steps):
        seen += size
        if step % batches + 1 in due:
            seconds += time.perf_counter() - start
            yield Point(seconds, seen / images, seen, whole.eval())
            whole.train()
            start = time.perf_counter()


def _plural(epochs: int) -> str:
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"
