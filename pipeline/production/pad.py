"""The pad to draw on. Its drawings stay in memory."""

import io
import threading
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs

MAX_DRAWING_SIZE = 2_000_000  # bytes; the pad's own files have some thousands
MAX_DRAWING_NAME = 100  # characters
MAX_DRAWINGS = 50  # that wait for their question
CANVAS_SIDE = 420  # pixels


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


def build_pad(drawings: Drawings) -> gr.Sketchpad:
    """Return the pad to draw on, with one black brush, which puts its files into ``drawings``."""

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
