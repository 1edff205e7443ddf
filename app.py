"""A page to draw on: the model in Production says what it is. It loads a newly promoted model by itself.

    python app.py                                            http://127.0.0.1:7860
    python app.py --model-name letters-classifier --port 8000
    python app.py --host 0.0.0.0                             for other machines too; there is no login

Drawings and pictures are deleted within 15 seconds.
"""

import argparse
import base64
import io
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import cli
from pipeline.errors import UserError
from pipeline.text import escape_markdown

if TYPE_CHECKING:
    import numpy as np

    from pipeline.tracking.loading import StoredModel

DELETE_FILES = (5, 10)  # every 5 seconds, those older than 10: Gradio writes drawings and pictures to files
REFRESH_SECONDS = 5.0  # after which the registry is asked again for the model in Production
MAX_FILE_SIZE = "10mb"  # of a dropped picture
MAX_DRAWING_SIZE = 2_000_000  # bytes; the pad's own files have some thousands
MAX_DRAWING_NAME = 100  # characters
MAX_DRAWINGS = 50  # that wait for their question
MAX_BARS = 20  # classes that are shown
CANVAS_SIDE = 420  # pixels
INVITATION = "Draw something, or drop a picture."
# Gradio's pad starts without a tool, and a stroke would select text.
SELECT_BRUSH = """() => {
    const timer = setInterval(() => {
        const brush = document.querySelector('#pad button[aria-label=Brush]');
        if (brush) { brush.click(); clearInterval(timer); }
    }, 100);
}"""


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--model-name", help="the registered model to ask (default: the only one in the store)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--port", type=cli.bounded_number(int, 1, 65_535), default=7860, help="port to listen on (default: 7860)"
    )
    return parser.parse_args(argv)


class ProductionModel:
    """The model in Production. `refresh` replaces it if another version was promoted.

    Attributes
    ----------
    name : of the registered model; empty before a model was loaded, if no name was chosen.
    version : its number; 0 before a model was loaded.
    stored : the loaded model.
    signer : who signed it; empty if nobody did, or if no signature was checked.
    """

    stored: "StoredModel"

    def __init__(self, name: str | None) -> None:
        self.name = name or ""
        self.version = 0
        self.signer = ""
        self._lock = threading.Lock()
        self._refreshed_at = -REFRESH_SECONDS
        self._problem = ""
        self.refresh()

    def refresh(self) -> None:
        """Ask the registry if the last request is some seconds old, and load the model if it is another one.

        Raises
        ------
        UserError
            There is no model, or it is refused, and none was loaded before. Later the loaded model stays if the server
            is away, or if the model that was promoted meanwhile is refused.
        """
        with self._lock:
            if time.monotonic() - self._refreshed_at < REFRESH_SECONDS:
                return
            try:
                self._load()
                self._problem = ""
            except UserError as error:
                if self.version == 0:
                    raise
                self._problem = f" ({error})"
            self._refreshed_at = time.monotonic()

    def _load(self) -> None:
        from pipeline.promotion.signature import load_verified_model
        from pipeline.tracking import registry, store

        with store.connect():
            reference = registry.resolve_model(None, None, self.name or None)
            if (reference.name, reference.version) == (self.name, self.version):
                return
            verified = load_verified_model(reference)
            self.stored = verified.stored
            self.signer = verified.signer
            self.name = reference.name or ""
            self.version = reference.version or 0

    def describe(self) -> str:
        """Return a line of Markdown that names the model, after a refresh."""
        self.refresh()
        signature = f", signed by {escape_markdown(self.signer)}" if self.signer else ""
        name, problem = escape_markdown(self.name), escape_markdown(self._problem)
        return f"**{name}**, version {self.version}, in Production{signature}{problem}"


class Answer(NamedTuple):
    """What the page shows.

    Attributes
    ----------
    probabilities : by class name; None if there is no picture.
    model_input : HTML of the picture that the model got.
    message : a line of Markdown.
    """

    probabilities: dict[str, float] | None
    model_input: str
    message: str


def classify_picture(model: ProductionModel, picture: "Path | io.BytesIO | None") -> Answer:
    """Return the model's answer to a file, or to the content of one."""
    import torch

    from pipeline.data import images
    from pipeline.data.preparation import prepare_image, read_picture
    from pipeline.evaluation.inference import compute_probabilities

    model.refresh()
    if picture is None:
        return Answer(None, "", INVITATION)
    stored = model.stored  # the same for picture and answer: another one may be loaded meanwhile
    try:
        pixels = prepare_image(read_picture(picture, stored.form), stored.form).pixels
    except images.UnusableImageError as error:
        is_blank = error.problem == images.BLANK
        return Answer(None, "", INVITATION if is_blank else f"This cannot be read: {escape_markdown(str(error))}")
    batch = torch.from_numpy(pixels)[None]
    probabilities = compute_probabilities(stored.module, batch, device=torch.device("cpu"))[0]
    best = int(probabilities.argmax())
    name = escape_markdown(stored.classes[best])
    message = f"It looks like **{name}** ({probabilities[best]:.1%}). Version {model.version} says so."
    probability_by_class = dict(zip(stored.classes, probabilities.tolist(), strict=True))
    return Answer(probability_by_class, format_pixels(pixels), message)


