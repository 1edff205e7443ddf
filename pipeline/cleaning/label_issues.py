"""Find images that are probably in the wrong class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from pipeline.data.splits import Dataset
from pipeline.evaluation.inference import compute_probabilities
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import start_training, train_one_epoch
from pipeline.training.models import build_model

FOLDS = 3  # a model for each; it judges the images that it was not trained on
TRAINING_STEPS = 600  # of a model, for any number of images
BATCH_SIZE = 64
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
    were not trained on the image. ``pixels`` is uint8 [N, 28, 28], ``labels`` int64 [N].
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

    dataset = Dataset("cleaning", torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels), classes, "")
    probabilities = np.empty((len(labels), len(classes)))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)
    for train_indices, fold_indices in tqdm(folds, "labels", FOLDS, unit="", disable=not progress):
        train = dataset.subset(torch.from_numpy(train_indices))
        fold = dataset.subset(torch.from_numpy(fold_indices))
        probabilities[fold_indices] = _train_and_predict(train, fold)
    return probabilities


def _train_and_predict(train: Dataset, fold: Dataset) -> np.ndarray:
    """Return probabilities, float64 [N, classes], for the images of ``fold``."""
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
    for _ in range(config.epochs):
        train_one_epoch(state, train, fold, config)
    return compute_probabilities(model, fold.images, device=DEVICE)
