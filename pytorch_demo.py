"""Train a CNN on MNIST, track it in MLflow and register it in Staging.

    python pytorch_demo.py                                   MNIST, everything at its default
    python pytorch_demo.py --dataset digits                  no download, a few seconds
    python pytorch_demo.py --dataset fashion-mnist --lr 0.005 --epochs 20
    python pytorch_demo.py --dataset dataset_cleaned         your own images, from prepare_data.py
    python pytorch_demo.py --reproduce 8f1c...               the training of that run again: is it the same model?
    RUN_ID=$(python pytorch_demo.py | jq -r .run_id)         the result is one line of JSON

Then: python evaluate.py --run-id $RUN_ID --log-mlflow, python promote.py --run-id $RUN_ID, mlflow ui.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.data.catalog import DATASET_NAMES, is_prepared, short_name
from pipeline.training.config import AUGMENTATIONS, MODELS, TrainingConfig, build_config

if TYPE_CHECKING:
    from torch import nn

    from pipeline.data.datasets import Dataset, Splits
    from pipeline.evaluation.metrics import Evaluation
    from pipeline.provenance.reproduction import Original
    from pipeline.provenance.source import CodeState
    from pipeline.training.loop import EpochResult, TrainingState

ROOT = Path(__file__).parent


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    add_data_options(parser.add_argument_group("data"))
    add_training_options(parser.add_argument_group("training"))
    add_tracking_options(parser.add_argument_group("tracking"))
    options = parser.parse_args(argv)
    if options.reproduce:
        check_reproduce_options(parser, options)
    if not options.model_name:
        options.model_name = f"{short_name(options.dataset)}-classifier"
    return options


def add_data_options(group: argparse._ArgumentGroup) -> None:
    """Add what says on which images to train."""
    names = ", ".join(DATASET_NAMES)
    group.add_argument(
        "--dataset",
        type=dataset_name,
        default="mnist",
        help=f"{names}, or the directory that prepare_data.py wrote (default: mnist)",
    )
    group.add_argument("--data-dir", type=Path, default=Path("data"), help="directory of the files (default: data)")
    group.add_argument("--limit", type=cli.bounded_number(int, 1), metavar="N", help="train on the first N images only")


def add_training_options(group: argparse._ArgumentGroup) -> None:
    """Add the fields of `TrainingConfig`, under their names."""
    count = cli.bounded_number(int, 1)
    rate = cli.bounded_number(float, 0, exclusive=True)
    share = cli.bounded_number(float, 0, 1)
    group.add_argument("--model", choices=MODELS, help="the network (default: by data set)")
    group.add_argument("--epochs", type=count, help="passes over the images (default: by data set)")
    group.add_argument("--batch-size", type=count, default=256, help="images a step (default: 256)")
    group.add_argument("--lr", type=rate, help="peak learning rate (default: by data set)")
    group.add_argument(
        "--weight-decay", type=cli.bounded_number(float, 0), default=0.05, help="of AdamW (default: 0.05)"
    )
    group.add_argument(
        "--label-smoothing", type=share, default=0.05, help="share of a label spread over all classes (default: 0.05)"
    )
    group.add_argument("--augment", nargs="+", choices=AUGMENTATIONS, help="vary images (default: by data set)")
    group.add_argument("--seed", type=cli.bounded_number(int, 0), default=0, help="of everything random (default: 0)")
    cli.add_device_option(group)


def add_tracking_options(group: argparse._ArgumentGroup) -> None:
    """Add what says under which names MLflow keeps the result."""
    group.add_argument("--experiment", default="pytorch-demo", help="MLflow experiment (default: pytorch-demo)")
    group.add_argument("--run-name", help="name of the run (default: MLflow invents one)")
    group.add_argument("--model-name", help="registered model (default: <dataset>-classifier)")
    group.add_argument(
        "--no-register", dest="register", action="store_false", help="log the model, but register no version"
    )
    group.add_argument("--system-metrics", action="store_true", help="log use of processor, memory and network")
    group.add_argument(
        "--reproduce", metavar="RUN_ID", help="train again as that run did and compare; exit code 1 if they differ"
    )


def dataset_name(text: str) -> str:
    """Return the name or directory of a data set; an argparse type."""
    if text not in DATASET_NAMES and not is_prepared(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(DATASET_NAMES)}, nor a directory that prepare_data.py wrote"
        )
    return text.rstrip("/")


def check_reproduce_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse the options that ``--reproduce`` takes from the run; register no version."""
    options.register = False
    for name in [*(field.name for field in fields(TrainingConfig)), "model_name"]:
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} does not go with --reproduce, which takes it from the run")


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Load the data, train the network in an MLflow run, test it, log it, register it, print the result."""
    options = parse_options(argv)
    from pipeline.provenance.reproduction import load_original
    from pipeline.provenance.source import describe_code
    from pipeline.tracking import registry, runs, store
    from pipeline.training.calibration import calibrate_temperature

    code = describe_code(ROOT)  # as it is now: it may change during the training
    command = shlex.join([Path(__file__).name, *argv])
    registry.check_model_name(options.model_name)
    with store.connect() as tracking_uri:
        original = load_original(options.reproduce) if options.reproduce else None
        splits, config = load_data(options, original)
        if original:
            check_original(original, splits, code)
        model = build_network(config, splits)
        with runs.start_run(options.experiment, options.run_name, system_metrics=options.system_metrics) as run_id:
            cli.log(f"run {run_id}: {config.model} on {config.dataset}, {len(splits.train):,} images, {config.device}")
            log_origin(run_id, config, code, command)
            if original:
                runs.set_tags(run_id, {"reproduces": original.run.info.run_id})
            state = train(run_id, config, model, splits)
            temperature = calibrate_temperature(model, splits.validation, state.device)
            test = splits.test
            del splits  # the training images make room for what follows
            evaluation = evaluate_on_test(run_id, state, test, temperature)
            model_uri = log_model(run_id, state, test, evaluation)
            version = None
            if options.register:
                version = registry.register_model(options.model_name, model_uri, run_id)
        differences = compare_runs(original, run_id, model) if original else {}
    cli.log(f"test accuracy {evaluation.accuracy:.2%}; next: python evaluate.py --run-id {run_id} --log-mlflow")
    result = {
        "run_id": run_id,
        "model_name": options.model_name if options.register else None,
        "model_version": version,
        "model_uri": model_uri,
        "dataset": config.dataset,
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "training_seconds": state.training_seconds,
        "tracking_uri": tracking_uri,
    }
    cli.print_json(result | differences)
    return cli.OK if differences.get("identical", True) else cli.REFUSED


def load_data(options: argparse.Namespace, original: "Original | None") -> "tuple[Splits, TrainingConfig]":
    """Return the data and the configuration: that of the original run, or what the options say."""
    from pipeline.data.datasets import load_splits
    from pipeline.evaluation.inference import choose_device

    if original:
        config = original.config
        choose_device(config.device)  # this machine may lack it
        return load_splits(config.dataset, options.data_dir, limit=config.limit), config
    device = choose_device(options.device)
    splits = load_splits(options.dataset, options.data_dir, limit=options.limit)
    return splits, build_config(options.dataset, len(splits.train), device.type, vars(options))


def check_original(original: "Original", splits: "Splits", code: "CodeState") -> None:
    """Refuse data that are not those of the original run; warn if the code is not."""
    from pipeline.provenance.reproduction import check_data_digests, warn_about_changed_code

    check_data_digests(original, data_digests(splits))
    warn_about_changed_code(original, code)


def data_digests(splits: "Splits") -> dict[str, str]:
    """Return the digest of each split, named as the parameters of the run."""
    return {f"{name}_digest": split.digest for name, split in splits._asdict().items()}


def build_network(config: TrainingConfig, splits: "Splits") -> "nn.Sequential":
    """Return the network with its first weights, which follow from the seed."""
    import torch

    from pipeline.training.models import build_model

    torch.manual_seed(config.seed)
    return build_model(config.model, len(splits.train.classes), splits.train.images)


def log_origin(run_id: str, config: TrainingConfig, code: "CodeState", command: str) -> None:
    """Log where the training comes from: code, environment, command, and the cleaning report of one's own data."""
    import torch

    from pipeline.data.prepared import find_cleaning_report
    from pipeline.provenance.record import PROVENANCE_FOLDER, build_run_tags, write_provenance
    from pipeline.tracking import artifacts, runs

    report = find_cleaning_report(config.dataset)
    runs.set_tags(run_id, build_run_tags(code, torch.device(config.device), command, report))
    with tempfile.TemporaryDirectory() as folder:
        write_provenance(Path(folder), code.patch, report)
        artifacts.log_artifacts(run_id, Path(folder), PROVENANCE_FOLDER)


