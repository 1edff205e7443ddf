"""Reload a run's model from MLflow, score it on the test set and write the reports.

    python evaluate.py --run-id 8f1c... --log-mlflow         reports go back into the run: promote.py reads them
    python evaluate.py --model-uri models:/mnist-classifier@champion
    python evaluate.py --run-id 8f1c... --dataset mnist --output-dir /tmp/reports
    python evaluate.py --run-id 8f1c... --log-only           log the reports on disk, after the store was away

Independent of training: the model comes from MLflow as a graph (torch.export), not from this repository's code.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.errors import UserError
from pipeline.signals import Stopped

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.data.datasets import Dataset
    from pipeline.evaluation.metrics import Evaluation
    from pipeline.evaluation.record import EvaluationRecord
    from pipeline.reports.checklist import Answer
    from pipeline.reports.evaluation_folder import EvaluationReports
    from pipeline.tracking.loading import StoredModel
    from pipeline.tracking.outages import Patience
    from pipeline.tracking.runs import Run

SCORING_OPTIONS = ("model_uri", "dataset", "data_dir", "batch_size", "device")


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run-id", help="evaluate the model of this run")
    model.add_argument("--model-uri", help="or the model at this URI: models:/<name>/<version>, models:/<name>@<alias>")
    parser.add_argument("--dataset", help="evaluate on this data set (default: the one that the run trained on)")
    parser.add_argument(
        "--data-dir", type=cli.path, default=Path("data"), help="directory of the files (default: data)"
    )
    parser.add_argument(
        "--batch-size", type=cli.bounded_number(int, 1), default=500, help="images a step (default: 500)"
    )
    cli.add_device_option(parser)
    parser.add_argument("--output-dir", type=cli.path, help="directory of the reports (default: evaluation/<run_id>)")
    log = parser.add_mutually_exclusive_group()
    log.add_argument("--log-mlflow", action="store_true", help="also log reports and metrics to the run")
    log.add_argument(
        "--log-only", action="store_true", help="score nothing: log the finished reports in the output directory"
    )
    cli.add_store_patience_option(parser)
    options = parser.parse_args(argv)
    if options.log_only:
        given = parser.parse_given(argv)
        for name in SCORING_OPTIONS:
            if name in given:
                parser.error(f"--{name.replace('_', '-')} does not go with --log-only, which scores nothing")
    return options


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Load the model, score it, write the reports, log them if asked, print the result."""
    options = parse_options(argv)
    from pipeline.reports.evaluation_folder import log_reports
    from pipeline.tracking.outages import Patience
    from pipeline.tracking.store import connect

    patience = Patience(options.store_patience)
    with connect(writes=options.log_mlflow or options.log_only):
        prepare = read_finished_reports if options.log_only else evaluate
        reports = prepare(options, patience)
        if options.log_mlflow or options.log_only:
            with keep_reports(reports):
                log_reports(reports, patience)
    print_result(reports)
    return cli.OK


def default_folder(run_id: str) -> Path:
    """Return the directory of the reports unless ``--output-dir`` names another."""
    return Path("evaluation", run_id)


# --- score and write -------------------------------------------------------------------------------------------------


def evaluate(options: argparse.Namespace, patience: "Patience") -> "EvaluationReports":
    """Load the model, score it, and write the reports."""
    from pipeline.data.datasets import load_test_split
    from pipeline.evaluation.inference import choose_device
    from pipeline.files import atomic_directory
    from pipeline.provenance.train_digests import count_overlap
    from pipeline.reports.checklist_evidence import answer_checklist
    from pipeline.reports.evaluation_folder import EvaluationReports, find_report_files, remove_reports

    device = choose_device(options.device)
    stored, run = patience.call(partial(load_stored_model, options))
    run_id = run.info.run_id
    output_dir = options.output_dir or default_folder(run_id)
    find_report_files(output_dir)  # it says now what is wrong with them
    test = load_test_split(options.dataset or find_dataset_name(run), options.data_dir)
    test.check_shape(stored.form.shape, stored.uri)
    check_classes(stored, test)
    overlap = patience.call(partial(count_overlap, run_id, test))
    log_overlap(run_id, test, overlap)
    with atomic_directory(output_dir) as folder:
        record = score_model(stored, test, device, options.batch_size, overlap)
        record.write(folder)
        answers = patience.call(partial(answer_checklist, record, stored, run))
        write_checklist(folder, answers, title=f"{test.name}: run {run_id}")
        write_report(folder, record.evaluation)
        write_figures(folder, record.evaluation, test.images)
        remove_reports(output_dir)
    return EvaluationReports(run_id, output_dir, record, answers)


def load_stored_model(options: argparse.Namespace) -> "tuple[StoredModel, Run]":
    """Return the model, and the run that made it."""
    from pipeline.tracking.loading import load_model
    from pipeline.tracking.registry import resolve_model
    from pipeline.tracking.runs import get_run

    stored = load_model(resolve_model(options.model_uri, options.run_id, None))
    return stored, get_run(stored.run_id)


def find_dataset_name(run: "Run") -> str:
    """Return the name of the data set that the run trained on."""
    name: str | None = run.data.params.get("dataset")
    if not name:
        raise UserError(f"run {run.info.run_id} does not record its data set; name one with --dataset")
    return name


