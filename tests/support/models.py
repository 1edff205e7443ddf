"""Models that were not trained, in a store."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from pipeline.data.forms import MNIST_FORM
from pipeline.tracking.models import LoggedModelReference, log_model, save_model

CLASSES = tuple("0123456789")
EXAMPLES = torch.zeros(2, 1, 28, 28)


def small_network(inputs: int = 28 * 28) -> nn.Module:
    """Return a network of one layer, with ten classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 10)).eval()


def log_network(
    network: nn.Module,
    run_id: str,
    folder: Path,
    *,
    examples: torch.Tensor = EXAMPLES,
    classes: Sequence[str] = CLASSES,
) -> LoggedModelReference:
    """Log the network to the run, by way of ``folder``."""
    save_model(network, examples, classes, MNIST_FORM, folder / "model")
    return log_model(run_id, folder / "model")