def format_pixels(pixels: "np.ndarray") -> str:
    """Return the HTML of a picture, uint8 [channels, height, width]. The picture is in the HTML, not in a file."""
    from PIL import Image

    from pipeline.data.preparation import arrange_for_display

    file = io.BytesIO()
    Image.fromarray(arrange_for_display(pixels)).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    style = "width: 196px; height: 196px; image-rendering: pixelated"
    return f'<img alt="what the model saw" style="{style}" src="data:image/png;base64,{content}">'


def build_page(model: ProductionModel) -> Any:
    """Return the page, a `gradio.Blocks`."""
    import gradio as gr

    drawings = Drawings()

    def ask(drawing: dict[str, Any] | None) -> Answer:
        return classify_picture(model, drawings.find(drawing) if drawing else None)

    def ask_file(name: str) -> tuple[dict[str, float] | None, str, str, None]:
        return *classify_picture(model, Path(name)), None  # None removes the file from the page

    with gr.Blocks(title=model.name, analytics_enabled=False, delete_cache=DELETE_FILES) as page:
        title = gr.Markdown(model.describe(), elem_id="model")
        with gr.Row():
            with gr.Column():
                pad = build_pad(drawings)
                file = gr.File(file_types=["image"], label="Or drop a picture", height=120, elem_id="file")
            with gr.Column():
                message = gr.Markdown(INVITATION, elem_id="message")
                bars = gr.Label(label="Prediction", num_top_classes=min(MAX_BARS, len(model.stored.classes)))
                model_input = gr.HTML(
                    label="What the model saw", show_label=True, container=True, elem_id="model-input"
                )
        answer = [bars, model_input, message]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # Gradio would decode a drawing of any size before it calls `ask`.
        pad.change(ask, pad, answer, trigger_mode="always_last", preprocess=False, **quiet)
        file.upload(ask_file, file, [*answer, file], **quiet)
        gr.Timer(REFRESH_SECONDS).tick(model.describe, None, title, **quiet)
        for event in (page.load, pad.clear):
            event(None, js=SELECT_BRUSH, **quiet)
    return page


class Drawings:
    """The files of drawings between the request that brings one and the request that asks about it."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, content: bytes) -> None:
        """Keep a file; a large one is not kept, and of many the newest ones are."""
        if len(content) > MAX_DRAWING_SIZE or len(name) > MAX_DRAWING_NAME:
            return
        with self._lock:
            self._files[name] = content
            while len(self._files) > MAX_DRAWINGS:
                del self._files[next(iter(self._files))]

    def find(self, drawing: dict[str, Any]) -> io.BytesIO | Path | None:
        """Return what the pad sends, and forget it: the name of a file that was put, or of one that was uploaded.

        Gradio has checked that an uploaded one is in its own folder. If there is none, the result is None.
        """
        with self._lock:
            content = self._files.pop(drawing["id"] or "", None)
        if content is not None:
            return io.BytesIO(content)
        return Path(drawing["composite"]["path"]) if drawing["composite"] else None


def build_pad(drawings: Drawings) -> Any:
    """Return the pad to draw on, a `gradio.Sketchpad` with one black brush, which puts its files into ``drawings``."""
    import gradio as gr
    from gradio.components.base import server
    from gradio.components.image_editor import AcceptBlobs

    def accept_blobs(data: AcceptBlobs) -> None:
        if data.data["type"] == "composite":
            drawings.put(str(data.data["id"]), data.files[0][1])

    black = "#000000"
    pad = gr.Sketchpad(
        canvas_size=(CANVAS_SIDE, CANVAS_SIDE),
        fixed_canvas=True,
        brush=gr.Brush(default_size=22, colors=[black], default_color=black, color_mode="fixed"),
        layers=False,
        transforms=(),
        height=CANVAS_SIDE + 100,
        label="Draw with mouse or finger",
        elem_id="pad",
    )
    # Gradio's own keeps the files of every layer, as many and as large as a client likes.
    pad.accept_blobs = server(accept_blobs)
    return pad


@contextmanager
def serve_page(page: Any, host: str, port: int) -> Iterator[None]:
    """Show the page until the end of the block.

    Raises
    ------
    UserError
        Another program uses the port.
    """
    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=MAX_FILE_SIZE,
            share=False,
            quiet=True,
            footer_links=[],
            prevent_thread_lock=True,
        )
    except OSError:
        raise UserError(f"port {port} is taken; choose another with --port") from None
    try:
        yield
    finally:
        page.close(verbose=False)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Load the model in Production, show the page until Ctrl-C."""
    options = parse_options(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # so that nothing is left at the end
        model = ProductionModel(options.model_name)
        with serve_page(build_page(model), options.host, options.port):
            address = f"http://{options.host}:{options.port}"
            cli.log(f"{address} shows version {model.version} of {model.name}; stop it with Ctrl-C")
            while True:
                signal.pause()


if __name__ == "__main__":
    sys.exit(main())
