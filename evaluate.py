"""Reload a run's model from MLflow, score it on the test set and write the reports.

    python evaluate.py --run-id 8f1c... --log-mlflow         reports go back into the run: promote.py reads them
    python evaluate.py --model-uri models:/mnist-classifier@champion
    python evaluate.py --run-id 8f1c... --dataset mnist --output-dir /tmp/reports

Independent of training: the model comes from MLflow as a graph (torch.export), not from this repository's code.
"""

import argparse
import hashlib
import json
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import UserError, cli

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data import Dataset
    from pipeline.evaluation import Evaluation
    from pipeline.tracking import StoredModel


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run-id", help="evaluate the model of this run")
    which.add_argument("--model-uri", help="or the model at this URI: models:/<name>/<version>, models:/<name>@<alias>")
    parser.add_argument("--dataset", help="evaluate on this data set (default: the one the run trained on)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the files lie (default: data)")
    parser.add_argument("--batch-size", type=cli.number(int, 1), default=500, help="images a step (default: 500)")
    cli.add_device(parser)
    parser.add_argument("--output-dir", type=Path, help="where the reports go (default: evaluation/<run_id>)")
    parser.add_argument("--log-mlflow", action="store_true", help="also log reports and metrics to the run")
    return parser.parse_args()


def main() -> int:
    """Find the model, score it, write the reports, log them where asked, print."""
    options = parse_options()
    from pipeline import checklist, data, tracking
    from pipeline.evaluation import choose_device, evaluate, predict

    device = choose_device(options.device)
    with tracking.connected():
        stored = tracking.load_model(options.model_uri or tracking.model_of(options.run_id))
        run_id = options.run_id or stored.run_id
        run = tracking.get_run(run_id)
        name = options.dataset or run.data.params.get("dataset")
        if not name:
            raise UserError(f"run {run_id} does not say what it trained on; name the data set with --dataset")
        test = data.load_test(name, options.data_dir)
        output_dir = options.output_dir or Path("evaluation", run_id)
        with cli.whole(output_dir) as folder:
            start = time.perf_counter()
            logits = predict(stored.module.to(device), test.images, device=device, batch_size=options.batch_size)
            rate = len(test) / (time.perf_counter() - start)
            evaluation = evaluate(logits, test.labels, test.classes)
            write(folder, evaluation, test.images)
            record = describe(evaluation, test, stored, rate, device.type)
            record["predictions_sha256"] = hashlib.sha256((folder / "predictions.csv").read_bytes()).hexdigest()
            write_json(folder / "evaluation.json", record)
            answers = checklist.answers(evaluation, test, stored, run, rate)
            write_json(folder / "checklist.json", [asdict(answer) for answer in answers])
            text = checklist.markdown(answers, f"{name}: run {run_id}")
            (folder / "checklist.md").write_text(text, encoding="utf-8")
            if options.log_mlflow:
                tracking.log_artifacts(run_id, folder, tracking.EVALUATION)
                tracking.log_metrics(run_id, evaluation.metrics(tracking.EVALUATION))
    low, high = evaluation.interval
    cli.log(f"accuracy {evaluation.accuracy:.2%} (95% interval {low:.2%} to {high:.2%}); reports in {output_dir}")
    for answer in answers:
        cli.log(f"{answer.question}: {answer.verdict}. {answer.sentences[0]}")
    cli.print_json(
        {
            "run_id": run_id,
            "model_uri": stored.uri,
            "dataset": name,
            "samples": len(test),
            "test_accuracy": evaluation.accuracy,
            "test_loss": evaluation.loss,
            "test_f1": evaluation.f1,
            "images_per_second": rate,
            "checklist": {answer.question: answer.verdict for answer in answers},
            "output_dir": str(output_dir),
        }
    )
    return cli.OK


def describe(
    evaluation: "Evaluation", test: "Dataset", stored: "StoredModel", images_per_second: float, device: str
) -> dict[str, Any]:
    """Return ``evaluation.json``: which model, on which data, how good, when and with what."""
    from pipeline import provenance
    from pipeline.evaluation import parameters

    return {
        "model_id": stored.model_id,
        "model_uri": stored.uri,
        "model_sha256": stored.sha256,
        "parameters": parameters(stored.module),
        "dataset": test.name,
        "dataset_digest": test.digest,
        "samples": len(test),
        "accuracy": evaluation.accuracy,
        "accuracy_interval": {"confidence": 0.95, "low": evaluation.interval[0], "high": evaluation.interval[1]},
        "loss": evaluation.loss,
        "macro": {"precision": evaluation.precision, "recall": evaluation.recall, "f1": evaluation.f1},
        "classes": dict(zip(evaluation.classes, evaluation.per_class, strict=True)),
        "confusions": evaluation.confusions(10),
        "images_per_second": images_per_second,
        "device": device,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("torch", "torchvision", "mlflow", "scikit-learn", "numpy")},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance.here(),
    }


def write(folder: Path, evaluation: "Evaluation", images: "Tensor") -> None:
    """Write the reports into ``folder``."""
    import pandas as pd

    from pipeline import plots

    plots.confusion_matrix(evaluation).savefig(folder / "confusion_matrix.png")
    plots.misclassified(evaluation, images).savefig(folder / "misclassified_examples.png")
    plots.confusions(evaluation, images).savefig(folder / "confusions.png")
    plots.reliability(evaluation).savefig(folder / "reliability.png")
    write_json(folder / "classification_report.json", evaluation.report)
    predictions = pd.DataFrame(evaluation.probabilities, columns=list(evaluation.classes))
    predictions.insert(0, "label", evaluation.labels, allow_duplicates=True)  # a class may be called so too
    predictions.insert(1, "prediction", evaluation.predictions, allow_duplicates=True)
    predictions.to_csv(folder / "predictions.csv", index_label="index", float_format="%.9g")


def write_json(file: Path, content: Any) -> None:
    """Write ``content`` for programs."""
    file.write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
