"""The training loop: one epoch at a time, with all of its state in one place. Knows nothing of MLflow."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from pipeline.data.splits import Dataset
from pipeline.errors import UserError
from pipeline.evaluation.inference import compute_logits
from pipeline.training.augment import augment_batch
from pipeline.training.config import PRETRAINED_MODEL, TrainingConfig
from pipeline.training.optimizer import build_optimizer, build_schedule, count_batches

MAX_DEVICE_SHARE = 0.5  # of the free memory of a device, for the training images


@dataclass(frozen=True)
class EpochResult:
    """What one pass over the training images gave. The fields are named as in MLflow.

    Attributes
    ----------
    epoch : from 1.
    train_loss, validation_loss : mean cross-entropy in nats, without label smoothing.
    train_accuracy, validation_accuracy : 0 to 1.
    learning_rate : of the last batch.
    images_per_second : of the training, without the validation.
    training_seconds : of all epochs until now, with the validation.
    time : when the epoch ended, in seconds since 1970.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    images_per_second: float
    training_seconds: float
    time: float

    def metrics(self) -> dict[str, float]:
        """Return what is logged for every epoch."""
        metrics = asdict(self)
        del metrics["epoch"], metrics["training_seconds"], metrics["time"]
        return metrics

    def __str__(self) -> str:
        return f"epoch {self.epoch}: {self.summary}"

    @property
    def summary(self) -> str:
        """The result for people, without the number of the epoch."""
        return (
            f"loss {self.train_loss:.4f}, accuracy {self.train_accuracy:.4f}, "
            f"validation loss {self.validation_loss:.4f}, accuracy {self.validation_accuracy:.4f}, "
            f"{self.images_per_second:,.0f} images/s"
        )


@dataclass
class EpochProgress:
    """How far an epoch has come that is not complete.

    Attributes
    ----------
    order : int64 [N], the indices of the training images in the order of this epoch.
    total_loss : float32 [], the sum of the loss over the images so far.
    correct : int64 [], how many of them were classified correctly.
    batches : how many are done.
    seconds : that they took.
    """

    order: Tensor
    total_loss: Tensor
    correct: Tensor
    batches: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class BestWeights:
    """The weights with the lowest validation loss so far: a state dict, and the epoch that they are from."""

    epoch: int
    weights: dict[str, Tensor]


@dataclass
class TrainingState:
    """Everything that changes during a training, so everything that a checkpoint has to save.

    Attributes
    ----------
    model : the network; its weights change in place.
    optimizer, schedule : of the weights, and of the learning rate.
    generator : of the order of the images and of the augmentations; on the device of the training.
    epoch : how many epochs are complete.
    history : their results.
    progress : of the epoch that was interrupted, or None.
    best : the weights with the lowest validation loss; None before the first epoch.
    """

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    generator: torch.Generator
    epoch: int = 0
    history: list[EpochResult] = field(default_factory=list)
    progress: EpochProgress | None = None
    best: BestWeights | None = None

    @property
    def device(self) -> torch.device:
        """Where the training computes."""
        return self.generator.device

    @property
    def training_seconds(self) -> float:
        """The seconds of all complete epochs."""
        return self.history[-1].training_seconds if self.history else 0.0


def start_training(
    model: nn.Sequential, config: TrainingConfig, train_size: int, device: torch.device
) -> TrainingState:
    """Return the state before the first epoch of a training on ``train_size`` images; moves the model to ``device``."""
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, train_size)
    generator = torch.Generator(device).manual_seed(config.seed)
    return TrainingState(model, optimizer, schedule, generator)


def place_dataset(dataset: Dataset, device: torch.device) -> Dataset:
    """Return the training images where the loop cuts batches from them; the labels are on ``device``.

    Images lie on the device if they need at most half of its free memory, else they stay on the CPU, where they may be
    a file that is mapped into memory.
    """
    size = dataset.images.numel() * dataset.images.element_size()
    if size <= MAX_DEVICE_SHARE * _free_memory(device):
        return dataset.to(device)
    return replace(dataset, labels=dataset.labels.to(device))


