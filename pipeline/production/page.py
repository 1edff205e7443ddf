"""The page: a pad to draw on, a place to drop a picture, and the answer of the model in Production."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.errors import UserError
from pipeline.production.answers import INVITATION, Answer, answer_drawing, answer_file
from pipeline.production.pad import Drawings, build_pad
from pipeline.production.service import REFRESH_SECONDS, LoadedModel, ModelService
from pipeline.text import escape_markdown

# A dropped picture is deleted when it is answered. Gradio also writes each drawing to a file that nobody reads: those
# are deleted after a minute. A picture does not wait that long for its turn, as an answer takes milliseconds.
DELETE_FILES = (5, 60)  # every so many seconds, files that are older, in seconds
MAX_BARS = 20  # classes that are shown
# Gradio's pad starts without a tool, and a stroke would select text.
SELECT_BRUSH = """() => {
    const timer = setInterval(() => {
        const brush = document.querySelector('#pad button[aria-label=Brush]');
        if (brush) { brush.click(); clearInterval(timer); }
    }, 100);
}"""


def build_page(service: ModelService) -> gr.Blocks:
    """Return the page."""
    drawings = Drawings()

    def ask(name: str, drawing: dict[str, Any] | None) -> Answer:
        picture = drawings.find(drawing) if drawing else None
        return ask_model(service, name, lambda model: answer_drawing(model, picture))

    def ask_file(name: str, file: str) -> tuple[dict[str, float] | None, str, str, None]:
        path = Path(file)
        try:
            answer = ask_model(service, name, lambda model: answer_file(model, path))
            return *answer, None  # None empties the place for files
        finally:
            path.unlink(missing_ok=True)

    def describe(name: str) -> tuple[str, Any]:
        text, problem = describe_model(service, name)
        return text, gr.Markdown(problem, visible=bool(problem))

    first = service.names[0]
    page: gr.Blocks
    with gr.Blocks(title=first, analytics_enabled=False, delete_cache=DELETE_FILES) as page:
        title = gr.Markdown(describe_model(service, first)[0], elem_id="model")
        problem = gr.Markdown(visible=False, elem_id="problem")
        choice = gr.Dropdown(
            list(service.names),
            value=first,
            show_label=False,
            container=False,
            visible=len(service.names) > 1,
            elem_id="choice",
        )
        # Above the pad: on a phone the answer is seen without scrolling.
        message = gr.Markdown(INVITATION, elem_id="message")
        with gr.Row():
            with gr.Column():
                pad = build_pad(drawings)
                file = gr.File(file_types=["image"], label="Or drop a picture", height=120, elem_id="file")
            with gr.Column():
                pictures = gr.HTML(elem_id="pictures")
                bars = gr.Label(label="Prediction", num_top_classes=MAX_BARS, show_heading=False)
        answer = [bars, pictures, message]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # Gradio would decode a drawing of any size before it calls `ask`.
        pad.change(ask, [choice, pad], answer, trigger_mode="always_last", preprocess=False, **quiet)
        file.upload(ask_file, [choice, file], [*answer, file], **quiet)
        choice.change(describe, choice, [title, problem], **quiet)
        gr.Timer(REFRESH_SECONDS).tick(describe, choice, [title, problem], **quiet)
        for event in (page.load, pad.clear):
            event(None, js=SELECT_BRUSH, **quiet)
    return page


def ask_model(service: ModelService, name: str, ask: Callable[[LoadedModel], Answer]) -> Answer:
    """Return what ``ask`` answers with the model; or why there is none, if it was chosen and cannot be loaded."""
    try:
        return ask(service.get(name))
    except UserError as error:
        return Answer(None, "", escape_markdown(str(error)))


def describe_model(service: ModelService, name: str) -> tuple[str, str]:
    """Return two lines of Markdown: which model answers, and why it may not be the newest one; empty if it is."""
    title = f"**{escape_markdown(name)}**"
    try:
        model = service.get(name)
    except UserError as error:
        return title, escape_markdown(str(error))
    signature = f", signed by {escape_markdown(model.signer)}" if model.signer else ""
    problem = service.problem(name)
    if problem:
        problem = f"The loaded version answers, but it may not be the newest one: {escape_markdown(problem)}"
    return f"{title}, version {model.version}, in Production{signature}", problem
