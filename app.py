"""A page to draw on: the model in Production says what it is. Loads a newly promoted one by itself.

    python app.py                                            http://127.0.0.1:7860
    python app.py --model-name letters-classifier --port 8000
    python app.py --host 0.0.0.0                             for others too; there is no login

What is drawn or dropped is deleted within 15 seconds.
"""

import argparse
import base64
import io
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import UserError, cli

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from pipeline.tracking import StoredModel

FORGET = (5, 10)  # every 5 seconds what is older than 10 is deleted; Gradio puts drawings, too, into files
LOOK = 5.0  # seconds after which the registry is asked again what is in Production
MOST_BYTES = "10mb"  # of a picture that is dropped
MOST_BARS = 20  # classes that are shown
INVITATION = "Draw something, or drop a picture."
# Gradio's pad starts without a tool, so that a stroke would select text.
CHOOSE_BRUSH = """() => {
    const look = setInterval(() => {
        const brush = document.querySelector('#pad button[aria-label=Brush]');
        if (brush) { brush.click(); clearInterval(look); }
    }, 100);
}"""
CANVAS = 420  # pixels, of each side


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--model-name", help="the registered model to ask (default: the only one that there is)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    port = cli.number(int, 1, high=65_535)
    parser.add_argument("--port", type=port, default=7860, help="port to listen on (default: 7860)")
    return parser.parse_args()


class Champion:
    """The model in Production, looked up again when it was asked for and some seconds have gone."""

    def __init__(self, name: str | None) -> None:
        self.name = name or ""
        self.version = 0
        self.model: StoredModel
        self._lock = threading.Lock()
        self._looked = -LOOK
        self.refresh()

    def refresh(self) -> str:
        """Load another model where another is in Production; return a line that names it."""
        from pipeline import registry, tracking

        with self._lock:
            trouble = ""
            if time.monotonic() - self._looked >= LOOK:
                try:
                    with tracking.connected():
                        uri, found, version = registry.find_model(None, None, self.name or None)
                        if (found, version) != (self.name, self.version):
                            self.model = tracking.load_model(uri)
                            self.name, self.version = str(found), int(version or 0)
                except UserError as error:
                    if not self.version:
                        raise
                    trouble = f" ({error})"  # a server that is away for a while is no reason to say nothing
                self._looked = time.monotonic()
            return f"**{self.name}**, version {self.version}, in Production{trouble}"


def answer(champion: Champion, given: "Image.Image | Path | None") -> tuple[dict[str, float] | None, str, str]:
    """Return probabilities by class, the HTML of what the model saw, and a line for people, of a drawing or a file."""
    import torch

    from pipeline import images
    from pipeline.evaluation import probabilities

    champion.refresh()
    if given is None:
        return None, "", INVITATION
    try:
        pixels = images.prepare(images.read(given) if isinstance(given, Path) else images.levels(given)).pixels
    except images.UnusableError as error:
        return None, "", INVITATION if error.problem == images.BLANK else f"This cannot be read: {error}"
    model = champion.model
    guesses = probabilities(model.module, torch.from_numpy(pixels)[None, None], device=torch.device("cpu"))[0]
    best = guesses.argmax()
    line = f"It looks like **{model.classes[best]}** ({guesses[best]:.1%}). Version {champion.version} says so."
    return dict(zip(model.classes, guesses.tolist(), strict=True)), picture(pixels), line


def picture(pixels: "np.ndarray") -> str:
    """Return the HTML of a picture, uint8 [28, 28], that lies in no file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    style = "width: 196px; height: 196px; image-rendering: pixelated"
    return f'<img alt="what the model saw" style="{style}" src="data:image/png;base64,{data}">'


def page(champion: Champion) -> Any:
    """Return the page."""
    import gradio as gr

    def ask(drawing: dict[str, Any] | None) -> tuple[dict[str, float] | None, str, str]:
        return answer(champion, drawing["composite"] if drawing else None)

    def ask_file(name: str) -> tuple[dict[str, float] | None, str, str, None]:
        return *answer(champion, Path(name)), None

    with gr.Blocks(title=champion.name, analytics_enabled=False, delete_cache=FORGET) as blocks:
        line = gr.Markdown(champion.refresh(), elem_id="model")
        with gr.Row():
            with gr.Column():
                pad = gr.Sketchpad(
                    type="pil",
                    canvas_size=(CANVAS, CANVAS),
                    fixed_canvas=True,
                    brush=gr.Brush(default_size=22, colors=["#000000"], default_color="#000000", color_mode="fixed"),
                    layers=False,
                    transforms=(),
                    height=CANVAS + 100,
                    label="Draw with mouse or finger",
                    elem_id="pad",
                )
                file = gr.File(file_types=["image"], label="Or drop a picture", height=120, elem_id="file")
            with gr.Column():
                message = gr.Markdown(INVITATION, elem_id="message")
                bars = gr.Label(label="Prediction", num_top_classes=min(MOST_BARS, len(champion.model.classes)))
                seen = gr.HTML(label="What the model saw", show_label=True, container=True, elem_id="seen")
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        pad.change(ask, pad, [bars, seen, message], trigger_mode="always_last", **quiet)
        file.upload(ask_file, file, [bars, seen, message, file], **quiet)
        gr.Timer(LOOK).tick(champion.refresh, None, line, **quiet)
        for event in (blocks.load, pad.clear):
            event(None, js=CHOOSE_BRUSH, **quiet)
    return blocks


def main() -> int:
    """Load the model in Production, show the page until Ctrl-C."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gone at the end
        champion = Champion(options.model_name)
        blocks = page(champion)
        try:
            blocks.launch(
                server_name=options.host,
                server_port=options.port,
                max_file_size=MOST_BYTES,
                share=False,
                quiet=True,
                footer_links=[],
                prevent_thread_lock=True,
            )
        except OSError:
            raise UserError(f"port {options.port} is taken; choose another with --port") from None
        cli.log(
            f"http://{options.host}:{options.port} shows version {champion.version} of {champion.name}; Ctrl-C ends it"
        )
        try:
            while True:
                signal.pause()
        finally:
            blocks.close(verbose=False)


if __name__ == "__main__":
    cli.run(main)
