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
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.evaluation import Evaluation
    from pipeline.training import Epoch

# By data set, chosen on its validation split (benchmarks/NOTES.md). digits is small: 20 epochs are 100 batches.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mnist": {"model": "cnn", "epochs": 6, "lr": 0.01, "augment": ["affine"]},
    "fashion-mnist": {"model": "resnet", "epochs": 8, "lr": 0.005, "augment": ["flip", "erase"]},
    "digits": {"model": "cnn", "epochs": 20, "lr": 0.01, "augment": ["affine"]},
}
OWN = {"model": "cnn", "lr": 0.01, "augment": ["affine"]}  # a data set of your own; epochs by its size


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        type=dataset,
        default="mnist",
        help=f"{', '.join(DEFAULTS)}, or the directory that prepare_data.py made (default: mnist)",
    )
    data.add_argument("--data-dir", type=Path, default=Path("data"), help="where the files lie (default: data)")
    data.add_argument("--limit", type=cli.number(int, 1), metavar="N", help="train on the first N images only")
    training = parser.add_argument_group("training")
    training.add_argument("--model", choices=("cnn", "resnet", "mlp"), help="the network (default: by data set)")
    training.add_argument("--epochs", type=cli.number(int, 1), help="passes over the images (default: by data set)")
    training.add_argument("--batch-size", type=cli.number(int, 1), default=256, help="images a step (default: 256)")
    rate = cli.number(float, 0, above=True)
    training.add_argument("--lr", type=rate, help="peak learning rate (default: by data set)")
    training.add_argument("--weight-decay", type=cli.number(float, 0), default=0.05, help="of AdamW (default: 0.05)")
    share = cli.number(float, 0, high=1)
    training.add_argument(
        "--label-smoothing", type=share, default=0.05, help="share of a label spread over all classes (default: 0.05)"
    )
    augmentations = ("affine", "flip", "erase", "none")
    training.add_argument("--augment", nargs="+", choices=augmentations, help="vary images (default: by data set)")
    training.add_argument("--seed", type=cli.number(int, 0), default=0, help="of everything random (default: 0)")
    cli.add_device(training)
    tracking = parser.add_argument_group("tracking")
    tracking.add_argument("--experiment", default="pytorch-demo", help="MLflow experiment (default: pytorch-demo)")
    tracking.add_argument("--run-name", help="name of the run (default: MLflow invents one)")
    tracking.add_argument("--model-name", help="registered model (default: <dataset>-classifier)")
    tracking.add_argument(
        "--no-register", dest="register", action="store_false", help="log the model, but register no version"
    )
    tracking.add_argument("--system-metrics", action="store_true", help="log use of processor, memory and network")
    tracking.add_argument(
        "--reproduce", metavar="RUN_ID", help="train again as that run did and compare; exit code 1 if they differ"
    )
    options = parser.parse_args()
    if options.reproduce:
        options.register = False
        free = ("reproduce", "register", "data_dir", "experiment", "run_name", "system_metrics")
        for name, value in vars(options).items():
            if name not in free and value != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} does not go with --reproduce, which takes it from the run")
    for name, default in DEFAULTS.get(options.dataset, OWN).items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    options.model_name = options.model_name or f"{cli.short_name(options.dataset)}-classifier"
    return options


def dataset(text: str) -> str:
    """Return the name or directory of a data set; an argparse type."""
    if text not in DEFAULTS and not Path(text, "classes.json").is_file():
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(DEFAULTS)}, nor a directory that prepare_data.py made"
        )
    return text.rstrip("/")


