"""McNemar's test: is one of two models better on the same images, or is it chance? Pure."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.metrics import Evaluation


@dataclass(frozen=True)
class Comparison:
    """McNemar's exact test on two models' answers to the same images.

    Attributes
    ----------
    candidate_correct, champion_correct, images : counts.
    only_candidate, only_champion : the discordant pairs: images that only one of the two has right.
    p : the probability of a split at least as uneven if both models are equally good (two-sided).
    """

    candidate_correct: int
    champion_correct: int
    images: int
    only_candidate: int
    only_champion: int
    p: float

    def __str__(self) -> str:
        return (
            f"alone right on {self.only_candidate} images, the champion on {self.only_champion}: McNemar p {self.p:.2g}"
        )

    def is_better(self, alpha: float) -> bool:
        """Return whether the candidate is significantly better at level ``alpha``."""
        return self.p < alpha and self.only_candidate > self.only_champion

    def is_worse(self, alpha: float) -> bool:
        """Return whether the candidate is significantly worse at level ``alpha``."""
        return self.p < alpha and self.only_candidate < self.only_champion


def compare_models(candidate: Evaluation, champion: Evaluation) -> Comparison:
    """Return McNemar's test (1947, Psychometrika 12:153), exact: a binomial test on the discordant pairs.

    Raises
    ------
    ValueError
        The two were not evaluated on the same images in the same order.
    """
    if not np.array_equal(candidate.labels, champion.labels):
        raise ValueError("the two models were not evaluated on the same images")
    only_candidate = int((candidate.is_correct & ~champion.is_correct).sum())
    only_champion = int((champion.is_correct & ~candidate.is_correct).sum())
    is_known = candidate.is_usable and champion.is_usable
    return Comparison(
        candidate_correct=int(candidate.is_correct.sum()),
        champion_correct=int(champion.is_correct.sum()),
        images=len(candidate.labels),
        only_candidate=only_candidate,
        only_champion=only_champion,
        p=_compute_p(only_candidate, only_champion) if is_known else math.nan,
    )


def _compute_p(only_candidate: int, only_champion: int) -> float:
    from scipy.stats import binomtest  # slow to import

    discordant = only_candidate + only_champion
    if discordant == 0:
        return 1.0
    return float(binomtest(only_candidate, discordant).pvalue)