def train(run_id: str, config: TrainingConfig, model: "nn.Sequential", splits: "Splits") -> "TrainingState":
    """Train the network in place, log parameters and the metrics of each epoch; return the state at the end."""
    import torch

    from pipeline.evaluation.inference import count_multiply_adds, count_parameters
    from pipeline.tracking import runs
    from pipeline.training.loop import describe_optimizer, start_training, train_one_epoch

    params = config.as_params()
    params.update({f"{name}_size": len(split) for name, split in splits._asdict().items()})
    params.update(data_digests(splits))
    params["model_parameters"] = count_parameters(model)
    params["model_multiply_adds"] = count_multiply_adds(model.eval())
    device = torch.device(config.device)
    state = start_training(model, config, len(splits.train), device)
    params.update(describe_optimizer(state.optimizer))
    runs.log_params(run_id, params)
    runs.log_inputs({"training": splits.train, "testing": splits.test})

    training_data = splits.train.to(device)
    is_terminal = sys.stderr.isatty()
    for _ in range(config.epochs):
        result = train_one_epoch(state, training_data, splits.validation, config, progress=is_terminal)
        runs.log_metrics(run_id, result.metrics(), step=result.epoch)
        if not is_terminal:  # there the progress bar shows it
            cli.log(str(result))
    return state


