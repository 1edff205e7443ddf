"""What a person sees in MLflow's UI, in a real browser without a window; the pictures in README and docs are made here.

    pytest tests/slow/test_ui.py
    make screenshots             # saves the pictures: these tests with SCREENSHOTS=docs/images

It uses the Chromium or Chrome of the machine: apt-get install chromium, or CHROMIUM=/path/to/it.
"""

import os
import platform
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

import pytorch_demo
from pipeline.data.datasets import load_splits
from support.browser import save_screenshot
from support.pipelines import PipelineRun, build_once, copy_digits_pipeline
from support.scripts import call_main
from support.servers import run_mlflow_server

# What MLflow's UI remembers of a person who used it before: chose "Model training", closed what pops up.
RETURNING_VISITOR = """
    localStorage.setItem('_mlflow_model_registry_promo_modal_dismissed_v1', 'true');
    localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""
WIDTH, HEIGHT = 1262, 1000  # pixels
# Removes from the page's text what is true of this machine only: the words in the argument, and absolute paths.
HIDE_MACHINE = r"""(words) => {
    const escaped = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    const local = new RegExp(`(?<!\\w)(${escaped.join('|')})(?!\\w)|(?<!\\S)/[^/\\s]+/\\S+`, 'g');
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (nodes.nextNode()) {
        nodes.currentNode.textContent = nodes.currentNode.textContent.replace(local, '…');
    }
}"""
SaveScreenshot = Callable[[str, int], None]

expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy with other tests


@pytest.fixture(scope="module")
def three_runs(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> PipelineRun:
    """Train two more models beside the one that is promoted. All tests read this store, none changes it."""

    def build(_: Path) -> PipelineRun:
        run = copy_digits_pipeline(tmp_path_factory)
        slow = ("--run-name", "lr 0.002", "--lr", 0.002, "--epochs", 10)
        fast = ("--run-name", "lr 0.05", "--lr", 0.05, "--epochs", 5, "--no-register")
        for options in (slow, fast):
            result = call_main(pytorch_demo.main, "--dataset", "digits", *options, folder=run.folder)
            assert result.code == 0, result
        return run

    run: PipelineRun = build_once(tmp_path_factory, "three_runs", build)[1]
    return run


@pytest.fixture(scope="module")
def address(three_runs: PipelineRun) -> Iterator[str]:
    """Serve the store."""
    with run_mlflow_server(three_runs.folder) as uri:
        yield uri


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    """Open the UI at its list of experiments, in a tab that knows nothing of other tests."""
    viewport = {"width": WIDTH, "height": HEIGHT}
    with browser.new_context(base_url=address, viewport=viewport, locale="en-US", timezone_id="UTC") as context:  # type: ignore[arg-type]
        context.set_default_timeout(30_000)
        context.add_init_script(RETURNING_VISITOR)
        page = context.new_page()
        page.goto("/#/experiments")
        yield page


@pytest.fixture
def screenshot(page: Page) -> SaveScreenshot:
    """Return a function that saves the upper part of the page, if SCREENSHOTS says where."""

    def save(name: str, height: int) -> None:
        if "SCREENSHOTS" not in os.environ:
            return
        page.mouse.move(0, 0)
        page.evaluate(HIDE_MACHINE, [socket.gethostname(), platform.release()])
        image = page.screenshot(
            clip={"x": 0, "y": 0, "width": WIDTH, "height": height},
            animations="disabled",
            style="[data-assistant-ui] { visibility: hidden }",
        )
        save_screenshot(image, name)

    return save


def open_run(page: Page, experiment: str, run: str) -> None:
    """Go from the list of experiments to the run, by clicks."""
    page.get_by_role("link", name=experiment, exact=True).click()
    page.get_by_role("link", name=run, exact=True).click()
    expect(page.get_by_role("heading", name=run, exact=True)).to_be_visible()


def table_row(page: Page, name: str) -> Locator:
    """Return the row of a table that has the link ``name``."""
    link = page.get_by_role("link", name=name, exact=True)
    return page.get_by_role("row").filter(has=link)


def table_cell(page: Page, run: str, column: str) -> Locator:
    """Return a figure in the table of runs. Names and figures are two tables side by side."""
    index = table_row(page, run).get_attribute("row-index")
    return page.locator(f"[role=row][row-index='{index}'] [role=gridcell][col-id*='`{column}`']")


def choose_columns(page: Page) -> None:
    """Show settings and results in the table of runs."""
    page.get_by_role("button", name="Columns").click()
    tree = page.get_by_test_id("column-selector-tree")
    hidden = ("Dataset", "Source", "Models")
    shown = ("validation_accuracy", "test_accuracy", "epochs", "lr")
    for column in (*hidden, *shown):  # a click hides a column that is shown, and shows one that is hidden
        page.get_by_placeholder("Search columns").fill(column)
        tree.get_by_text(column, exact=True).click()
    page.keyboard.press("Escape")


def find_artifact(run: PipelineRun, name: str) -> Path:
    """Return the file that the run logged."""
    (path,) = run.folder.glob(f"mlruns/*/{run.run_id}/artifacts/{name}")
    return path


def test_table_shows_runs_with_settings_and_results(
    page: Page, three_runs: PipelineRun, screenshot: SaveScreenshot
) -> None:
    page.get_by_role("link", name="pytorch-demo", exact=True).click()
    runs = page.get_by_role("link", name=re.compile("^lr "))
    expect(runs).to_have_count(3)
    assert sorted(runs.all_inner_texts()) == ["lr 0.002", "lr 0.01", "lr 0.05"]
    choose_columns(page)
    for run, lr, epochs in (("lr 0.01", "0.01", "40"), ("lr 0.002", "0.002", "10"), ("lr 0.05", "0.05", "5")):
        expect(table_cell(page, run, "lr")).to_have_text(lr)
        expect(table_cell(page, run, "epochs")).to_have_text(epochs)
    accuracy = float(table_cell(page, "lr 0.01", "test_accuracy").inner_text())
    assert accuracy == pytest.approx(three_runs.trained.json["test_accuracy"], abs=0.001)
    screenshot("runs.png", 400)


def test_run_page_shows_metrics_data_and_model(page: Page, three_runs: PipelineRun, screenshot: SaveScreenshot) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    accuracy = str(three_runs.trained.json["test_accuracy"])
    expect(table_row(page, "test_accuracy")).to_contain_text(accuracy)
    expect(table_row(page, "evaluation_accuracy")).to_contain_text(accuracy)
    digest = load_splits("digits", three_runs.folder).train.digest[:32]
    expect(page.get_by_text(f"digits-training ({digest})", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("^digits-classifier"))).to_have_text(re.compile("v1$"))
    screenshot("run.png", 1000)


def test_metrics_are_charted_for_each_epoch(page: Page, screenshot: SaveScreenshot) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("train_|validation_|_rate|images_")
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    metrics = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    metrics += ["learning_rate", "images_per_second"]
    for metric in metrics:
        card = cards.filter(has=page.get_by_title(metric, exact=True))
        expect(card.locator("svg .point")).to_have_count(40)  # a point for each epoch
    screenshot("charts.png", 1000)


def test_confusion_matrix_is_shown_under_artifacts(
    page: Page, three_runs: PipelineRun, screenshot: SaveScreenshot
) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("confusion_matrix.png", exact=True).click()
    image = page.get_by_alt_text("confusion_matrix.png")
    expect(image).to_be_visible()
    expect(image).to_have_js_property("complete", True)
    width, height = Image.open(find_artifact(three_runs, "confusion_matrix.png")).size
    expect(image).to_have_js_property("naturalWidth", width)
    expect(image).to_have_js_property("naturalHeight", height)
    screenshot("artifacts.png", 960)


def test_classification_report_is_shown_as_text(page: Page, three_runs: PipelineRun) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("classification_report.txt", exact=True).click()
    report = find_artifact(three_runs, "classification_report.txt").read_text(encoding="utf-8")
    assert "macro avg" in report
    expect(page.locator("code")).to_have_text(report)


def test_registered_model_names_its_champion(page: Page, screenshot: SaveScreenshot) -> None:
    page.get_by_role("link", name="Model registry").click()
    page.get_by_role("link", name="digits-classifier", exact=True).click()
    versions = page.get_by_role("row").filter(has_text=re.compile(r"^Version \d"))
    expect(versions).to_have_count(2)
    expect(versions.filter(has_text="champion")).to_have_count(1)
    expect(table_row(page, "Version 1")).to_contain_text("@\xa0champion")
    expect(table_row(page, "Version 1")).to_contain_text("gate.decision: promoted")
    expect(table_row(page, "Version 2")).to_contain_text("@\xa0challenger")
    screenshot("model.png", 600)


def test_decision_can_be_read_as_a_run(page: Page, three_runs: PipelineRun, screenshot: SaveScreenshot) -> None:
    open_run(page, "digits-classifier-promotions", "version 1 promoted")
    promoted = three_runs.promoted.json
    expect(page.get_by_role("heading", name="digits-classifier version 1: promoted")).to_be_visible()
    expect(page.get_by_text(promoted["decision_run_id"])).to_be_visible()
    for check in promoted["checks"]:
        expect(table_row(page, check["name"])).to_contain_text(str(check["value"]).removesuffix(".0"))
    expect(page.get_by_text("decision.kind").locator("..")).to_contain_text("promoted")
    screenshot("decision.png", 900)
