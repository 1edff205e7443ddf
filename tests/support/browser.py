"""The browser that looks at MLflow's UI and at the app."""

import io
import os

from PIL import Image

from support.scripts import ROOT

CHROMIUM_FLAGS = (
    "--no-sandbox",  # it refuses to start as root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a test must not reach the network
)


def save_screenshot(screenshot: bytes, name: str) -> None:
    """Save a screenshot in the folder that the variable SCREENSHOTS names, if it is set."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    image.quantize(256).save(ROOT / folder / name, optimize=True)  # 256 colours: a third of the bytes