def check_classes(stored: "StoredModel", test: "Dataset") -> None:
    """Refuse a model whose classes are not those of the data set, in the same order: its answers would be misread."""
    from pipeline.data.class_names import find_class_difference

    difference = find_class_difference(stored.classes, test.classes)
    if difference:
        raise UserError(
            f"the classes of {stored.uri} are not those of {test.name}: its {difference}; "
            "evaluate it on the data set that it was trained on"
        )


def log_overlap(run_id: str, test: "Dataset", overlap: int | None) -> None:
    """Warn if the model was trained on test images, or if nobody knows."""
    if overlap is None:
        cli.log(
            f"warning: run {run_id} does not record which images it trained on, so test images may be among them; "
            "train it again to know"
        )
    elif overlap:
        cli.log(
            f"warning: {overlap:,} of {len(test):,} test images are also training images of run {run_id}; "
            "its figures look better than they are"
        )


def score_model(
    stored: "StoredModel", test: "Dataset", device: "torch.device", batch_size: int, overlap: int | None
) -> "EvaluationRecord":
    """Return the record of the model on the test images."""
    from pipeline.evaluation.inference import compute_logits
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
        parameters=stored.parameters,
        images_per_second=len(test) / seconds,
        device=device.type,
        overlap=overlap,
    )


def write_report(folder: Path, evaluation: "Evaluation") -> None:
    """Write precision, recall and F1 of each class."""
    write_json(folder / "classification_report.json", evaluation.classification_report())


def write_figures(folder: Path, evaluation: "Evaluation", images: "Tensor") -> None:
    """Draw the figures; to add one, draw it in `pipeline.reports.plots`, and name it here and in `REPORT_FILES`."""
    from pipeline.reports import image_plots, plots
    from pipeline.reports.figures import save_figures

    figures = {
        "confusion_matrix.png": partial(plots.plot_confusion_matrix, evaluation),
        "reliability.png": partial(plots.plot_reliability, evaluation),
        "misclassified_examples.png": partial(image_plots.plot_misclassified, evaluation, images),
        "confusions.png": partial(image_plots.plot_confusions, evaluation, images),
    }
    save_figures(folder, figures)


def write_checklist(folder: Path, answers: "list[Answer]", title: str) -> None:
    """Write the answers to the five questions, for programs and for people."""
    from pipeline.evaluation.record import CHECKLIST_FILE
    from pipeline.reports.checklist_text import format_checklist

    write_json(folder / CHECKLIST_FILE, [asdict(answer) for answer in answers])
    (folder / "checklist.md").write_text(format_checklist(answers, title), encoding="utf-8")


def write_json(file: Path, content: Any) -> None:
    """Write ``content`` for programs."""
    file.write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")


# --- log and print ---------------------------------------------------------------------------------------------------


def read_finished_reports(options: argparse.Namespace, patience: "Patience") -> "EvaluationReports":
    """Return the reports in the output directory, which must be about the model of the run."""
    from pipeline.reports.evaluation_folder import check_model, read_reports
    from pipeline.tracking.runs import get_run

    run = patience.call(partial(get_run, options.run_id))
    run_id = run.info.run_id
    reports = read_reports(options.output_dir or default_folder(run_id), run_id)
    patience.call(partial(check_model, reports))
    return reports


@contextmanager
def keep_reports(reports: "EvaluationReports") -> Iterator[None]:
    """If the reports cannot be logged, say why, where they are, and what logs them later.

    Raises
    ------
    UserError
        The store did not take everything.
    """
    from pipeline.tracking.outages import StoreAway, describe_problem
    from pipeline.tracking.store import StoreError

    command = f"python evaluate.py --run-id {reports.run_id} --log-only"
    if reports.folder != default_folder(reports.run_id):
        command += f" --output-dir {shlex.quote(str(reports.folder))}"
    try:
        yield
    except Stopped as stop:
        stop.advice = f"the reports are complete in {reports.folder}; log them with: {command}"
        raise
    except (StoreAway, StoreError, OSError) as error:
        raise UserError(
            f"the store did not take everything: {describe_problem(error)}; "
            f"the reports are complete in {reports.folder}; when the store works, run: {command}"
        ) from None


def print_result(reports: "EvaluationReports") -> None:
    """Show people accuracy and verdicts, and print the JSON for programs."""
    record = reports.record
    low, high = record.accuracy_interval.low, record.accuracy_interval.high
    cli.log(f"accuracy {record.accuracy:.2%} (95% interval {low:.2%} to {high:.2%}); reports in {reports.folder}")
    for answer in reports.answers:
        cli.log(f"{answer.question}: {answer.verdict}. {answer.sentences[0]}")
    cli.print_json(
        {
            "run_id": reports.run_id,
            "model_uri": record.model_uri,
            "dataset": record.dataset,
            "samples": record.samples,
            "test_accuracy": record.accuracy,
            "test_loss": record.loss,
            "test_f1": record.macro.f1,
            "images_per_second": record.images_per_second,
            "checklist": {answer.question: answer.verdict for answer in reports.answers},
            "output_dir": str(reports.folder),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
