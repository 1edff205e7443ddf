"""What a person sees in MLflow's UI, in a real browser without a window; the pictures in README and docs are made here.

    pytest tests/test_ui.py
    make screenshots             # saves the pictures: these tests with SCREENSHOTS=docs/images

It takes Chromium or Chrome from the machine: apt-get install chromium, or CHROMIUM=/path/to/it.
"""

import os
import platform
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Pipeline, once_for_all, own_pipeline, run_script, save_picture, served
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline import data

# What MLflow's UI remembers of a person who has been there before: chose "Model training", closed what pops up.
REMEMBERED = """
    localStorage.setItem('_mlflow_model_registry_promo_modal_dismissed_v1', 'true');
    localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
    localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""
WIDTH, HEIGHT = 1262, 1000
# Leaves out of the page's text what says something of this machine only: the words given, and absolute paths.
ELIDE = r"""(words) => {
    const escaped = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    const local = new RegExp(`(?<!\\w)(${escaped.join('|')})(?!\\w)|(?<!\\S)/[^/\\s]+/\\S+`, 'g');
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (nodes.nextNode()) {
        nodes.currentNode.textContent = nodes.currentNode.textContent.replace(local, '…');
    }
}"""

expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy with other tests


@pytest.fixture(scope="module")
def three_runs(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Train two more models beside the one that is promoted; all tests look at the same store, none changes it."""

    def make(_: Path) -> Pipeline:
        made = own_pipeline(tmp_path_factory)
        train = ("pytorch_demo.py", "--dataset", "digits")
        others = (
            ("--run-name", "lr 0.002", "--lr", 0.002, "--epochs", 10),
            ("--run-name", "lr 0.05", "--lr", 0.05, "--epochs", 5, "--no-register"),
        )
        for options in others:
            result = run_script(made.folder, *train, *options)
            assert result.code == 0, result
        return made

    made: Pipeline = once_for_all(tmp_path_factory, "three_runs", make)[1]
    return made


@pytest.fixture(scope="module")
def address(three_runs: Pipeline) -> Iterator[str]:
    """Serve the store."""
    with served(three_runs.folder) as uri:
        yield uri


@pytest.fixture
def page(address: str, browser: Browser) -> Iterator[Page]:
    """Open the UI at its list of experiments, in a tab that knows nothing of other tests."""
    with browser.new_context(
        base_url=address, viewport={"width": WIDTH, "height": HEIGHT}, locale="en-US", timezone_id="UTC"
    ) as context:
        context.set_default_timeout(30_000)
        context.add_init_script(REMEMBERED)
        page = context.new_page()
        page.goto("/#/experiments")
        yield page


@pytest.fixture
def picture(page: Page) -> Callable[[str, int], None]:
    """Return a function that saves the upper part of what is on the page where SCREENSHOTS says."""

    def save(name: str, height: int) -> None:
        if "SCREENSHOTS" in os.environ:
            page.mouse.move(0, 0)
            page.evaluate(ELIDE, [socket.gethostname(), platform.release()])
            image = page.screenshot(
                clip={"x": 0, "y": 0, "width": WIDTH, "height": height},
                animations="disabled",
                style="[data-assistant-ui] { visibility: hidden }",
            )
            save_picture(image, name)

    return save


def open_run(page: Page, experiment: str, run: str) -> None:
    """Go from the list of experiments to the run, by clicks."""
    page.get_by_role("link", name=experiment, exact=True).click()
    page.get_by_role("link", name=run, exact=True).click()
    expect(page.get_by_role("heading", name=run, exact=True)).to_be_visible()


