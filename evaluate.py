"""Reload a run's model from MLflow, score it on the test set and write the reports.

    python evaluate.py --run-id 8f1c... --log-mlflow         reports go back into the run: promote.py reads them
    python evaluate.py --model-uri models:/mnist-classifier@champion
    python evaluate.py --run-id 8f1c... --dataset mnist --output-dir /tmp/reports

Independent of training: the model comes from MLflow as a graph (torch.export), not from this repository's code.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.data.datasets import Dataset
    from pipeline.evaluation.metrics import Evaluation
    from pipeline.evaluation.record import EvaluationRecord
    from pipeline.reports.checklist import Answer
    from pipeline.tracking.models import StoredModel
    from pipeline.tracking.runs import Run


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run-id", help="evaluate the model of this run")
    model.add_argument("--model-uri", help="or the model at this URI: models:/<name>/<version>, models:/<name>@<alias>")
    parser.add_argument("--dataset", help="evaluate on this data set (default: the one that the run trained on)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="directory of the files (default: data)")
    parser.add_argument(
        "--batch-size", type=cli.bounded_number(int, 1), default=500, help="images a step (default: 500)"
    )
    cli.add_device_option(parser)
    parser.add_argument("--output-dir", type=Path, help="directory of the reports (default: evaluation/<run_id>)")
    parser.add_argument("--log-mlflow", action="store_true", help="also log reports and metrics to the run")
    return parser.parse_args(argv)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Load the model, score it, write the reports, log them if asked, print the result."""
    options = parse_options(argv)
    from pipeline.data.datasets import load_test_split
    from pipeline.evaluation.inference import choose_device
    from pipeline.files import atomic_directory
    from pipeline.reports.checklist_evidence import answer_checklist
    from pipeline.tracking.models import find_model_uri, load_model
    from pipeline.tracking.runs import get_run
    from pipeline.tracking.store import connect

    device = choose_device(options.device)
    with connect():
        stored = load_model(options.model_uri or find_model_uri(options.run_id))
        run = get_run(options.run_id or stored.run_id)
        run_id = run.info.run_id
        test = load_test_split(options.dataset or find_dataset_name(run), options.data_dir)
        output_dir = options.output_dir or Path("evaluation", run_id)
        with atomic_directory(output_dir) as folder:
            record = score_model(stored, test, device, options.batch_size)
            record.write(folder)
            write_report(folder, record.evaluation)
            write_figures(folder, record.evaluation, test.images)
            answers = answer_checklist(record, stored, run)
            write_checklist(folder, answers, title=f"{test.name}: run {run_id}")
            if options.log_mlflow:
                log_evaluation(run_id, folder, record.evaluation)
    low, high = record.evaluation.interval
    cli.log(f"accuracy {record.accuracy:.2%} (95% interval {low:.2%} to {high:.2%}); reports in {output_dir}")
    for answer in answers:
        cli.log(f"{answer.question}: {answer.verdict}. {answer.sentences[0]}")
    cli.print_json(
        {
            "run_id": run_id,
            "model_uri": record.model_uri,
            "dataset": record.dataset,
            "samples": record.samples,
            "test_accuracy": record.accuracy,
            "test_loss": record.loss,
            "test_f1": record.macro.f1,
            "images_per_second": record.images_per_second,
            "checklist": {answer.question: answer.verdict for answer in answers},
            "output_dir": str(output_dir),
        }
    )
    return cli.OK


def find_dataset_name(run: "Run") -> str:
    """Return the name of the data set that the run trained on."""
    name: str | None = run.data.params.get("dataset")
    if not name:
        raise UserError(f"run {run.info.run_id} does not record its data set; name one with --dataset")
    return name


def score_model(stored: "StoredModel", test: "Dataset", device: "torch.device", batch_size: int) -> "EvaluationRecord":
    """Return the record of the model on the test images."""
    from pipeline.evaluation.inference import compute_logits, count_parameters
    from pipeline.evaluation.metrics import Evaluation
    from pipeline.evaluation.record import build_record

    module = stored.module.to(device)
    start = time.perf_counter()
    logits = compute_logits(module, test.images, device=device, batch_size=batch_size)
    seconds = time.perf_counter() - start
    return build_record(
        Evaluation.from_logits(logits, test.labels, test.classes),
        test,
        model_id=stored.model_id,
        model_uri=stored.uri,
        model_sha256=stored.sha256,
        parameters=count_parameters(module),
        images_per_second=len(test) / seconds,
        device=device.type,
    )


def write_report(folder: Path, evaluation: "Evaluation") -> None:
    """Write precision, recall and F1 of each class."""
    write_json(folder / "classification_report.json", evaluation.classification_report())


def write_figures(folder: Path, evaluation: "Evaluation", images: "Tensor") -> None:
    """Draw the figures; to add one, draw it in `pipeline.reports.plots` and save it here."""
    from pipeline.reports import image_plots, plots

    plots.plot_confusion_matrix(evaluation).savefig(folder / "confusion_matrix.png")
    plots.plot_reliability(evaluation).savefig(folder / "reliability.png")
    image_plots.plot_misclassified(evaluation, images).savefig(folder / "misclassified_examples.png")
    image_plots.plot_confusions(evaluation, images).savefig(folder / "confusions.png")


def write_checklist(folder: Path, answers: "list[Answer]", title: str) -> None:
    """Write the answers to the five questions, for programs and for people."""
    from pipeline.evaluation.record import CHECKLIST_FILE
    from pipeline.reports.checklist_text import format_checklist

    write_json(folder / CHECKLIST_FILE, [asdict(answer) for answer in answers])
    (folder / "checklist.md").write_text(format_checklist(answers, title), encoding="utf-8")


def write_json(file: Path, content: Any) -> None:
    """Write ``content`` for programs."""
    file.write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")


def log_evaluation(run_id: str, folder: Path, evaluation: "Evaluation") -> None:
    """Log the files in ``folder``, and the metrics as ``evaluation_<metric>``, to the run."""
    from pipeline.evaluation.record import EVALUATION_FOLDER
    from pipeline.tracking.artifacts import log_artifacts
    from pipeline.tracking.runs import log_metrics

    log_artifacts(run_id, folder, EVALUATION_FOLDER)
    log_metrics(run_id, evaluation.as_metrics("evaluation"))


if __name__ == "__main__":
    sys.exit(main())