def main() -> int:
    """Load, build, open the run, fit, evaluate, log, register, print."""
    options = parse_options()
    import torch

    from pipeline import data, model, provenance, registry, reproduction, tracking, training
    from pipeline.evaluation import choose_device, evaluate, multiply_adds, parameters, predict

    code, patch = provenance.code(Path(__file__).parent)  # as it is now: it may change while this trains
    registry.check_name(options.model_name)
    with tracking.connected() as tracking_uri:
        original = reproduction.recall(options.reproduce, options) if options.reproduce else None
        device = choose_device(options.device)
        splits = data.load(options.dataset, options.data_dir)
        splits = splits._replace(train=splits.train.take(slice(options.limit)))
        options.epochs = options.epochs or training.epochs(len(splits.train), options.batch_size)
        report = data.report_of(options.dataset)
        digests = {f"{split}_digest": part.digest for split, part in splits._asdict().items()}
        if original:
            reproduction.check_data(original, digests)
            reproduction.warn(original, code)
        torch.manual_seed(options.seed)
        network = model.build(options.model, len(splits.train.classes), splits.train.images)
        optimizer = training.optimizer(network, options.lr, options.weight_decay)

        with tracking.run(options.experiment, options.run_name, options.system_metrics) as run_id:
            cli.log(f"run {run_id}: {options.model} on {options.dataset}, {len(splits.train):,} images, {device.type}")
            sizes = {f"{split}_size": len(part) for split, part in splits._asdict().items()}
            sizes |= {"model_parameters": parameters(network), "model_multiply_adds": multiply_adds(network.eval())}
            chosen = {
                "augment": " ".join(options.augment),
                "device": device.type,
                "optimizer": type(optimizer).__name__,
            }
            tracking.log_params(run_id, optimizer.defaults | vars(options) | chosen | sizes | digests)
            tracking.log_inputs({"training": splits.train, "testing": splits.test})
            tracking.set_tags(run_id, provenance.tags(code, device, report) | {"reproduces": options.reproduce})
            with tempfile.TemporaryDirectory() as folder:
                provenance.write(Path(folder), patch, report)
                tracking.log_artifacts(run_id, Path(folder), "provenance")

            epochs = []
            for epoch in training.fit(
                network,
                optimizer,
                splits.train,
                splits.validation,
                epochs=options.epochs,
                batch_size=options.batch_size,
                seed=options.seed,
                device=device,
                label_smoothing=options.label_smoothing,
                augment=options.augment,
                progress=sys.stderr.isatty(),
            ):
                epochs.append(epoch)
                tracking.log_metrics(run_id, epoch.metrics(), step=epoch.epoch)
                if not sys.stderr.isatty():
                    cli.log(str(epoch))

            temperature = training.calibrate(network, splits.validation, device)
            test = splits.test
            del splits  # the training images make room for what follows
            evaluation = evaluate(predict(network, test.images, device=device), test.labels, test.classes)
            results = evaluation.metrics("test") | {"training_seconds": epochs[-1].training_seconds}
            results["temperature"] = temperature
            tracking.log_metrics(run_id, results)
            network.cpu().to(memory_format=torch.contiguous_format)  # as torch.export wants it
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), evaluation, epochs, model.summary(network))
                tracking.log_artifacts(run_id, Path(folder))
            model_uri = tracking.log_model(network, test.images[:2].float(), test.classes)
            hashes = {"weights": provenance.weights_sha256(network.state_dict())}
            hashes["model"] = tracking.model_sha256(model_uri)
            tracking.set_tags(run_id, {f"result.{name}_sha256": value for name, value in hashes.items()})
            version = None
            if options.register:
                version = registry.register(options.model_name, model_uri, run_id)
        differences = {}
        if original:
            differences = reproduction.compare(original, tracking.get_run(run_id), network.state_dict())
    if original:
        cli.log("identical" if differences["identical"] else f"not identical: {json.dumps(differences, indent=2)}")
    cli.log(f"test accuracy {evaluation.accuracy:.2%}; next: python evaluate.py --run-id {run_id} --log-mlflow")
    cli.print_json(
        {
            "run_id": run_id,
            "model_name": options.model_name if options.register else None,
            "model_version": version,
            "model_uri": model_uri,
            "dataset": options.dataset,
            "test_accuracy": evaluation.accuracy,
            "test_loss": evaluation.loss,
            "training_seconds": epochs[-1].training_seconds,
            "tracking_uri": tracking_uri,
        }
        | differences
    )
    return cli.OK if differences.get("identical", True) else cli.REFUSED


def write(folder: Path, evaluation: "Evaluation", epochs: "list[Epoch]", summary: str) -> None:
    """Write the artifacts that people look at into ``folder``."""
    from pipeline import plots

    plots.confusion_matrix(evaluation).savefig(folder / "confusion_matrix.png")
    plots.training_curves(epochs).savefig(folder / "training_curves.png")
    (folder / "classification_report.txt").write_text(evaluation.text(), encoding="utf-8")
    (folder / "classification_report.json").write_text(json.dumps(evaluation.report, indent=2), encoding="utf-8")
    (folder / "model_summary.txt").write_text(summary, encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
