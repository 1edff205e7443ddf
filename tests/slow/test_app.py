"""The page to draw on, in a real browser, with a model that was trained on MNIST."""

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import app
from pipeline.data.datasets import load_test_split
from pipeline.production.page import DELETE_FILES
from pipeline.tracking import registry
from support.browser import save_screenshot
from support.files import png_bomb
from support.pad import DIGITS, draw
from support.pipelines import PipelineRun, copy_mnist_pipeline
from support.scripts import ROOT, call_main
from support.servers import find_free_port, is_listening, run_server

expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy with other tests

NAME = "mnist-classifier"
INVITATION = "Draw something, or drop a picture."
ONE, SEVEN, ZERO = DIGITS["1"], DIGITS["7"], DIGITS["0"]


@dataclass
class RunningApp:
    """The app, on a store with a model of MNIST in Production.

    Attributes
    ----------
    pipeline : the store.
    port : of the page.
    data : the directory with MNIST.
    temporary : the folder for temporary files.
    process_id : of the app.
    """

    pipeline: PipelineRun
    port: int
    data: Path
    temporary: Path
    process_id: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def running_app(chromium: str, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    pipeline = copy_mnist_pipeline(tmp_path_factory, real_data)
    port = find_free_port()
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    env = {**os.environ, "TMPDIR": str(temporary)}
    with run_server(command, pipeline.folder, lambda: is_listening(port), env) as process:
        yield RunningApp(pipeline, port, real_data, temporary, process.pid)


@pytest.fixture
def page(running_app: RunningApp, browser: Browser) -> Iterator[Page]:
    """Open the page and wait until one can draw on it."""
    with browser.new_context(viewport={"width": 1100, "height": 820}, locale="en-US") as context:
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.goto(running_app.url)
        expect(page.locator("#message")).to_have_text(INVITATION)
        expect(page.get_by_text("select the draw tool")).not_to_be_visible()
        yield page


def drop(page: Page, file: Path) -> None:
    page.set_input_files("#file input[type=file]", file)


def expect_message(page: Page, text: str) -> None:
    expect(page.locator("#message")).to_contain_text(text)


def list_files(folder: Path) -> list[Path]:
    """Return the files below the folder that are not empty, except PyTorch's."""
    files = [file for file in folder.rglob("*") if "torchinductor" not in str(file)]
    return [file for file in files if file.is_file() and file.stat().st_size]


def wait_until_deleted(folder: Path) -> None:
    """Wait until there are no files: those of drawings are deleted after a minute, and the machine may be busy."""
    deadline = time.monotonic() + 150
    while list_files(folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert list_files(folder) == []


# --- drawings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digit", DIGITS)
def test_drawn_digit_is_recognised(page: Page, digit: str) -> None:
    draw(page, DIGITS[digit])
    expect_message(page, f"It looks like {digit} (")
    expect(page.locator("#model")).to_have_text(f"{NAME}, version 1, in Production")


def test_every_class_has_a_bar(page: Page) -> None:
    draw(page, ZERO)
    bars = page.locator("[data-testid$=confidence-set]")
    expect(bars).to_have_count(10)
    shown = {bar.get_attribute("data-testid") for bar in bars.all()}
    assert shown == {f"{digit}-confidence-set" for digit in range(10)}


def test_model_input_is_shown(page: Page) -> None:
    draw(page, SEVEN)
    picture = page.get_by_alt_text("what the model saw")
    expect(picture).to_be_visible()
    size = page.evaluate("image => [image.naturalWidth, image.naturalHeight]", picture.element_handle())
    assert size == [28, 28]
    page.mouse.move(0, 0)
    save_screenshot(page.screenshot(animations="disabled"), "app.png")


def test_cleared_page_invites_again(page: Page) -> None:
    draw(page, ONE)
    expect_message(page, "It looks like 1")
    page.get_by_role("button", name="Clear canvas").click()
    expect(page.locator("#message")).to_have_text(INVITATION)
    expect(page.locator("#pictures img")).to_have_count(0)
    draw(page, SEVEN)  # the brush is still selected
    expect_message(page, "It looks like 7")


def test_answer_is_above_the_fold_on_a_phone(running_app: RunningApp, browser: Browser) -> None:
    with browser.new_context(viewport={"width": 390, "height": 664}, locale="en-US") as context:
        page = context.new_page()
        page.goto(running_app.url)
        expect(page.locator("#message")).to_have_text(INVITATION)
        expect(page.get_by_text("select the draw tool")).not_to_be_visible()
        draw(page, SEVEN)
        expect_message(page, "It looks like 7 (")
        expect(page.locator("#message")).to_be_in_viewport(ratio=1)
        expect(page.locator("#pad canvas").first).to_be_in_viewport(ratio=0.9)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_dropped_picture_is_answered_and_deleted(
    page: Page, running_app: RunningApp, real_data: Path, tmp_path: Path
) -> None:
    seven = load_test_split("mnist", real_data).images[0, 0].numpy()
    Image.fromarray(255 - seven).resize((300, 300)).save(tmp_path / "my seven.png")
    drop(page, tmp_path / "my seven.png")
    expect_message(page, "It looks like 7")
    expect(page.get_by_alt_text("your picture")).to_be_visible()
    expect(page.get_by_alt_text("what the model saw")).to_be_visible()
    wait_until_deleted(running_app.temporary)


def test_refused_picture_is_shown_with_the_reason(page: Page, tmp_path: Path) -> None:
    Image.new("L", (300, 200), 190).save(tmp_path / "grey.png")
    drop(page, tmp_path / "grey.png")
    expect_message(page, "This cannot be read: ")
    expect(page.get_by_alt_text("your picture")).to_be_visible()
    expect(page.get_by_alt_text("what the model saw")).to_have_count(0)


def test_picture_that_waits_is_not_deleted() -> None:
    _, age = DELETE_FILES
    assert age >= 60


def test_text_is_refused(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    drop(page, tmp_path / "text.png")
    expect_message(page, "This cannot be read: it is not a picture in PNG")


def test_decompression_bomb_is_refused(page: Page, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_bomb(8_000))
    drop(page, bomb)
    expect_message(page, "8,000 x 8,000 pixels are more than 25,000,000")


def ask_about_drawing(page: Page, url: str, content: bytes) -> str:
    """Send a drawing as the page does, and return what the server answers."""
    config = page.request.get(f"{url}/config").json()
    pad = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "pad")
    event = next(part["id"] for part in config["dependencies"] if [pad, "change"] in part["targets"])
    form: dict[str, Any] = {"component_id": str(pad), "fn_name": "accept_blobs", "session_hash": "hostile"}
    form |= {"type": "composite", "index": "", "id": "drawing"}
    form["files"] = {"name": "blob.png", "mimeType": "image/png", "buffer": content}
    assert page.request.post(f"{url}/gradio_api/component_server", multipart=form).ok
    data: list[Any] = [NAME, {"background": None, "layers": [], "composite": None, "id": "drawing"}]
    body = {"data": data, "fn_index": event, "session_hash": "hostile"}
    assert page.request.post(f"{url}/gradio_api/queue/join", data=body).ok
    return page.request.get(f"{url}/gradio_api/queue/data?session_hash=hostile").text()


def read_peak_memory(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def test_bomb_sent_as_a_drawing_is_refused(page: Page, running_app: RunningApp) -> None:
    draw(page, ONE)
    expect_message(page, "It looks like 1")
    before = read_peak_memory(running_app.process_id)
    answer = ask_about_drawing(page, running_app.url, png_bomb(13_300))
    assert "13,300 x 13,300 pixels are more than 25,000,000" in answer
    assert read_peak_memory(running_app.process_id) - before < 100e6


def test_drawing_is_answered_over_http(page: Page, running_app: RunningApp) -> None:
    seven = load_test_split("mnist", running_app.data).images[0, 0].numpy()
    content = io.BytesIO()
    Image.fromarray(255 - seven).resize((300, 300)).save(content, "PNG")
    assert "It looks like 7 (" in ask_about_drawing(page, running_app.url, content.getvalue())


def test_large_file_is_refused_and_deleted(page: Page, running_app: RunningApp, tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (2000, 2000), os.urandom(12_000_000))
    noise.save(tmp_path / "noise.bmp")
    drop(page, tmp_path / "noise.bmp")
    refusal = re.compile("File size exceeds|too large|maximum", re.IGNORECASE)
    expect(page.get_by_text(refusal).first).to_be_visible()
    wait_until_deleted(running_app.temporary)


# --- the model ------------------------------------------------------------------------------------------------------


def test_new_version_is_loaded(page: Page, running_app: RunningApp) -> None:
    draw(page, SEVEN)
    expect_message(page, "Version 1 says so")
    pipeline = running_app.pipeline
    mlflow.set_tracking_uri(f"sqlite:///{pipeline.folder}/mlflow.db")
    client = MlflowClient()
    model_id = pipeline.model_uri.removeprefix("models:/")
    version = client.create_model_version(NAME, pipeline.model_uri, pipeline.run_id, model_id=model_id).version
    client.set_registered_model_alias(NAME, registry.CHAMPION, version)
    expect(page.locator("#model")).to_have_text(f"{NAME}, version {version}, in Production")
    draw(page, SEVEN)
    expect_message(page, f"Version {version} says so")
    client.set_registered_model_alias(NAME, registry.CHAMPION, "1")
    expect(page.locator("#model")).to_have_text(f"{NAME}, version 1, in Production")


# --- the process ----------------------------------------------------------------------------------------------------


def test_app_listens_on_this_machine_only(running_app: RunningApp) -> None:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{running_app.port:04X}")}
    assert "0100007F" in addresses  # 127.0.0.1
    assert "00000000" not in addresses


def test_files_of_the_machine_stay_private(page: Page, running_app: RunningApp) -> None:
    secret = running_app.pipeline.folder / "mlflow.db"
    request = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}]}
    page.request.post(f"{running_app.url}/gradio_api/call/ask_file", data=request)
    response = page.request.get(f"{running_app.url}/gradio_api/file={secret}")
    assert response.status in (403, 404)
    assert secret.exists()


def test_empty_store_is_an_error(store: Path) -> None:
    assert "this store has none: train one first" in call_main(app.main).error


def test_taken_port_is_an_error(running_app: RunningApp) -> None:
    result = call_main(app.main, "--port", running_app.port, folder=running_app.pipeline.folder)
    assert result.error == f"error: port {running_app.port} is taken; choose another with --port"


def test_ctrl_c_ends_the_app(running_app: RunningApp) -> None:
    """The last test: it ends the app that the others use."""
    os.kill(running_app.process_id, signal.SIGINT)
    _, status = os.waitpid(running_app.process_id, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert "stopped" in (running_app.pipeline.folder / "server.log").read_text()
    assert list_files(running_app.temporary) == []
