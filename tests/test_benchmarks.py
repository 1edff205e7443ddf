import dataclasses
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import recipes  # noqa: E402 - from there
import time_to_accuracy as bench  # noqa: E402

from pipeline import data, model  # noqa: E402
from pipeline.data import Splits  # noqa: E402
from pipeline.evaluation import parameters  # noqa: E402


@pytest.fixture(scope="module")
def small() -> Splits:
    splits = data.load("digits", Path())
    return splits._replace(train=splits.train.take(slice(320)), validation=splits.validation.take(slice(64)))


def run(seed: int, *points: tuple[float, float]) -> bench.Run:
    """Return a run whose points, one an epoch, have these seconds and accuracies."""
    measured = [
        bench.Measured(seconds, float(epoch), 100 * epoch, accuracy)
        for epoch, (seconds, accuracy) in enumerate(points, 1)
    ]
    return bench.Run("name", "source", seed, measured, 3_000_000, 1_000_000, 2, True)


ENDLESS = bench.Entry("example", {}, 2, endless=True)
CYCLE = bench.Entry("ours", {}, 2)


def test_an_endless_schedule_may_stop_at_the_first_point_whose_mean_reaches_the_target() -> None:
    runs = [run(0, (1.0, 0.98), (2.0, 0.992), (3.0, 0.999)), run(1, (1.5, 0.97), (2.5, 0.988), (3.5, 0.998))]
    row = bench.summarise(ENDLESS, runs, (0.98, 0.99, 0.9999))
    assert row.mean_seconds_to == {"98.0": 2.25, "99.0": 2.25, "100.0": None}
    assert row.seconds_to["99.0"] == (2.75, 2)  # the median of 2.0 and 3.5
    assert row.accuracy == pytest.approx(0.9985)
    assert (row.training_seconds, row.epochs) == (3.25, 3)


def test_a_training_does_not_stop_within_an_epoch() -> None:
    points = [bench.Measured(seconds, seconds, 100, 0.991) for seconds in (0.5, 1.0, 1.5)]
    runs = [dataclasses.replace(run(seed), points=points) for seed in (0, 1)]
    row = bench.summarise(ENDLESS, runs, (0.98, 0.99))
    assert row.mean_seconds_to["99.0"] == 1.0
    assert row.seconds_to["99.0"] == (0.5, 2)  # where a run first gets there is told too


def test_a_cycle_of_the_learning_rate_counts_only_where_it_closes() -> None:
    runs = [run(0, (1.0, 0.995), (2.0, 0.98)), run(1, (1.0, 0.995), (2.0, 0.981))]
    row = bench.summarise(CYCLE, runs, (0.98, 0.99))
    assert row.mean_seconds_to == {"98.0": 2.0, "99.0": None}


def test_the_ratio_is_of_the_seconds_to_the_target() -> None:
    rows = [
        bench.summarise(CYCLE, [run(0, (2.0, 0.991)), run(1, (2.0, 0.991))], (0.98, 0.99)),
        bench.summarise(ENDLESS, [run(0, (50.0, 0.98), (200.0, 0.99))], (0.98, 0.99)),
    ]
    result = bench.headline(rows, 0.99)
    assert result["times_faster_than_example"] == 100
    assert "times_faster_than_record" not in result  # not measured
    text = bench.table(rows, (0.98, 0.99))
    assert "100.0x" in text
    assert "99.10%" in text


# Parameters by hand: the published layers, which are written anew in recipes.py.
EXAMPLE = (32 * 9 + 32) + (64 * 32 * 9 + 64) + (9216 * 128 + 128) + (128 * 10 + 10)
RECORD = (24 * 25 + 24) + (32 * 24 * 9 + 32) + (800 * 256 + 256) + (256 * 10 + 10)


@pytest.mark.parametrize(
    ("recipe", "size", "batches"),
    [(recipes.example(epochs=1, points=2), EXAMPLE, 6), (recipes.record(points=2), RECORD, 2)],
)
def test_public_recipes_have_the_published_layers_and_see_every_image(
    recipe: recipes.Recipe, size: int, batches: int, small: Splits
) -> None:
    points = list(recipe.train(small, 0))
    assert parameters(points[-1].model) == size
    assert (points[-1].epoch, points[-1].images) == (1, 384)  # they hold no validation set out
    assert points[0].images == 384 * (batches // 2) // batches or points[0].images == 256
    assert 0 < points[0].seconds < points[1].seconds


def test_ours_is_the_training_of_the_pipeline(small: Splits) -> None:
    recipe = recipes.ours(model="cnn", epochs=2, batch_size=64, lr=0.01, weight_decay=0.05, augment=["none"])
    points = list(recipe.train(small, 0))
    assert [point.images for point in points] == [320, 640]
    expected = model.build("cnn", 10, small.train.images)
    assert parameters(points[-1].model) == parameters(expected)