def evaluate_on_test(run_id: str, state: "TrainingState", test: "Dataset", temperature: float) -> "Evaluation":
    """Score the network on the test images, once; log the final metrics."""
    from pipeline.evaluation.inference import compute_logits
    from pipeline.evaluation.metrics import Evaluation
    from pipeline.tracking import runs

    logits = compute_logits(state.model, test.images, device=state.device)
    evaluation = Evaluation.from_logits(logits, test.labels, test.classes)
    metrics = evaluation.as_metrics("test")
    metrics["training_seconds"] = state.training_seconds
    metrics["temperature"] = temperature
    runs.log_metrics(run_id, metrics)
    return evaluation


def log_model(run_id: str, state: "TrainingState", test: "Dataset", evaluation: "Evaluation") -> str:
    """Log the reports, the model and the hashes of both its weights and its file; return the model's address."""
    import torch

    from pipeline.provenance.record import compute_weights_sha256
    from pipeline.tracking import artifacts, models, runs
    from pipeline.training.models import summarize_model

    model = state.model.cpu().to(memory_format=torch.contiguous_format)  # as torch.export wants it
    with tempfile.TemporaryDirectory() as folder:
        write_reports(Path(folder), evaluation, state.history, summarize_model(model))
        artifacts.log_artifacts(run_id, Path(folder))
    model_uri = models.log_model(model, test.images[:2].float(), test.classes)
    tags = {
        "result.weights_sha256": compute_weights_sha256(model.state_dict()),
        "result.model_sha256": models.compute_model_sha256(model_uri),
    }
    runs.set_tags(run_id, tags)
    return model_uri


def write_reports(folder: Path, evaluation: "Evaluation", history: "list[EpochResult]", summary: str) -> None:
    """Write the artifacts that people look at into ``folder``."""
    from pipeline.reports import plots

    plots.plot_confusion_matrix(evaluation).savefig(folder / "confusion_matrix.png")
    plots.plot_training_curves(history).savefig(folder / "training_curves.png")
    report = json.dumps(evaluation.classification_report(), indent=2)
    (folder / "classification_report.json").write_text(report, encoding="utf-8")
    (folder / "classification_report.txt").write_text(evaluation.classification_report_text(), encoding="utf-8")
    (folder / "model_summary.txt").write_text(summary, encoding="utf-8")


def compare_runs(original: "Original", run_id: str, model: "nn.Sequential") -> dict[str, Any]:
    """Return how the result differs from that of the original run."""
    from pipeline.provenance.reproduction import compare_with_original
    from pipeline.tracking import runs

    differences = compare_with_original(original.run, runs.get_run(run_id), model.state_dict())
    if differences["identical"]:
        cli.log("identical")
    else:
        cli.log(f"not identical: {json.dumps(differences, indent=2)}")
    return differences


if __name__ == "__main__":
    sys.exit(main())
