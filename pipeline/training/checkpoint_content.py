"""Does the content of a checkpoint fit a training? Every value is checked before one of them is used.

The file may be damaged, or come from somebody else: it can be an artifact of a run.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from pipeline.training.config import TrainingConfig
from pipeline.training.loop import EpochResult, TrainingState
from pipeline.training.optimizer import count_batches

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, for each parameter

_HISTORY = TypeAdapter(list[EpochResult])


def check_content(content: Mapping[str, Any], state: TrainingState, config: TrainingConfig, train_size: int) -> None:
    """Check the content of ``last.pt`` against a new state of the same training, on so many images.

    Raises
    ------
    Exception
        A value is missing, or is not one that such a training can have.
    """
    history = _HISTORY.validate_json(json.dumps(content["history"]), strict=True)
    epoch, progress = content["epoch"], content["progress"]
    _require([result.epoch for result in history] == list(range(1, len(history) + 1)), "history")
    _require(type(epoch) is int and epoch == len(history) <= config.epochs, "epoch")
    batches = count_batches(train_size, config.batch_size)
    steps = epoch * batches
    if progress is not None:
        _check_progress(progress, train_size, batches)
        steps += progress["batches"]
    check_weights(content["model"], state.model)
    _check_optimizer(content["optimizer"], state, steps)
    _check_schedule(content["schedule"], state.schedule.state_dict(), steps)


def check_weights(weights: Any, model: nn.Module) -> None:
    """Check that a state dict has the names, shapes and types of the model's.

    Raises
    ------
    ValueError
        It has not.
    """
    expected = model.state_dict()
    _require(isinstance(weights, Mapping) and set(weights) == set(expected), "model")
    for name, tensor in expected.items():
        _require_tensor(weights[name], tensor.dtype, tensor.shape, f"model, {name}")


def _check_optimizer(content: Any, state: TrainingState, steps: int) -> None:
    """Check the moments of each parameter, and that all settings but the learning rate are those of the training."""
    expected = state.optimizer.state_dict()["param_groups"]
    _require(len(content["param_groups"]) == len(expected), "optimizer")
    for group, expected_group in zip(content["param_groups"], expected, strict=True):
        _require_number(group["lr"], "learning rate")
        _require({**group, "lr": 0} == {**expected_group, "lr": 0}, "settings of the optimizer")
    parameters = list(state.model.parameters())
    moments = content["state"]
    _require(list(moments) == (list(range(len(parameters))) if steps else []), "state of the optimizer")
    for index, values in moments.items():
        _require(set(values) == {"step", *MOMENTS}, "state of the optimizer")
        _require_tensor(values["step"], torch.float32, (), "step of the optimizer")
        _require(float(values["step"]) == steps, "step of the optimizer")
        for name in MOMENTS:
            _require_tensor(values[name], parameters[index].dtype, parameters[index].shape, f"optimizer, {name}")


def _check_schedule(content: Any, expected: Mapping[str, Any], steps: int) -> None:
    """Check the schedule of the learning rate; the names of its values differ between releases of PyTorch."""
    _require({"last_epoch", "_last_lr"} <= set(content) <= set(expected), "schedule")
    for name, value in content.items():
        if name in ("last_epoch", "_step_count"):
            _require(type(value) is int and value in (steps, steps + 1), f"schedule, {name}")
        elif name == "_last_lr":
            _require(isinstance(value, list) and len(value) == len(expected[name]), f"schedule, {name}")
            for rate in value:
                _require_number(rate, f"schedule, {name}")
        else:
            _require(value == expected[name], f"schedule, {name}")


def _check_progress(content: Any, train_size: int, batches: int) -> None:
    """Check how far an epoch has come: its order has each image once."""
    order = content["order"]
    _require_tensor(order, torch.int64, (train_size,), "order of the images")
    _require(torch.equal(order.sort().values, torch.arange(train_size)), "order of the images")
    _require_tensor(content["total_loss"], torch.float32, (), "loss of the epoch")
    _require_tensor(content["correct"], torch.int64, (), "correct answers of the epoch")
    _require(type(content["batches"]) is int and 0 <= content["batches"] <= batches, "batches of the epoch")
    _require_number(content["seconds"], "seconds of the epoch")


def _require_tensor(value: Any, dtype: torch.dtype, shape: tuple[int, ...], name: str) -> None:
    is_plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    _require(is_plain and value.dtype == dtype and value.shape == shape, name)


def _require_number(value: Any, name: str) -> None:
    _require(type(value) in (int, float) and math.isfinite(value) and value >= 0, name)


def _require(condition: bool, name: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise ValueError(f"the {name} cannot be that of this training")
