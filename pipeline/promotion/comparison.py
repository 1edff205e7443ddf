"""McNemar's test: is one of two models better on the same images, or is it chance? Pure."""

import math
from collections.abc import Collection
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
    left_out : the classes that only one of the two knows, sorted; their images do not count.
    """

    candidate_correct: int
    champion_correct: int
    images: int
    only_candidate: int
    only_champion: int
    p: float
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"alone right on {self.only_candidate} images, the champion on {self.only_champion}: McNemar p {self.p:.2g}"
        )
        if self.left_out:
            text += f", on the {self.images:,} images of the classes that both know"
        return text

    def is_better(self, alpha: float) -> bool:
        """Return whether the candidate is significantly better at level ``alpha``."""
        return self.p < alpha and self.only_candidate > self.only_champion

    def is_worse(self, alpha: float) -> bool:
        """Return whether the candidate is significantly worse at level ``alpha``."""
        return self.p < alpha and self.only_candidate < self.only_champion


def compare_models(candidate: Evaluation, champion: Evaluation) -> Comparison:
    """Return McNemar's test (1947, Psychometrika 12:153), exact: a binomial test on the discordant pairs.

    Models with other classes are compared on the images whose class both know, by its name.

    Raises
    ------
    ValueError
        The two were not evaluated on the same images in the same order.
    """
    common = set(candidate.classes) & set(champion.classes)
    left_out = set(candidate.classes) ^ set(champion.classes)
    candidate = select_classes(candidate, common)
    champion = select_classes(champion, common)
    if not np.array_equal(_name_labels(candidate), _name_labels(champion)):
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
        left_out=tuple(sorted(left_out)),
    )


def select_classes(evaluation: Evaluation, classes: Collection[str]) -> Evaluation:
    """Return the evaluation on the images whose true class is one of ``classes``."""
    is_selected = np.array([name in classes for name in evaluation.classes])[evaluation.labels]
    return Evaluation(evaluation.classes, evaluation.labels[is_selected], evaluation.probabilities[is_selected])


def _name_labels(evaluation: Evaluation) -> np.ndarray:
    return np.asarray(np.array(evaluation.classes)[evaluation.labels])


def _compute_p(only_candidate: int, only_champion: int) -> float:
    from scipy.stats import binomtest  # slow to import

    discordant = only_candidate + only_champion
    if discordant == 0:
        return 1.0
    return float(binomtest(only_candidate, discordant).pvalue)
