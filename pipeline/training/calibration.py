"""Temperature scaling: make the model as confident as it is right."""

import math

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import nn

from pipeline.data.splits import Dataset
from pipeline.evaluation.inference import compute_logits

LOG_TEMPERATURE_BOUNDS = (-3, 3)


def calibrate_temperature(model: nn.Sequential, validation: Dataset, device: torch.device) -> float:
    """Set the temperature, the model's last layer, so that its probabilities fit ``validation``; return it.

    It is one number. It changes how confident the model is, and no prediction (Guo et al.,
    https://arxiv.org/abs/1706.04599, section 4.2). A model that has every image right would become certain, so the
    labels keep a doubt of one in N + 2 (Platt 1999, section 2.2).
    """
    logits = compute_logits(model.eval(), validation.images, device=device).double()
    size, classes = logits.shape
    # cross_entropy spreads the doubt over all classes, the true one too
    doubt = classes / ((classes - 1) * (size + 2))

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return F.cross_entropy(scaled, validation.labels, label_smoothing=doubt).item()

    best = minimize_scalar(loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded")
    temperature = model[-1].get_buffer("value")
    temperature.fill_(math.exp(best.x))
    return float(temperature)
