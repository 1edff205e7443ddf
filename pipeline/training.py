"""The training loop, and nothing about MLflow."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from tqdm import tqdm

from pipeline import UserError
from pipeline.data import Dataset
from pipeline.evaluation import predict

RISE = 0.3  # share of the steps in which the learning rate rises; the rest lets it fall


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images gave; the fields are named as in MLflow, seconds and rates per second."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float  # of the last batch
    images_per_second: float
    training_seconds: float  # from the first batch until now

    def metrics(self) -> dict[str, float]:
        """Return what is logged for every epoch."""
        return {name: value for name, value in asdict(self).items() if name not in ("epoch", "training_seconds")}

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: loss {self.train_loss:.4f}, accuracy {self.train_accuracy:.4f}, "
            f"validation loss {self.validation_loss:.4f}, accuracy {self.validation_accuracy:.4f}, "
            f"{self.images_per_second:,.0f} images/s"
        )


def optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101) over the model's parameters."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)


def epochs(images: int, batch_size: int) -> int:
    """Return how often to pass over a training set of which nothing else is known: 6 times, or for 300 batches."""
    return max(6, math.ceil(300 / math.ceil(images / batch_size)))


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Dataset,
    validation: Dataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    label_smoothing: float = 0.0,
    augment: Sequence[str] = (),
    progress: bool = False,
) -> Iterator[Epoch]:
    """Train ``model`` in place and yield an `Epoch` after each pass.

    The whole data set lies on the device as uint8; a batch is cut from it by a shuffled index, augmented (by names of
    `AUGMENTATIONS`, in their order) and converted there. The learning rate rises to the optimizer's own and falls to
    zero in one cycle (Smith and Topin, https://arxiv.org/abs/1708.07120). ``label_smoothing`` is the share of a label
    that is spread over all classes (Szegedy et al., https://arxiv.org/abs/1512.00567, section 7); the losses are
    reported without it. The same seed on the same machine gives the same weights, bit for bit. Nothing inside an epoch
    waits for the device.

    Raises
    ------
    UserError
        The loss became infinite or NaN.
    """
    model.to(device).to(memory_format=torch.channels_last)
    images, labels = train.images.to(device), train.labels.to(device)
    batches = math.ceil(len(train) / batch_size)
    steps = epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (RISE * steps), (steps - step) / ((1 - RISE) * steps), 1.0)
    )
    generator = torch.Generator(device).manual_seed(seed)
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        epoch_start = time.perf_counter()
        model.train()
        total_loss = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        order = torch.randperm(len(train), generator=generator, device=device)
        bar = tqdm(total=len(train), desc=f"epoch {epoch}/{epochs}", unit=" images", disable=not progress)
        for index in order.tensor_split(batches):
            batch, target = images[index], labels[index]
            for name in augment:
                batch = AUGMENTATIONS[name](batch, generator)
            with autocast(device):
                logits = model(batch.float().contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), target, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            learning_rate = float(schedule.get_last_lr()[0])
            schedule.step()
            total_loss += F.cross_entropy(logits.detach().float(), target, reduction="sum")
            correct += (logits.argmax(1) == target).sum()
            bar.update(len(index))
        train_loss = total_loss.item() / len(train)  # waits for the device, so the clock below is true
        seconds = time.perf_counter() - epoch_start
        if not math.isfinite(train_loss):
            raise UserError(f"training diverged in epoch {epoch} (loss {train_loss}); try a smaller --lr")
        logits = predict(model.eval(), validation.images, device=device)
        result = Epoch(
            epoch,
            train_loss,
            train_accuracy=correct.item() / len(train),
            validation_loss=F.cross_entropy(logits, validation.labels).item(),
            validation_accuracy=(logits.argmax(1) == validation.labels).double().mean().item(),
            learning_rate=learning_rate,
            images_per_second=len(train) / seconds,
            training_seconds=time.perf_counter() - start,
        )
        bar.set_postfix_str(str(result).partition(": ")[2])
        bar.close()
        yield result


def calibrate(model: nn.Sequential, validation: Dataset, device: torch.device) -> float:
    """Set the temperature, the model's last layer, so that its probabilities fit ``validation``; return it.

    One number, which changes how sure the model is and no prediction (Guo et al., https://arxiv.org/abs/1706.04599,
    section 4.2). The labels keep a doubt of one in N + 2 (Platt 1999, section 2.2): a model that has every image right
    would otherwise become certain.
    """
    logits = predict(model.eval(), validation.images, device=device).double()
    size, classes = logits.shape
    doubt = classes / ((classes - 1) * (size + 2))  # cross_entropy spreads it over all classes, the true one too

    def loss(logarithm: float) -> float:
        return F.cross_entropy(logits / math.exp(logarithm), validation.labels, label_smoothing=doubt).item()

    temperature = model[-1].get_buffer("value")
    temperature.fill_(math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    return float(temperature)


def affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` as if drawn anew: float32, interpolated bilinearly, filled with 0.

    Each is turned by up to 10 degrees, stretched along both axes and slanted by up to 10%, moved by up to a pixel.
    """
    amounts = 2 * torch.rand(6, len(images), generator=generator, device=images.device) - 1
    most = (math.radians(10), 0.1, 0.1, 0.1, 1 / 14, 1 / 14)  # half the image is 1
    turn, slant, wide, tall, right, down = (amount * limit for amount, limit in zip(amounts, most, strict=True))
    rows = [(1 + wide) * turn.cos(), slant - turn.sin(), right, turn.sin(), (1 + tall) * turn.cos(), down]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images``, every second one of them, by chance, mirrored left to right."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def erase(images: Tensor, generator: torch.Generator, side: int = 8) -> Tensor:
    """Return ``images``, in each a square of 8x8 pixels blackened (cutout, https://arxiv.org/abs/1708.04552)."""
    place = torch.arange(28, device=images.device)
    top, left = torch.randint(29 - side, (2, len(images), 1), generator=generator, device=images.device)
    rows, columns = (place >= top) & (place < top + side), (place >= left) & (place < left + side)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def keep(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``images`` as they are."""
    return images


# Each takes pixels [N, 1, 28, 28], uint8 or float32. Digits may be slanted, clothes mirrored.
AUGMENTATIONS = {"affine": affine, "flip": flip, "erase": erase, "none": keep}


def autocast(device: torch.device) -> torch.autocast:
    """Return the context for bfloat16 arithmetic where the device has it in hardware, else one that does nothing."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=native)
