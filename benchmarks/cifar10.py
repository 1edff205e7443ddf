"""Measure the test accuracy on CIFAR-10: this pipeline's default recipe, and a public network with the same time.

    python benchmarks/cifar10.py                             three seeds; about an hour on two cores
    python benchmarks/cifar10.py --seeds 1 --epochs 2        a quick look

The public network is that of PyTorch's tutorial "Training a Classifier"
(https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html), written anew from what the tutorial states:
two 5x5 convolutions of 6 and 16 filters, linear layers of 120, 84 and 10; SGD with learning rate 0.001 and momentum
0.9, batches of 4, pixels from -1 to 1, no augmentation. The tutorial trains for two epochs. Here it trains as often as
fits into the time that this pipeline took with the same seed, its images lie in memory as ours do, and it has the
images of the validation split, too.

Both clocks run from the first batch to the last, with the data in memory. Ours includes the measurement on the
validation split after each epoch. The test set is scored once, after the last batch. Do not use the machine meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the root, for the pipeline

from pipeline import cli
from pipeline.files import atomic_file
from pipeline.training.config import TrainingConfig, build_config

if TYPE_CHECKING:
    from torch import nn

    from pipeline.data.datasets import Splits

DATASET = "cifar10"
BATCH_SIZE, LEARNING_RATE, MOMENTUM = 4, 0.001, 0.9  # of the tutorial


@dataclass(frozen=True)
class Score:
    """What one training reached.

    Attributes
    ----------
    recipe : "ours" or "tutorial".
    seed : of the training.
    accuracy : on the test images.
    seconds : of the training.
    epochs : passes over the training images, with fractions.
    """

    recipe: str
    seed: int
    accuracy: float
    seconds: float
    epochs: float


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="directory of the files (default: data)")
    parser.add_argument("--seeds", type=cli.bounded_number(int, 1), default=3, help="trainings of each (default: 3)")
    parser.add_argument("--epochs", type=cli.bounded_number(int, 1), help="of ours (default: that of pytorch_demo.py)")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/cifar10.json"), help="(default: %(default)s)"
    )
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Train both with each seed, score them, write and print the result."""
    import json

    import torch

    from pipeline.data.datasets import load_splits
    from pipeline.provenance.record import cpu_name

    options = parse_options(argv)
    splits = load_splits(DATASET, options.data_dir)
    config = build_config(DATASET, len(splits.train), "cpu", {"epochs": options.epochs})
    scores: list[Score] = []
    for seed in range(options.seeds):
        ours = train_ours(splits, config, seed)
        scores += [ours, train_tutorial(splits, seed, ours.seconds)]
        for score in scores[-2:]:
            cli.log(
                f"seed {seed}: {score.recipe}: {score.accuracy:.2%} after {score.seconds:.0f} s, "
                f"{score.epochs:.1f} epochs"
            )
    summary = {recipe: summarize(recipe, scores) for recipe in ("ours", "tutorial")}
    machine = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    content = {"config": config.as_params(), "machine": machine, "scores": [asdict(score) for score in scores]}
    with atomic_file(options.output) as file:
        file.write_text(json.dumps(content | {"summary": summary}, indent=2) + "\n")
    cli.print_json(summary | {"machine": machine})
    return cli.OK


def summarize(recipe: str, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the mean and the range of the accuracy, and the mean time."""
    own = [score for score in scores if score.recipe == recipe]
    accuracies = [score.accuracy for score in own]
    return {
        "accuracy": mean(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "seconds": mean(score.seconds for score in own),
        "epochs": mean(score.epochs for score in own),
    }


def train_ours(splits: "Splits", config: TrainingConfig, seed: int) -> Score:
    """Train as pytorch_demo.py does."""
    from dataclasses import replace

    import torch

    from pipeline.training.loop import start_training, train_one_epoch
    from pipeline.training.models import build_model

    seeded = replace(config, seed=seed)
    torch.manual_seed(seed)
    model = build_model(config.model, len(splits.train.classes), splits.train.images)
    state = start_training(model, seeded, len(splits.train), torch.device("cpu"))
    start = time.perf_counter()
    for _ in range(config.epochs):
        train_one_epoch(state, splits.train, splits.validation, seeded)
    seconds = time.perf_counter() - start
    return Score("ours", seed, score_model(model, splits), seconds, config.epochs)


def train_tutorial(splits: "Splits", seed: int, seconds: float) -> Score:
    """Train the network of PyTorch's tutorial for so many seconds."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    images = torch.cat([splits.train.images, splits.validation.images])
    labels = torch.cat([splits.train.labels, splits.validation.labels])
    model = build_tutorial_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    used = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for index in torch.randperm(len(images)).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[index].float()), labels[index])
            loss.backward()
            optimizer.step()
            used += len(index)
            if time.perf_counter() - start >= seconds:
                break
    elapsed = time.perf_counter() - start
    return Score("tutorial", seed, score_model(model, splits), elapsed, used / len(images))


def build_tutorial_model() -> "nn.Sequential":
    """Return the network of the tutorial; it takes raw pixels, 0 to 255."""
    from torch import nn

    from pipeline.training.models import Normalize

    return nn.Sequential(
        Normalize(127.5, 127.5),
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def score_model(model: "nn.Module", splits: "Splits") -> float:
    """Return the accuracy on the test images."""
    import torch

    from pipeline.evaluation.inference import compute_logits

    logits = compute_logits(model.eval(), splits.test.images, device=torch.device("cpu"))
    return float((logits.argmax(1) == splits.test.labels).double().mean())


if __name__ == "__main__":
    sys.exit(main())