def row(page: Page, name: str) -> Locator:
    """Return the row of a table that the link ``name`` stands in."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def artifact(made: Pipeline, name: str) -> Path:
    """Return the file that the run logged."""
    (path,) = made.folder.glob(f"mlruns/*/{made.run_id}/artifacts/{name}")
    return path


def test_the_table_of_the_experiment_has_the_three_runs_with_settings_and_results(
    page: Page, three_runs: Pipeline, picture: Callable[[str, int], None]
) -> None:
    page.get_by_role("link", name="pytorch-demo", exact=True).click()
    runs = page.get_by_role("link", name=re.compile("^lr "))
    expect(runs).to_have_count(3)
    assert sorted(runs.all_inner_texts()) == ["lr 0.002", "lr 0.01", "lr 0.05"]

    page.get_by_role("button", name="Columns").click()
    tree = page.get_by_test_id("column-selector-tree")
    shown = ("validation_accuracy", "test_accuracy", "epochs", "lr")
    for column in ("Dataset", "Source", "Models", *shown):  # the first three are there and go, the others come
        page.get_by_placeholder("Search columns").fill(column)
        tree.get_by_text(column, exact=True).click()
    page.keyboard.press("Escape")

    def cell(run: str, column: str) -> Locator:
        index = row(page, run).get_attribute("row-index")  # name and figures are two tables side by side
        return page.locator(f"[role=row][row-index='{index}'] [role=gridcell][col-id*='{column}']")

    for run, rate, epochs in (("lr 0.01", "0.01", "20"), ("lr 0.002", "0.002", "10"), ("lr 0.05", "0.05", "5")):
        expect(cell(run, "`lr`")).to_have_text(rate)
        expect(cell(run, "`epochs`")).to_have_text(epochs)
    accuracy = float(cell("lr 0.01", "`test_accuracy`").inner_text())
    assert accuracy == pytest.approx(three_runs.trained.json["test_accuracy"], abs=0.001)
    picture("runs.png", 400)


def test_a_run_shows_its_metrics_its_data_with_digest_and_its_registered_model(
    page: Page, three_runs: Pipeline, picture: Callable[[str, int], None]
) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    accuracy = str(three_runs.trained.json["test_accuracy"])
    expect(row(page, "test_accuracy")).to_contain_text(accuracy)
    expect(row(page, "evaluation_accuracy")).to_contain_text(accuracy)
    digest = data.load("digits", three_runs.folder).train.digest[:32]
    expect(page.get_by_text(f"digits-training ({digest})", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("^digits-classifier"))).to_have_text(re.compile("v1$"))
    picture("run.png", 1000)


def test_a_run_charts_its_metrics_epoch_by_epoch(page: Page, picture: Callable[[str, int], None]) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("train_|validation_|_rate|images_")
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    metrics = [f"{split}_{metric}" for split in ("train", "validation") for metric in ("loss", "accuracy")]
    metrics += ["learning_rate", "images_per_second"]
    expect(cards).to_have_count(len(metrics))
    for metric in metrics:
        card = cards.filter(has=page.get_by_title(metric, exact=True))
        expect(card.locator("svg .point")).to_have_count(20)  # a point for each epoch
    picture("charts.png", 1000)


def test_the_confusion_matrix_is_shown_under_artifacts(
    page: Page, three_runs: Pipeline, picture: Callable[[str, int], None]
) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("confusion_matrix.png", exact=True).click()
    image = page.get_by_alt_text("confusion_matrix.png")
    expect(image).to_be_visible()
    expect(image).to_have_js_property("complete", True)
    width, height = Image.open(artifact(three_runs, "confusion_matrix.png")).size
    expect(image).to_have_js_property("naturalWidth", width)
    expect(image).to_have_js_property("naturalHeight", height)
    picture("artifacts.png", 960)


def test_the_classification_report_is_shown_as_text_under_artifacts(page: Page, three_runs: Pipeline) -> None:
    open_run(page, "pytorch-demo", "lr 0.01")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("classification_report.txt", exact=True).click()
    report = artifact(three_runs, "classification_report.txt").read_text(encoding="utf-8")
    assert "macro avg" in report
    expect(page.locator("code")).to_have_text(report)


def test_the_registered_model_says_which_version_is_champion(page: Page, picture: Callable[[str, int], None]) -> None:
    page.get_by_role("link", name="Model registry").click()
    page.get_by_role("link", name="digits-classifier", exact=True).click()
    versions = page.get_by_role("row").filter(has_text=re.compile(r"^Version \d"))
    expect(versions).to_have_count(2)
    expect(versions.filter(has_text="champion")).to_have_count(1)
    expect(row(page, "Version 1")).to_contain_text("@\xa0champion")
    expect(row(page, "Version 1")).to_contain_text("gate.decision: promoted")
    expect(row(page, "Version 2")).to_contain_text("@\xa0challenger")
    picture("model.png", 600)


def test_the_decision_can_be_read_in_the_experiment_of_promotions(
    page: Page, three_runs: Pipeline, picture: Callable[[str, int], None]
) -> None:
    open_run(page, "digits-classifier-promotions", "version 1 promoted")
    promoted = three_runs.promoted.json
    expect(page.get_by_role("heading", name="digits-classifier version 1: promoted")).to_be_visible()
    expect(page.get_by_text(promoted["decision_run_id"])).to_be_visible()
    for check in promoted["checks"]:
        expect(row(page, check["name"])).to_contain_text(str(check["value"]))
    expect(page.get_by_text("decision.kind").locator("..")).to_contain_text("promoted")
    picture("decision.png", 900)
