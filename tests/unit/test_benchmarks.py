import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.scripts import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import recipes
from accuracy_runs import Entry, ScoredPoint, TrainingRun
from accuracy_summary import format_table, plot_accuracy, summarize_recipes, summarize_runs
from pipeline.data.datasets import Splits, load_splits
from pipeline.evaluation.inference import count_parameters
from pipeline.training.config import DEFAULTS
from pipeline.training.models import build_model
from time_to_accuracy import list_entries

EXAMPLE = Entry("example", {}, seeds=2, endless=True)
CYCLE = Entry("ours", {}, seeds=2)

# Parameters by hand: the published layers, which recipes.py writes anew.
EXAMPLE_PARAMETERS = (32 * 9 + 32) + (64 * 32 * 9 + 64) + (9216 * 128 + 128) + (128 * 10 + 10)
RECORD_PARAMETERS = (24 * 25 + 24) + (32 * 24 * 9 + 32) + (800 * 256 + 256) + (256 * 10 + 10)


@pytest.fixture(scope="module")
def small_splits() -> Splits:
    """Return 320 training and 64 validation images."""
    splits = load_splits("digits", Path(), limit=320)
    return splits._replace(validation=splits.validation.subset(slice(64)))


def make_run(seed: int, *points: tuple[float, float]) -> TrainingRun:
    """Return a run that has one point an epoch, with these seconds and accuracies."""
    scored = []
    for epoch, (seconds, accuracy) in enumerate(points, start=1):
        scored.append(ScoredPoint(seconds, float(epoch), 100 * epoch, accuracy))
    return TrainingRun("name", "source", seed, scored, 3_000_000, 1_000_000, 2, bf16_native=True)


# --- the summary ----------------------------------------------------------------------------------------------------


def test_an_endless_schedule_may_stop_early() -> None:
    runs = [
        make_run(0, (1.0, 0.98), (2.0, 0.992), (3.0, 0.999)),
        make_run(1, (1.5, 0.97), (2.5, 0.988), (3.5, 0.998)),
    ]
    row = summarize_runs(EXAMPLE, runs, (0.98, 0.99, 0.9999))
    assert row.mean_seconds_to == {"98.0": 2.25, "99.0": 2.25, "100.0": None}
    assert row.seconds_to["99.0"] == (2.75, 2)  # the median of 2.0 and 3.5


def test_a_training_stops_at_complete_epochs_only() -> None:
    points = [ScoredPoint(seconds, seconds, 100, 0.991) for seconds in (0.5, 1.0, 1.5)]
    runs = [replace(make_run(seed), points=points) for seed in (0, 1)]
    row = summarize_runs(EXAMPLE, runs, (0.98, 0.99))
    assert row.mean_seconds_to["99.0"] == 1.0
    assert row.seconds_to["99.0"] == (0.5, 2)  # when a run first gets there


def test_a_cycle_counts_only_when_it_is_complete() -> None:
    runs = [make_run(0, (1.0, 0.995), (2.0, 0.98)), make_run(1, (1.0, 0.995), (2.0, 0.981))]
    row = summarize_runs(CYCLE, runs, (0.98, 0.99))
    assert row.mean_seconds_to == {"98.0": 2.0, "99.0": None}


def test_a_target_that_half_the_seeds_miss_is_open() -> None:
    runs = [make_run(0, (1.0, 0.995)), make_run(1, (1.0, 0.98))]
    row = summarize_runs(CYCLE, runs, (0.98, 0.99))
    assert row.seconds_to["99.0"] == (None, 1)


def test_a_row_describes_complete_trainings() -> None:
    runs = [make_run(0, (1.0, 0.9), (3.0, 0.98)), make_run(1, (2.0, 0.9), (4.0, 0.99))]
    row = summarize_runs(CYCLE, runs, (0.98, 0.99))
    assert (row.training_seconds, row.epochs) == (3.5, 2)
    assert row.accuracy == pytest.approx(0.985)
    assert row.spread == pytest.approx(0.00707, abs=1e-5)
    assert row.images_per_second == pytest.approx((200 / 3 + 200 / 4) / 2)


def test_recipes_are_compared_by_seconds_to_target() -> None:
    rows = [
        summarize_runs(CYCLE, [make_run(0, (2.0, 0.991)), make_run(1, (2.0, 0.991))], (0.98, 0.99)),
        summarize_runs(EXAMPLE, [make_run(0, (50.0, 0.98), (200.0, 0.99))], (0.98, 0.99)),
    ]
    result = summarize_recipes(rows, 0.99)
    assert result["times_faster_than_example"] == 100
    assert "times_faster_than_record" not in result  # not measured
    table = format_table(rows, (0.98, 0.99))
    assert "100.0x" in table
    assert "99.10%" in table


def test_a_recipe_without_target_has_no_ratio() -> None:
    rows = [
        summarize_runs(CYCLE, [make_run(0, (2.0, 0.991))], (0.98, 0.99)),
        summarize_runs(EXAMPLE, [make_run(0, (50.0, 0.98))], (0.98, 0.99)),
    ]
    assert summarize_recipes(rows, 0.99)["times_faster_than_example"] is None
    assert "- (0/1)" in format_table(rows, (0.98, 0.99))


def test_the_plot_has_a_line_for_each_entry() -> None:
    runs = [[make_run(0, (2.0, 0.98), (4.0, 0.991))], [make_run(0, (50.0, 0.98), (200.0, 0.99))]]
    targets = (0.98, 0.99)
    rows = [summarize_runs(CYCLE, runs[0], targets), summarize_runs(EXAMPLE, runs[1], targets)]
    (axes,) = plot_accuracy(rows, runs, targets).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["name (99.10%)", "name (99.00%)"]


# --- what is measured -----------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_training() -> None:
    entries = list_entries("fashion-mnist", ["ours"], seeds=2, quick=False)
    settings = entries[0].settings
    assert settings["lr"] == DEFAULTS["fashion-mnist"].lr
    assert settings["augment"] == DEFAULTS["fashion-mnist"].augment
    assert [entry.settings["epochs"] for entry in entries] == [DEFAULTS["fashion-mnist"].epochs, 20]


def test_quick_measures_one_epoch_of_the_example() -> None:
    (entry,) = list_entries("mnist", ["example"], seeds=2, quick=True)
    assert (entry.settings, entry.seeds, entry.endless) == ({"epochs": 1}, 1, True)


@pytest.mark.parametrize(
    ("recipe", "parameters", "images"),
    [
        (recipes.build_example_recipe(epochs=1, points=2), EXAMPLE_PARAMETERS, [192, 384]),
        (recipes.build_record_recipe(points=2), RECORD_PARAMETERS, [256, 384]),
    ],
)
def test_public_recipes_are_as_published(
    recipe: recipes.Recipe, parameters: int, images: list[int], small_splits: Splits
) -> None:
    points = list(recipe.train(small_splits, 0))
    assert count_parameters(points[-1].model) == parameters
    assert points[-1].epoch == 1
    assert [point.images for point in points] == images  # validation images too
    assert 0 < points[0].seconds < points[1].seconds


def test_the_pipeline_recipe_trains_the_configured_network(small_splits: Splits) -> None:
    settings: dict[str, Any] = {"dataset": "digits", "model": "cnn", "lr": 0.01, "augment": ("none",)}
    recipe = recipes.build_pipeline_recipe(epochs=2, batch_size=64, **settings)
    points = list(recipe.train(small_splits, 0))
    expected = build_model("cnn", 10, small_splits.train.images)
    assert [point.images for point in points] == [320, 640]
    assert count_parameters(points[-1].model) == count_parameters(expected)
