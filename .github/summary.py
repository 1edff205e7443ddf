"""Print the job summary of train-evaluate-promote.yml, as Markdown, from what the three scripts printed.

    python .github/summary.py train.json evaluate.json promote.json >> "$GITHUB_STEP_SUMMARY"

A file that is missing or empty belongs to a script that did not get through, and the summary says so. It needs the
standard library only, so it appears even where the installation failed.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    """Read, and print what there is: the decision, its checks, the metrics, the checklist, the confusion matrix."""
    trained, evaluated, promoted = (read(Path(name)) for name in sys.argv[1:4])
    print("## Train, evaluate, promote\n")
    print(decision(trained, evaluated, promoted))
    if promoted:
        checks = [
            (
                check["name"],
                figure(check["value"]),
                figure(check["champion"]),
                figure(check["threshold"]),
                "passed" if check["passed"] else "refused",
            )
            for check in promoted["checks"]
        ]
        print("\n### Verdict\n")
        print(table(("check", "value", "in Production", "threshold", "result"), checks))
        print(f"\n{promoted['reason']}")
    if trained:
        reports = Path(evaluated["output_dir"]) if evaluated else None
        print("\n### Metrics\n")
        print(table(("metric", "value"), metrics(trained, read(reports / "evaluation.json") if reports else None)))
        if reports:
            answers = json.loads((reports / "checklist.json").read_text(encoding="utf-8"))
            rows = [(each["question"], f"**{each['verdict']}**", " ".join(each["sentences"])) for each in answers]
            print("\n### Checklist\n")
            print(table(("question", "verdict", "why"), rows))
            print("\n### Confusion matrix\n")
            print(confusion(reports / "predictions.csv"))


def read(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in ``path``, or None where the file is missing or empty."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict(json.loads(text)) if text.strip() else None


def decision(trained: dict[str, Any] | None, evaluated: dict[str, Any] | None, promoted: dict[str, Any] | None) -> str:
    """Return what was decided in a sentence, or how far the job came."""
    if not promoted:
        stopped = "pytorch_demo.py" if not trained else "evaluate.py" if not evaluated else "promote.py"
        return f"**No decision.** {stopped} did not get through; the log of the job says why."
    version = f"{promoted['model_name']} version {promoted['version']}"
    before = f"version {promoted['previous_version']}" if promoted["previous_version"] else "none"
    return {
        "promoted": f"**Promoted.** {version} is in Production; before: {before}.",
        "refused": f"**Refused.** {version} does not go to Production; there now: {before}.",
        "unchanged": f"**Unchanged.** {version} was in Production already.",
    }[promoted["decision"]]


def metrics(trained: dict[str, Any], evaluation: dict[str, Any] | None) -> Iterable[tuple[str, str]]:
    """Yield name and value of what was measured: by evaluate.py where it got through, else by the training script."""
    yield "data set", trained["dataset"]
    if evaluation:
        interval = evaluation["accuracy_interval"]
        yield "test images", f"{evaluation['samples']:,}"
        yield "accuracy", f"{evaluation['accuracy']:.4f}"
        yield f"its {interval['confidence']:.0%} interval", f"{interval['low']:.4f} to {interval['high']:.4f}"
        yield "loss", f"{evaluation['loss']:.4f}"
        for name, value in evaluation["macro"].items():
            yield f"{name}, macro average", f"{value:.4f}"
        yield "images per second", f"{evaluation['images_per_second']:,.0f}"
    else:
        yield "accuracy", f"{trained['test_accuracy']:.4f}"
        yield "loss", f"{trained['test_loss']:.4f}"
    yield "training, seconds", f"{trained['training_seconds']:.1f}"
    yield "run", f"`{trained['run_id']}`"


def confusion(predictions: Path) -> str:
    """Return the confusion matrix of ``predictions.csv``: index, label, prediction, a probability per class."""
    with predictions.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        classes = next(rows)[3:]
        counts = Counter((int(label), int(prediction)) for _, label, prediction, *_ in rows)
    numbers = range(len(classes))
    return table(
        ("truth \\ prediction", *classes),
        [(f"**{classes[row]}**", *(str(counts[row, column]) for column in numbers)) for row in numbers],
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned right, as numbers are read."""
    rule = ("---", *("---:" for _ in header[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def figure(value: Any) -> str:
    """Return a figure of a check: four decimals, a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
