"""The optimizer of a training, and how its learning rate changes from step to step."""

import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pipeline.training.config import TrainingConfig
from pipeline.training.pretrained import list_head

WARM_UP_SHARE = 0.3  # of the steps: the learning rate rises in these and falls in the rest
HEAD_SHARE = 0.3  # of the steps after pretrained weights were loaded: only the head learns
BODY_RATE = 0.1  # then the learning rate of the other layers, relative to that of the head


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101) over the model's parameters.

    A model with pretrained weights has two groups of parameters: the body, with a smaller learning rate, and the head.
    """
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if config.weights_sha256:
        assert isinstance(model, nn.Sequential)
        head = list_head(model)
        body = list(model.parameters())[: -len(head)]
        groups = [{"params": body, "lr": BODY_RATE * config.lr}, {"params": head}]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig, train_size: int) -> LambdaLR:
    """Return the schedule of the learning rate. A pretrained body keeps its weights until the head has learned."""
    total_steps = config.epochs * count_batches(train_size, config.batch_size)

    def scale_head(step: int) -> float:
        return scale_learning_rate(step, total_steps)

    def scale_body(step: int) -> float:
        return 0.0 if step < HEAD_SHARE * total_steps else scale_head(step)

    return LambdaLR(optimizer, [scale_body, scale_head] if config.weights_sha256 else scale_head)


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's name, and its settings that are neither PyTorch's defaults nor in `TrainingConfig`."""
    description: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    in_config = TrainingConfig.__dataclass_fields__
    for name, parameter in inspect.signature(type(optimizer)).parameters.items():
        value = optimizer.defaults.get(name, parameter.default)
        if name not in in_config and value != parameter.default:
            description[f"optimizer_{name}"] = value
    return description


def scale_learning_rate(step: int, total_steps: int) -> float:
    """Return the share of the peak learning rate at a step, from 0: it rises linearly, then falls linearly to zero.

    One cycle (Smith and Topin, https://arxiv.org/abs/1708.07120). `OneCycleLR` of PyTorch has no parameters that give
    these rates: it peaks one step earlier, and runs that were made before could not be reproduced.
    """
    rising = (step + 1) / (WARM_UP_SHARE * total_steps)
    falling = (total_steps - step) / ((1 - WARM_UP_SHARE) * total_steps)
    return min(rising, falling, 1.0)


def count_batches(train_size: int, batch_size: int) -> int:
    """Return the number of batches of an epoch."""
    return math.ceil(train_size / batch_size)
