import math

import numpy as np
import pytest

from pipeline.evaluation.metrics import Evaluation
from pipeline.promotion.comparison import Comparison, compare_models
from support.promotions import PETS, evaluate_pets


def test_discordant_pairs_are_counted() -> None:
    labels = np.zeros(4, int)
    candidate = Evaluation(PETS, labels, np.eye(2)[[0, 0, 1, 1]])
    champion = Evaluation(PETS, labels, np.eye(2)[[0, 1, 0, 1]])
    comparison = compare_models(candidate, champion)
    assert (comparison.candidate_correct, comparison.champion_correct, comparison.images) == (2, 2, 4)
    assert (comparison.only_candidate, comparison.only_champion) == (1, 1)


# exact p of 0 to 5 discordant pairs is 2 / 2**5 = 0.0625, of 0 to 6 it is 2 / 2**6 = 0.03125
@pytest.mark.parametrize("difference", [5, 6])
def test_p_is_that_of_a_fair_coin(difference: int) -> None:
    comparison = compare_models(evaluate_pets(100, 100), evaluate_pets(100 - difference, 100))
    assert comparison.p == 2 / 2**difference


def test_equal_answers_have_p_one() -> None:
    evaluation = evaluate_pets(9, 10)
    assert compare_models(evaluation, evaluation).p == 1


def test_p_is_unknown_if_a_probability_is() -> None:
    broken = Evaluation(PETS, np.zeros(2, int), np.full((2, 2), math.nan))
    usable = Evaluation(PETS, np.zeros(2, int), np.eye(2))
    comparison = compare_models(broken, usable)
    assert math.isnan(comparison.p)
    assert not comparison.is_better(0.05)
    assert not comparison.is_worse(0.05)


def test_significance_has_a_direction() -> None:
    better = Comparison(100, 94, 100, only_candidate=6, only_champion=0, p=0.03)
    worse = Comparison(94, 100, 100, only_candidate=0, only_champion=6, p=0.03)
    assert (better.is_better(0.05), better.is_worse(0.05)) == (True, False)
    assert (worse.is_better(0.05), worse.is_worse(0.05)) == (False, True)
    assert not better.is_better(0.01)


def evaluate_names(classes: tuple[str, ...], labels: list[str], predictions: list[str]) -> Evaluation:
    """Return a model that knows ``classes`` and gives these answers to images with these labels."""
    indices = [classes.index(name) for name in labels]
    return Evaluation(classes, np.array(indices), np.eye(len(classes))[[classes.index(name) for name in predictions]])


def test_other_order_of_classes_does_not_matter() -> None:
    candidate = evaluate_names(("cat", "dog"), ["cat", "dog"], ["cat", "cat"])
    champion = evaluate_names(("dog", "cat"), ["cat", "dog"], ["dog", "dog"])
    comparison = compare_models(candidate, champion)
    assert (comparison.only_candidate, comparison.only_champion, comparison.left_out) == (1, 1, ())


def test_images_of_unknown_classes_are_left_out() -> None:
    candidate = evaluate_names(("cat", "dog", "owl"), ["cat", "owl", "dog", "owl"], ["cat", "owl", "owl", "owl"])
    champion = evaluate_names(("ant", "cat", "dog"), ["cat", "dog"], ["cat", "dog"])
    comparison = compare_models(candidate, champion)
    assert (comparison.images, comparison.candidate_correct, comparison.champion_correct) == (2, 1, 2)
    assert comparison.left_out == ("ant", "owl")
    assert str(comparison).endswith("on the 2 images of the classes that both know")


def test_answers_to_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not evaluated on the same images"):
        compare_models(evaluate_pets(9, 10), evaluate_pets(9, 11))