def _free_memory(device: torch.device) -> float:
    """Return the bytes that are free on a device; on the CPU the images are already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return math.inf


def never() -> bool:
    """Return False."""
    return False


def train_one_epoch(
    state: TrainingState,
    train: Dataset,
    validation: Dataset,
    config: TrainingConfig,
    *,
    should_stop: Callable[[], bool] = never,
    show_progress: bool = False,
) -> EpochResult | None:
    """Pass over the training images once, measure the model on ``validation``, and add the result to the history.

    The images of ``train`` are uint8. A batch is cut from them by a shuffled index, and augmented and converted on the
    device. If the images lie there, nothing inside an epoch waits for the device; else each batch is moved there. The
    same seed on the same machine gives the same weights, bit for bit, also if the epoch is interrupted and continued.
    Labels are smoothed as Szegedy et al. do (https://arxiv.org/abs/1512.00567, section 7).

    Parameters
    ----------
    state
        Of the training; it changes in place.
    train
        From `place_dataset`: labels on the device of the training, images there or on the CPU.
    validation
        On any device.
    config
        Of the training.
    should_stop
        Asked before each batch. If it returns True, the epoch is interrupted: the result is None, and the next call
        continues it.
    show_progress
        Show a progress bar on stderr.

    Raises
    ------
    UserError
        The loss became infinite or NaN.
    """
    start = time.perf_counter()
    state.model.train()
    if state.progress is None:
        state.progress = _start_epoch(state, len(train))
    progress = state.progress
    with _progress_bar(state, len(train), config, show=show_progress) as bar:
        for index in _split_into_batches(progress.order, config)[progress.batches :]:
            if should_stop():
                progress.seconds += time.perf_counter() - start
                return None
            learning_rate = float(state.schedule.get_last_lr()[-1])  # of the head, if there are two
            labels = train.labels[index]
            logits = _train_one_batch(state, _cut_batch(train.images, index), labels, config)
            progress.total_loss += F.cross_entropy(logits, labels, reduction="sum")
            progress.correct += (logits.argmax(1) == labels).sum()
            progress.batches += 1
            bar.update(len(index))
        train_loss = progress.total_loss.item() / len(train)  # waits for the device, so the clock below is true
        train_seconds = progress.seconds + time.perf_counter() - start
        epoch = state.epoch + 1
        if not math.isfinite(train_loss):
            raise UserError(f"training diverged in epoch {epoch} (loss {train_loss}); try a smaller --lr")
        validation_loss, validation_accuracy = measure_loss_and_accuracy(state.model, validation, state.device)
        result = EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=progress.correct.item() / len(train),
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=learning_rate,
            images_per_second=len(train) / train_seconds,
            training_seconds=state.training_seconds + progress.seconds + time.perf_counter() - start,
            time=time.time(),
        )
        bar.set_postfix_str(result.summary)
    _complete_epoch(state, result)
    return result


def find_best_epoch(history: list[EpochResult]) -> int | None:
    """Return the epoch with the lowest validation loss, the first if several have it; None without any epoch."""
    if not history:
        return None
    return min(history, key=lambda result: result.validation_loss).epoch


def _start_epoch(state: TrainingState, size: int) -> EpochProgress:
    order = torch.randperm(size, generator=state.generator, device=state.device)
    total_loss = torch.zeros((), device=state.device)
    correct = torch.zeros((), dtype=torch.int64, device=state.device)
    return EpochProgress(order, total_loss, correct)


def _split_into_batches(order: Tensor, config: TrainingConfig) -> tuple[Tensor, ...]:
    return order.tensor_split(count_batches(len(order), config.batch_size))


def _cut_batch(images: Tensor, index: Tensor) -> Tensor:
    """Return the images at ``index``, on its device."""
    if images.device == index.device:
        return images[index]
    batch = images[index.to(images.device)]
    if index.device.type == "cuda":
        batch = batch.pin_memory()
    return batch.to(index.device, non_blocking=True)


def _progress_bar(state: TrainingState, size: int, config: TrainingConfig, *, show: bool) -> "tqdm[NoReturn]":
    done = 0
    if state.progress:
        batches = _split_into_batches(state.progress.order, config)
        done = sum(len(batch) for batch in batches[: state.progress.batches])
    title = f"epoch {state.epoch + 1}/{config.epochs}"
    return tqdm(total=size, initial=done, desc=title, unit=" images", disable=not show)


def _complete_epoch(state: TrainingState, result: EpochResult) -> None:
    """Add the result to the history; remember the weights if they are the best."""
    state.epoch = result.epoch
    state.progress = None
    state.history.append(result)
    if find_best_epoch(state.history) == result.epoch:
        weights = {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}
        state.best = BestWeights(result.epoch, weights)


def _train_one_batch(state: TrainingState, images: Tensor, labels: Tensor, config: TrainingConfig) -> Tensor:
    """Take one step; return the logits, float32 [N, classes], before it."""
    images = augment_batch(images, config.augment, state.generator)
    with autocast_context(state.device, config.model):
        logits: Tensor = state.model(images.float().contiguous(memory_format=torch.channels_last))
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    state.schedule.step()
    return logits.detach()


def measure_loss_and_accuracy(model: nn.Module, dataset: Dataset, device: torch.device) -> tuple[float, float]:
    """Return the mean cross-entropy in nats and the accuracy of the model on a data set."""
    labels = dataset.labels.cpu()
    logits = compute_logits(model.eval(), dataset.images, device=device)
    loss = F.cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return loss, accuracy


def autocast_context(device: torch.device, model: str = "") -> torch.autocast:
    """Return the context for bfloat16 arithmetic if the device has it in hardware, else one that does nothing.

    On the CPU a mobilenet stays in float32: PyTorch computes the gradients of its depthwise convolutions in bfloat16 at
    half the speed (79 and 163 images a second).
    """
    if device.type == "cpu" and model == PRETRAINED_MODEL:
        is_native = False
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        is_native = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    elif device.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_native = False
    return torch.autocast(device.type, torch.bfloat16, enabled=is_native)
