"""Find images that are probably in the wrong class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.cleaning.duplicates import count_items
from pipeline.data.sampling import choose_evenly
from pipeline.data.splits import Dataset
from pipeline.evaluation.inference import compute_probabilities
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import start_training, train_one_epoch
from pipeline.training.models import build_model

FOLDS = 3  # a model for each; it judges the images that it was not trained on
TRAINING_STEPS = 600  # of a model, for any number of images
BATCH_SIZE = 64
MAX_SIDE = 64  # pixels; larger images are reduced, which shows the class as well
MAX_TRAIN_BYTES = 2**29  # of images that a model is trained on
JUDGED_AT_ONCE = 4096  # images
DEVICE = torch.device("cpu")  # the same images give the same result on every machine with the same processor


@dataclass(frozen=True)
class LabelIssue:
    """An image that is probably in the wrong class.

    Attributes
    ----------
    index : of the image.
    detail : the class that it looks like, and how probable that is.
    """

    index: int
    detail: str


def detect_label_issues(
    pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, progress: bool
) -> list[LabelIssue]:
    """Return the images that are probably in the wrong class, the most suspicious first.

    Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068), on the probabilities of models that
    were not trained on the image. ``pixels`` is uint8 [N, channels, height, width], ``labels`` int64 [N].
    If the images are mapped from a file, few of them are in the memory at a time: a model is trained on at most
    `MAX_TRAIN_BYTES` of them, evenly spaced, and judges its third in blocks.
    """
    from cleanlab.filter import find_label_issues  # brings pandas

    probabilities = _cross_validate(pixels, labels, tuple(classes), progress=progress)
    indices = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    issues = []
    for index in indices.tolist():
        prediction = int(probabilities[index].argmax())
        probability = float(probabilities[index, prediction])
        issues.append(LabelIssue(index, f"looks like {classes[prediction]!r} ({probability:.1%})"))
    return issues


def _cross_validate(pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], *, progress: bool) -> np.ndarray:
    """Return probabilities, float64 [N, classes], of models that were trained on the other folds."""
    from sklearn.model_selection import StratifiedKFold

    probabilities = np.empty((len(labels), len(classes)))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    for train_indices, fold_indices in tqdm(folds, "labels", FOLDS, unit="", disable=not progress):
        chosen = _limit_size(train_indices, pixels)
        train = Dataset("cleaning", _gather(pixels, chosen), torch.from_numpy(labels[chosen]), classes, "")
        model = _train(train)
        for start in range(0, len(fold_indices), JUDGED_AT_ONCE):
            block = fold_indices[start : start + JUDGED_AT_ONCE]
            probabilities[block] = compute_probabilities(model, _gather(pixels, block), device=DEVICE)
    return probabilities


def _limit_size(indices: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return the indices, or as many of them, evenly spaced, as `MAX_TRAIN_BYTES` hold."""
    item_size = _gather(pixels, indices[:1]).numel()
    count = max(1, MAX_TRAIN_BYTES // item_size)
    chosen: np.ndarray = indices[choose_evenly(len(indices), count)]
    return chosen


def _gather(pixels: np.ndarray, indices: np.ndarray) -> Tensor:
    """Return some of the images, uint8 [indices, channels, height, width]; large ones are reduced."""
    factor = math.ceil(max(pixels.shape[2:]) / MAX_SIDE)
    if factor == 1:
        return torch.from_numpy(pixels[indices])
    blocks = []
    size = count_items(pixels)
    for start in range(0, len(indices), size):
        block = torch.from_numpy(pixels[indices[start : start + size]]).float()
        blocks.append(F.avg_pool2d(block, factor, ceil_mode=True).round().to(torch.uint8))
    return torch.cat(blocks)


def _train(train: Dataset) -> nn.Module:
    steps_per_epoch = math.ceil(len(train) / BATCH_SIZE)
    config = TrainingConfig(
        dataset=train.name,
        model="cnn",
        epochs=math.ceil(TRAINING_STEPS / steps_per_epoch),
        lr=0.01,
        augment=("affine",),
        batch_size=BATCH_SIZE,
        weight_decay=0.05,
        label_smoothing=0.0,
        seed=0,
        device=DEVICE.type,
    )
    torch.manual_seed(config.seed)
    model = build_model(config.model, len(train.classes), train.images)
    state = start_training(model, config, len(train), DEVICE)
    validation = train.subset(slice(BATCH_SIZE))  # nobody reads what comes of it
    for _ in range(config.epochs):
        train_one_epoch(state, train, validation, config)
    return model
