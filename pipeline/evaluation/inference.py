"""From images to logits and probabilities; what a model costs. Knows nothing of training or MLflow."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.data.forms import Shape
from pipeline.errors import UserError

WARM_UP_CALLS = 10
MAX_BATCH_NUMBERS = 2**23  # of a batch of images: large images go in smaller batches

Model = Callable[[Tensor], Tensor]


def choose_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``mps``; auto prefers cuda, then mps.

    Raises
    ------
    UserError
        This machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, exists in available.items() if exists)
    if not available[name]:
        raise UserError(f"this machine has no device {name!r}; choose --device cpu or auto")
    return torch.device(name)


@torch.inference_mode()
def compute_logits(model: Model, images: Tensor, *, device: torch.device, batch_size: int = 500) -> Tensor:
    """Return the logits, float32 [N, classes] on the CPU, for uint8 ``images`` [N, channels, height, width].

    The images may be on any device, and larger than the memory: one batch at a time is moved and converted. A batch
    has at most ``batch_size`` images and `MAX_BATCH_NUMBERS` numbers.
    """
    logits = []
    numbers = math.prod(images.shape[1:])
    for batch in images.split(min(batch_size, max(1, MAX_BATCH_NUMBERS // numbers))):
        pixels = batch.to(device).float().contiguous(memory_format=torch.channels_last)
        logits.append(model(pixels))
    return torch.cat(logits).float().cpu()


def compute_probabilities(model: Model, images: Tensor, *, device: torch.device) -> np.ndarray:
    """Return the probability of each class, float64 [N, classes], for uint8 ``images`` [N, channels, height, width]."""
    logits = compute_logits(model, images, device=device)
    return logits.double().softmax(1).numpy()


def count_parameters(model: torch.nn.Module) -> int:
    """Return how many trainable numbers the model has."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def count_multiply_adds(model: Model, shape: Shape) -> int:
    """Return the multiply-adds of the convolutions and matrix products for one image of ``shape``, on the CPU."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *shape))
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def measure_latencies(models: Sequence[tuple[Model, Shape]], repeats: int = 100) -> list[float]:
    """Return the median seconds that each model takes for one image of its shape on the CPU; the models alternate."""
    questions = []
    for model, shape in models:
        image = torch.zeros(1, *shape).contiguous(memory_format=torch.channels_last)
        questions.append((model, image))
    seconds: list[list[float]] = [[] for _ in models]
    for call in range(WARM_UP_CALLS + repeats):
        for (model, image), times in zip(questions, seconds, strict=True):
            start = time.perf_counter()
            model(image)
            if call >= WARM_UP_CALLS:
                times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in seconds]
