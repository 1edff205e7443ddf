"""Print the job summary of train-evaluate-promote.yml, as Markdown, from what the three scripts printed.

    python .github/summary.py train.json evaluate.json promote.json >> "$GITHUB_STEP_SUMMARY"

If a file is missing or empty, its script did not finish, and the summary says so. Until evaluate.py has finished, the
standard library is enough: there is a summary even if the installation failed.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # Python looks in the directory of this script only

from pipeline.text import escape_markdown  # noqa: E402

if TYPE_CHECKING:
    from pipeline.evaluation.metrics import Evaluation
    from pipeline.evaluation.record import EvaluationRecord


def main(argv: Sequence[str]) -> None:
    """Print the decision, and what there is of checks, metrics, checklist and confusion matrix."""
    trained, evaluated, promoted = [read_result(Path(name)) for name in argv]
    print("## Train, evaluate, promote\n")
    print(format_decision(trained, evaluated, promoted))
    if promoted:
        print_section("Verdict", format_checks(promoted["checks"]))
        print(f"\n{escape_markdown(promoted['reason'])}")
        for notice in promoted["notices"]:
            print(f"\n**Notice:** {escape_markdown(notice)}")
        print(f"\nSigned by {escape_markdown(promoted['signer'])}" if promoted["signer"] else "\nNot signed")
    if trained and not evaluated:
        print_section("Metrics", format_table(("metric", "value"), training_metrics(trained)))
    if trained and evaluated:
        reports = Path(evaluated["output_dir"])
        record = read_record(reports)
        print_section("Metrics", format_table(("metric", "value"), evaluation_metrics(trained, record)))
        print_section("Checklist", format_checklist(reports))
        print_section("Confusion matrix", format_confusion_matrix(record.evaluation))


def read_result(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in ``path``, or None if the file is missing or empty."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict(json.loads(text)) if text.strip() else None


def read_record(reports: Path) -> "EvaluationRecord":
    """Return what evaluate.py recorded."""
    from pipeline.evaluation.record import EvaluationRecord

    return EvaluationRecord.read(reports, origin=str(reports))


def print_section(title: str, text: str) -> None:
    """Print a heading and the text below it."""
    print(f"\n### {title}\n")
    print(text)


def format_decision(
    trained: dict[str, Any] | None, evaluated: dict[str, Any] | None, promoted: dict[str, Any] | None
) -> str:
    """Return the decision in a sentence, or the script that did not finish."""
    for script, result in (("pytorch_demo.py", trained), ("evaluate.py", evaluated), ("promote.py", promoted)):
        if result is None:
            return f"**No decision.** {script} did not finish; the log of the job says why."
    assert promoted is not None
    version = f"{escape_markdown(promoted['model_name'])} version {promoted['version']}"
    previous = "none"
    if promoted["previous_version"]:
        previous = f"version {promoted['previous_version']}"
    sentences = {
        "promoted": f"**Promoted.** {version} is in Production; before: {previous}.",
        "refused": f"**Refused.** {version} does not go to Production; there now: {previous}.",
        "unchanged": f"**Unchanged.** {version} was in Production already.",
    }
    return sentences[promoted["decision"]]


def format_checks(checks: Iterable[dict[str, Any]]) -> str:
    """Return the checks of the gate as a table."""
    rows = []
    for check in checks:
        figures = [format_figure(check[name]) for name in ("value", "champion", "threshold")]
        rows.append((escape_markdown(check["name"]), *figures, "passed" if check["passed"] else "refused"))
    return format_table(("check", "value", "in Production", "threshold", "result"), rows)


def training_metrics(trained: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of what pytorch_demo.py measured."""
    return [
        ("data set", escape_markdown(trained["dataset"])),
        ("accuracy", format_figure(trained["test_accuracy"])),
        ("loss", format_figure(trained["test_loss"])),
        *run_metrics(trained),
    ]


def evaluation_metrics(trained: dict[str, Any], record: "EvaluationRecord") -> list[tuple[str, str]]:
    """Return name and value of what evaluate.py measured."""
    interval = record.accuracy_interval
    return [
        ("data set", escape_markdown(trained["dataset"])),
        ("test images", f"{record.samples:,}"),
        ("accuracy", format_figure(record.accuracy)),
        (f"its {interval.confidence:.0%} interval", f"{interval.low:.4f} to {interval.high:.4f}"),
        ("loss", format_figure(record.loss)),
        ("precision, macro average", format_figure(record.macro.precision)),
        ("recall, macro average", format_figure(record.macro.recall)),
        ("f1, macro average", format_figure(record.macro.f1)),
        ("images per second", f"{record.images_per_second:,.0f}"),
        *run_metrics(trained),
    ]


def run_metrics(trained: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how long the training took, and its run."""
    return [("training, seconds", f"{trained['training_seconds']:.1f}"), ("run", escape_markdown(trained["run_id"]))]


def format_checklist(reports: Path) -> str:
    """Return the verdicts on the five questions, and the reasons, as a table."""
    answers = json.loads((reports / "checklist.json").read_text(encoding="utf-8"))
    rows = []
    for answer in answers:
        sentences = escape_markdown(" ".join(answer["sentences"]))
        rows.append((escape_markdown(answer["question"]), f"**{escape_markdown(answer['verdict'])}**", sentences))
    return format_table(("question", "verdict", "why"), rows)


def format_confusion_matrix(evaluation: "Evaluation") -> str:
    """Return the confusion matrix as a table: truth in rows, prediction in columns."""
    classes = [escape_markdown(name) for name in evaluation.classes]
    rows = []
    for name, counts in zip(classes, evaluation.confusion, strict=True):
        rows.append((f"**{name}**", *(str(count) for count in counts)))
    return format_table(("truth \\ prediction", *classes), rows)


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned right, as numbers are read."""
    rule = ("---", *("---:" for _ in header[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def format_figure(value: float | None) -> str:
    """Return a figure with four decimals; a dash if there is none."""
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main(sys.argv[1:])
