"""The page to draw on, in a real browser, with a model trained on MNIST."""

import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from conftest import DATA_DIR, ROOT, Pipeline, bomb, call, free_port, listens, own_mnist, running_server, save_picture
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import app
from pipeline import data, registry

expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy with other tests

INVITATION = "Draw something, or drop a picture."
# Strokes as a hand makes them: corners and turns in shares of the paper's width and height.
ONE = [[(0.52, 0.2), (0.48, 0.8)]]
SEVEN = [[(0.3, 0.22), (0.7, 0.22), (0.48, 0.8)]]
ZERO = [
    [(0.5 + 0.18 * math.sin(turn / 10 * math.pi), 0.5 - 0.28 * math.cos(turn / 10 * math.pi)) for turn in range(21)]
]


@dataclass
class Running:
    """The app, running on a store with a model of MNIST in Production; ``temporary`` is where it may write."""

    pipeline: Pipeline
    port: int
    temporary: Path
    process: int


@pytest.fixture(scope="module")
def running(chromium: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start the app."""
    pipeline, port, temporary = own_mnist(tmp_path_factory), free_port(), tmp_path_factory.mktemp("temporary")
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    with running_server(
        command, pipeline.folder, lambda: listens(port), os.environ | {"TMPDIR": str(temporary)}
    ) as process:
        yield Running(pipeline, port, temporary, process.pid)


@pytest.fixture
def page(running: Running, browser: Browser) -> Iterator[Page]:
    """Open the page; its paper is ready to be drawn on."""
    with browser.new_context(viewport={"width": 1100, "height": 820}, locale="en-US") as context:
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{running.port}")
        expect(page.locator("#message")).to_have_text(INVITATION)
        expect(page.get_by_text("select the draw tool")).not_to_be_visible()
        yield page


def draw(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw with the mouse on the paper, a square in the middle of the pad."""
    box = page.locator("#pad canvas").first.bounding_box()
    assert box is not None
    side = 0.8 * min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    for stroke in strokes:
        (x, y), *rest = [(left + side * x, top + side * y) for x, y in stroke]
        page.mouse.move(x, y)
        page.mouse.down()
        for x, y in rest:
            page.mouse.move(x, y, steps=2)
        page.mouse.up()


@pytest.mark.parametrize(("digit", "strokes"), [("1", ONE), ("7", SEVEN), ("0", ZERO)])
def test_a_digit_drawn_with_the_mouse_is_recognised(
    page: Page, digit: str, strokes: list[list[tuple[float, float]]]
) -> None:
    draw(page, strokes)
    expect(page.locator("#message")).to_contain_text(f"It looks like {digit} (")
    expect(page.locator("#model")).to_have_text("mnist-classifier, version 1, in Production")
    bars = page.locator("[data-testid$=confidence-set]")
    expect(bars).to_have_count(10)
    assert {bar.get_attribute("data-testid") for bar in bars.all()} == {f"{n}-confidence-set" for n in range(10)}
    seen = page.locator("#seen img")
    expect(seen).to_be_visible()
    assert page.evaluate("image => [image.naturalWidth, image.naturalHeight]", seen.element_handle()) == [28, 28]
    if digit == "7":
        page.mouse.move(0, 0)
        save_picture(page.screenshot(animations="disabled"), "app.png")


def test_an_empty_paper_gets_an_invitation_and_a_cleared_one_again(page: Page) -> None:
    draw(page, ONE)
    expect(page.locator("#message")).to_contain_text("It looks like 1")
    page.get_by_role("button", name="Clear canvas").click()
    expect(page.locator("#message")).to_have_text(INVITATION)
    expect(page.locator("#seen img")).to_have_count(0)
    draw(page, SEVEN)  # the brush is still in hand
    expect(page.locator("#message")).to_contain_text("It looks like 7")


def test_a_picture_that_is_dropped_is_answered_and_forgotten(page: Page, running: Running, tmp_path: Path) -> None:
    test = data.load_test("mnist", DATA_DIR)
    picture = Image.fromarray(255 - test.images[0, 0].numpy()).resize((300, 300))
    picture.save(tmp_path / "seven of mine.png")
    page.set_input_files("#file input[type=file]", tmp_path / "seven of mine.png")
    expect(page.locator("#message")).to_contain_text("It looks like 7")
    assert is_forgotten(running.temporary)
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#file input[type=file]", tmp_path / "text.png")
    expect(page.locator("#message")).to_contain_text("This cannot be read: it is no PNG")


def test_a_decompression_bomb_and_a_file_too_large_are_refused(page: Page, running: Running, tmp_path: Path) -> None:
    small = tmp_path / "bomb.png"
    small.write_bytes(bomb(12_000))
    assert small.stat().st_size < 1_000_000
    page.set_input_files("#file input[type=file]", small)
    expect(page.locator("#message")).to_contain_text("12,000 x 12,000 pixels are more than 50,000,000")
    noise = tmp_path / "noise.bmp"
    Image.frombytes("RGB", (2000, 2000), os.urandom(12_000_000)).save(noise)
    page.set_input_files("#file input[type=file]", noise)
    expect(page.get_by_text(re.compile("File size exceeds|too large|maximum", re.IGNORECASE)).first).to_be_visible()
    assert is_forgotten(running.temporary)


def files_in(folder: Path) -> list[Path]:
    """Return the files in the folder that hold something, but for those that PyTorch makes."""
    found = [file for file in folder.rglob("*") if "torchinductor" not in str(file)]
    return [file for file in found if file.is_file() and file.stat().st_size]


def is_forgotten(folder: Path) -> bool:
    """Return whether the files in the folder go within a minute; the app says 15 seconds, the machine may be busy."""
    end = time.monotonic() + 60
    while files_in(folder) and time.monotonic() < end:
        time.sleep(0.5)
    return not files_in(folder)


def test_a_newly_promoted_version_is_noticed_without_a_reload(page: Page, running: Running) -> None:
    draw(page, SEVEN)
    expect(page.locator("#message")).to_contain_text("Version 1 says so")
    mlflow.set_tracking_uri(f"sqlite:///{running.pipeline.folder}/mlflow.db")
    client = MlflowClient()
    run_id, name = running.pipeline.run_id, "mnist-classifier"
    model_uri = running.pipeline.trained.json["model_uri"]
    version = client.create_model_version(name, model_uri, run_id, model_id=model_uri.removeprefix("models:/"))
    client.set_registered_model_alias(name, registry.CHAMPION, version.version)
    expect(page.locator("#model")).to_have_text(f"mnist-classifier, version {version.version}, in Production")
    draw(page, [[(0.2, 0.5), (0.25, 0.5)]])
    expect(page.locator("#message")).to_contain_text(f"Version {version.version} says so")
    client.set_registered_model_alias(name, registry.CHAMPION, "1")
    expect(page.locator("#model")).to_have_text("mnist-classifier, version 1, in Production")


def test_it_listens_on_this_machine_only_and_reads_no_file_of_it(page: Page, running: Running) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {line[1].partition(":")[0] for line in listening if line[1].endswith(f":{running.port:04X}")}
    assert "00000000" not in addresses and "0100007F" in addresses
    secret = running.pipeline.folder / "mlflow.db"
    asked = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}]}
    page.request.post(f"http://127.0.0.1:{running.port}/gradio_api/call/ask_file", data=asked)
    got = page.request.get(f"http://127.0.0.1:{running.port}/gradio_api/file={secret}")
    assert got.status in (403, 404)
    assert secret.exists()


def test_what_keeps_it_from_starting_is_one_line(
    running: Running, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "this store has none: train one first" in call(app.main).error
    taken = call(app.main, "--port", running.port, folder=running.pipeline.folder).error
    assert taken == f"error: port {running.port} is taken; choose another with --port"


def test_ctrl_c_ends_it(running: Running) -> None:
    """The last one: it ends the app of the others."""
    os.kill(running.process, signal.SIGINT)
    assert os.waitpid(running.process, 0)[1] == 130 << 8
    assert "stopped" in (running.pipeline.folder / "server.log").read_text()
    assert files_in(running.temporary) == []
