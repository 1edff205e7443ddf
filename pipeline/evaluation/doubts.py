"""What a person should know beside an answer of the model."""

from collections.abc import Sequence

import numpy as np

UNSURE = 0.5  # below this probability the answer is more likely wrong than right, as the model is calibrated
UNLIKE_TRAINING_IMAGES = "the model is not sure: the picture may be unlike its training images"


def list_doubts(probabilities: np.ndarray, remarks: Sequence[str]) -> list[str]:
    """Return what speaks against an answer: the remarks of the preparation, and whether the model is unsure.

    Parameters
    ----------
    probabilities
        float64 [classes], calibrated.
    remarks
        Of `pipeline.data.preparation.PreparedImage`.
    """
    doubts = list(remarks)
    if probabilities.max() < UNSURE:
        doubts.append(UNLIKE_TRAINING_IMAGES)
    return doubts
