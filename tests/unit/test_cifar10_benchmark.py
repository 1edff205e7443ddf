import sys

import pytest
import torch

from support.scripts import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from cifar10 import Score, build_tutorial_model, summarize, train_ours, train_tutorial
from pipeline.data.datasets import Dataset, Splits
from pipeline.evaluation.inference import count_parameters
from pipeline.training.config import TrainingConfig

CONFIG = TrainingConfig("cifar10", "cnn", epochs=2, lr=0.01, augment=("crop", "flip"), batch_size=16)


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Return images that are dark or bright."""
    labels = torch.arange(96) % 2
    images = torch.randint(0, 100, (96, 3, 32, 32), dtype=torch.uint8)
    images += 150 * labels.byte()[:, None, None, None]
    data = Dataset("cifar10", images, labels, ("dark", "bright"), "here")
    return Splits(data.subset(slice(64)), data.subset(slice(64, 80)), data.subset(slice(80, 96)))


def test_public_network_is_as_published() -> None:
    conv = (6 * 75 + 6) + (16 * 150 + 16)
    linear = (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert count_parameters(build_tutorial_model()) == conv + linear == 62_006


def test_ours_trains_the_configured_epochs(splits: Splits) -> None:
    score = train_ours(splits, CONFIG, seed=3)
    assert (score.recipe, score.seed, score.epochs) == ("ours", 3, 2)
    assert 0 <= score.accuracy <= 1


def test_tutorial_trains_for_the_given_time(splits: Splits) -> None:
    score = train_tutorial(splits, seed=0, seconds=0.5)
    assert score.seconds >= 0.5
    assert score.epochs > 0
    assert train_tutorial(splits, seed=0, seconds=0.0).epochs == 0


def test_summary_has_mean_and_range() -> None:
    scores = [Score("ours", seed, accuracy, 10.0, 2) for seed, accuracy in enumerate((0.5, 0.6, 0.7))]
    summary = summarize("ours", [*scores, Score("tutorial", 0, 0.1, 1.0, 1)])
    expected = {"accuracy": 0.6, "lowest": 0.5, "highest": 0.7, "seconds": 10.0, "epochs": 2}
    assert summary == pytest.approx(expected)
