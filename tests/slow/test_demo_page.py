"""What a newcomer sees after `make demo` and `make app`: the model of the bundled digits reads what the mouse draws."""

import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from support.pad import DIGITS, draw
from support.pipelines import copy_digits_pipeline
from support.scripts import ROOT
from support.servers import find_free_port, is_listening, run_server

TIMEOUT = 60_000  # milliseconds; the machine may be busy with other tests


@pytest.fixture
def address(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pipeline = copy_digits_pipeline(tmp_path_factory)
    port = find_free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    with run_server(command, pipeline.folder, lambda: is_listening(port)):
        yield f"http://127.0.0.1:{port}"


def test_ten_drawn_digits_are_read(address: str, browser: Browser) -> None:
    with browser.new_context(viewport={"width": 1100, "height": 820}, locale="en-US") as context:
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        page.goto(address)
        message = page.locator("#message")
        for digit, strokes in DIGITS.items():
            expect(message).to_have_text("Draw something, or drop a picture.", timeout=TIMEOUT)
            expect(page.get_by_text("select the draw tool")).not_to_be_visible(timeout=TIMEOUT)
            draw(page, strokes)
            expect(message).to_contain_text(f"It looks like {digit} (", timeout=TIMEOUT)
            page.get_by_role("button", name="Clear canvas").click()
