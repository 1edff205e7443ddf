import logging
from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pipeline.reports.figures import save_figures


def draw_figure(title: str = "") -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.suptitle(title)
    return figure


def test_figures_are_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_figures(tmp_path, {"a.png": draw_figure, "b.png": draw_figure})
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert caplog.messages == []


def test_figure_that_fails_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_figures(tmp_path, {"bad.png": partial(draw_figure, r"$\nothing$"), "good.png": draw_figure})
    assert [file.name for file in tmp_path.iterdir()] == ["good.png"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("cannot draw bad.png (")
    assert "\n" not in record.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full: only Linux has one")
def test_full_disk_costs_only_the_figure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "big.png").symlink_to("/dev/full")
    save_figures(tmp_path, {"big.png": draw_figure, "small.png": draw_figure})
    assert [file.name for file in tmp_path.iterdir()] == ["small.png"]
    assert "No space left on device" in caplog.text
