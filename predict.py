"""Ask the model in Production what is on pictures of your own.

    python predict.py photo.png scans/*.jpg                  the model in Production
    python predict.py photo.png --model-name letters-classifier
    python predict.py scans/*.jpg --min-confidence 0.9 --save predictions

Each picture is prepared as prepare_data.py prepares it, so photos of dark ink on white paper may be asked as they are.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli

if TYPE_CHECKING:
    import numpy as np


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG, BMP, GIF, TIFF or WebP")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model-name", help="the registered model to ask (default: the only one that there is)")
    which.add_argument("--model-uri", help="or the model at this URI: models:/<name>/<version>, models:/<name>@<alias>")
    which.add_argument("--run-id", help="or the model of this run")
    share = cli.number(float, 0, high=1)
    parser.add_argument("--min-confidence", type=share, default=0.0, help="say 'not sure' below this (default: 0)")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="draw each picture, what the model saw, and its guesses"
    )
    cli.add_device(parser)
    return parser.parse_args()


def look(file: Path) -> "np.ndarray | str":
    """Return the pixels as the model will see them, or what is wrong with the picture."""
    from pipeline import images

    try:
        return images.prepare(images.read(file)).pixels
    except images.UnusableError as error:
        return str(error)


def main() -> int:
    """Prepare the pictures, load the model, ask it, draw where asked, print."""
    options = parse_options()
    from pipeline import images

    looks = images.for_each(look, options.images)  # starts at once, beside the imports
    import numpy as np
    import torch

    from pipeline import registry, tracking
    from pipeline.evaluation import choose_device, probabilities

    device = choose_device(options.device)
    with tracking.connected():
        uri, name, version = registry.find_model(options.model_uri, options.run_id, options.model_name)
        stored = tracking.load_model(uri)
    seen = list(looks)
    pixels = {place: found for place, found in enumerate(seen) if not isinstance(found, str)}
    answers: dict[int, np.ndarray] = {}
    if pixels:
        every = torch.from_numpy(np.stack([*pixels.values()])).unsqueeze(1)
        answers = dict(zip(pixels, probabilities(stored.module.to(device), every, device=device), strict=True))
    entries = []
    for place, file in enumerate(options.images):
        if place in answers:
            entry = describe(answers[place], stored.classes, options.min_confidence)
            guesses = ", ".join(f"{each['class_name']} {each['probability']:.1%}" for each in entry["top"])
            cli.log(f"{file}: {entry['class_name'] or 'not sure'} ({guesses})")
        else:
            entry = {"error": str(seen[place])}
            cli.log(f"{file}: error: {seen[place]}")
        entries.append({"file": str(file)} | entry | {"model_version": version})
    if options.save:
        save(options.save, options.images, pixels, answers, stored.classes)
    failed = len(seen) - len(pixels)
    cli.print_json(
        {
            "model_name": name,
            "model_version": version,
            "model_uri": uri,
            "run_id": stored.run_id,
            "failed": failed,
            "images": entries,
        }
    )
    return cli.USER_ERROR if failed else cli.OK


def describe(probabilities: "np.ndarray", classes: tuple[str, ...], min_confidence: float) -> dict[str, Any]:
    """Return the answer about one picture; prediction and class name are None where the model is not sure."""
    best = (-probabilities).argsort(kind="stable")
    sure = probabilities[best[0]] >= min_confidence
    return {
        "prediction": int(best[0]) if sure else None,
        "class_name": classes[best[0]] if sure else None,
        "probability": float(probabilities[best[0]]),
        "top": [{"class_name": classes[each], "probability": float(probabilities[each])} for each in best[:3]],
    }


def save(
    directory: Path,
    files: list[Path],
    pixels: "dict[int, np.ndarray]",
    answers: "dict[int, np.ndarray]",
    classes: tuple[str, ...],
) -> None:
    """Draw each picture beside what the model saw and its probabilities, as ``<number>-<name>.png``."""
    from pipeline import images, plots

    with cli.whole(directory) as folder:
        for place, saw in pixels.items():
            figure = plots.prediction(images.read(files[place]), saw, classes, answers[place])
            figure.savefig(folder / f"{place:0{len(str(len(files)))}d}-{files[place].stem}.png")


if __name__ == "__main__":
    cli.run(main)
