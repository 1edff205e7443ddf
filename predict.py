"""Ask the model in Production what is on your own pictures.

    python predict.py photo.png scans/*.jpg                  the model in Production
    python predict.py photo.png --model-name letters-classifier
    python predict.py scans/*.jpg --min-confidence 0.9 --save predictions

Each picture is prepared as prepare_data.py prepares it, so photos of dark ink on white paper need no preparation.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.text import printable

if TYPE_CHECKING:
    import numpy as np

    from pipeline.data.forms import Form
    from pipeline.tracking.loading import StoredModel

MAX_STEM_LENGTH = 60  # characters of a picture's name in that of its figure, which may have 255 bytes


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("images", nargs="+", type=cli.path, metavar="IMAGE", help="PNG, JPEG, BMP, GIF, TIFF or WebP")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model-name", help="the registered model to ask (default: the only one in the store)")
    model.add_argument("--model-uri", help="or the model at this URI: models:/<name>/<version>, models:/<name>@<alias>")
    model.add_argument("--run-id", help="or the model of this run")
    parser.add_argument(
        "--min-confidence",
        type=cli.bounded_number(float, 0, 1),
        default=0.0,
        help="answer 'not sure' below this probability (default: 0)",
    )
    parser.add_argument(
        "--save",
        type=cli.path,
        metavar="DIR",
        help="draw each picture, the model's input, and the most probable classes",
    )
    cli.add_device_option(parser)
    return parser.parse_args(argv)


@dataclass
class Question:
    """A picture and the answer of the model.

    Attributes
    ----------
    file : of the picture.
    pixels : uint8 [channels, height, width], the input of the model; None if the picture cannot be used.
    error : why it cannot be used.
    remarks : of the preparation.
    probabilities : float64 [classes], the answer; None before the model was asked.
    """

    file: Path
    pixels: "np.ndarray | None" = None
    error: str = ""
    remarks: tuple[str, ...] = ()
    probabilities: "np.ndarray | None" = None


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Prepare the pictures, load the model, ask it, draw if asked, print."""
    options = parse_options(argv)
    from pipeline.data.images import MAX_MEMORY
    from pipeline.data.parallel import parallel_map
    from pipeline.evaluation.inference import choose_device
    from pipeline.promotion.signature import load_verified_model
    from pipeline.tracking import registry, store

    device = choose_device(options.device)
    with store.connect():
        reference = registry.resolve_model(options.model_uri, options.run_id, options.model_name)
        verified = load_verified_model(reference)
    stored = verified.stored
    if verified.signer:
        cli.log(f"signed by {verified.signer}")
    prepare = partial(prepare_file, form=stored.form)
    questions = list(parallel_map(prepare, options.images, memory=MAX_MEMORY))
    ask_model(stored, questions, device.type)
    answers = [describe_answer(question, stored.classes, options.min_confidence) for question in questions]
    log_answers(questions, answers)
    if options.save:
        save_figures(options.save, questions, stored)
    failed = sum(question.pixels is None for question in questions)
    images = [
        {"file": str(question.file), **answer, "model_version": reference.version}
        for question, answer in zip(questions, answers, strict=True)
    ]
    cli.print_json(
        {
            "model_name": reference.name,
            "model_version": reference.version,
            "model_uri": reference.uri,
            "model_sha256": stored.sha256,
            "signer": verified.signer,
            "run_id": stored.run_id,
            "failed": failed,
            "images": images,
        }
    )
    return cli.USER_ERROR if failed else cli.OK


def prepare_file(file: Path, form: "Form") -> Question:
    """Return the picture as the model takes it, or why it cannot be used."""
    from pipeline.data.images import UnusableImageError
    from pipeline.data.preparation import prepare_image, read_picture

    try:
        prepared = prepare_image(read_picture(file, form), form)
    except UnusableImageError as error:
        return Question(file, error=str(error))
    return Question(file, prepared.pixels, remarks=prepared.remarks)


def ask_model(stored: "StoredModel", questions: Sequence[Question], device_type: str) -> None:
    """Set the probabilities of all questions that have pixels."""
    import numpy as np
    import torch

    from pipeline.evaluation.inference import compute_probabilities

    usable = []
    pixels = []
    for question in questions:
        if question.pixels is not None:
            usable.append(question)
            pixels.append(question.pixels)
    if not usable:
        return
    device = torch.device(device_type)
    images = torch.from_numpy(np.stack(pixels))
    results = compute_probabilities(stored.module.to(device), images, device=device)
    for question, probabilities in zip(usable, results, strict=True):
        question.probabilities = probabilities


def describe_answer(question: Question, classes: Sequence[str], min_confidence: float) -> dict[str, Any]:
    """Return the answer for JSON; prediction and class name are None if the model is not sure."""
    from pipeline.evaluation.doubts import list_doubts

    if question.probabilities is None:
        return {"error": question.error}
    order = (-question.probabilities).argsort(kind="stable").tolist()
    best = order[0]
    is_sure = question.probabilities[best] >= min_confidence
    top = []
    for index in order[:3]:
        top.append({"class_name": classes[index], "probability": float(question.probabilities[index])})
    return {
        "prediction": best if is_sure else None,
        "class_name": classes[best] if is_sure else None,
        "probability": top[0]["probability"],
        "top": top,
        "remarks": list_doubts(question.probabilities, question.remarks),
    }


def log_answers(questions: Sequence[Question], answers: Sequence[dict[str, Any]]) -> None:
    """Show one line for each picture."""
    for question, answer in zip(questions, answers, strict=True):
        if "error" in answer:
            cli.log(f"{question.file}: error: {answer['error']}")
            continue
        top = ", ".join(f"{guess['class_name']} {guess['probability']:.1%}" for guess in answer["top"])
        remarks = "".join(f"; {remark}" for remark in answer["remarks"])
        cli.log(f"{question.file}: {answer['class_name'] or 'not sure'} ({top}){remarks}")


def save_figures(directory: Path, questions: Sequence[Question], stored: "StoredModel") -> None:
    """Draw each picture, the model's input and its answer as ``<number>-<name>.png``."""
    from pipeline.data.preparation import read_picture
    from pipeline.files import atomic_directory
    from pipeline.reports.image_plots import plot_prediction

    digits = len(str(len(questions)))
    with atomic_directory(directory) as folder:
        for number, question in enumerate(questions):
            if question.pixels is None or question.probabilities is None:
                continue
            picture = read_picture(question.file, stored.form)
            figure = plot_prediction(picture, question.pixels, stored.classes, question.probabilities)
            stem = printable(question.file.stem)[:MAX_STEM_LENGTH]
            figure.savefig(folder / f"{number:0{digits}d}-{stem}.png")


if __name__ == "__main__":
    sys.exit(main())
