"""Train a CNN on MNIST, track it in MLflow and register it in Staging.

    python pytorch_demo.py                                   MNIST, everything at its default
    python pytorch_demo.py --dataset digits                  no download, a few seconds
    python pytorch_demo.py --dataset fashion-mnist --lr 0.005 --epochs 20
    python pytorch_demo.py --dataset dataset_cleaned         your own images, from prepare_data.py
    python pytorch_demo.py --dataset photos_cleaned --model mobilenet --pretrained      few photos, ImageNet's weights
    python pytorch_demo.py --resume last                     go on with a training that was interrupted
    python pytorch_demo.py --from 8f1c...                    start from the weights of that run
    python pytorch_demo.py --reproduce 8f1c...               the training of that run again: is it the same model?
    RUN_ID=$(python pytorch_demo.py | jq -r .run_id)         the result is one line of JSON

Then: python evaluate.py --run-id $RUN_ID --log-mlflow, python promote.py --run-id $RUN_ID, mlflow ui.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.data.catalog import DATASET_NAMES, is_prepared, short_name
from pipeline.errors import UserError
from pipeline.redact import redact
from pipeline.training.config import (
    AUGMENTATIONS,
    KEPT_WEIGHTS,
    MODELS,
    PRETRAINED_MODEL,
    RANGES,
    TrainingConfig,
    build_config,
)

if TYPE_CHECKING:
    from pipeline.data.datasets import Splits
    from pipeline.provenance.resumption import Resumption
    from pipeline.provenance.source import CodeState
    from pipeline.session.training import CheckpointPolicy, Training
    from pipeline.training.checkpoint import TrainingJob
    from pipeline.training.loop import TrainingState
    from pipeline.training.pretrained import PretrainedWeights

ROOT = Path(__file__).parent


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right.

    ``given`` among them has those of the command line alone.
    """
    parser = cli.Parser(__doc__)
    add_data_options(parser.add_argument_group("data"))
    add_training_options(parser.add_argument_group("training"))
    add_tracking_options(parser.add_argument_group("tracking"))
    add_checkpoint_options(parser.add_argument_group("checkpoints"))
    add_earlier_run_options(parser.add_argument_group("an earlier run").add_mutually_exclusive_group())
    options = parser.parse_args(argv)
    options.given = parser.parse_given(argv)
    check_weights_options(parser, options)
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
    group.add_argument("--data-dir", type=cli.path, default=Path("data"), help="directory of the files (default: data)")
    group.add_argument("--limit", type=number(int, "limit"), metavar="N", help="train on the first N images only")


def add_training_options(group: argparse._ArgumentGroup) -> None:
    """Add the fields of `TrainingConfig`, under their names."""
    group.add_argument("--model", choices=MODELS, help="the network (default: by data set)")
    group.add_argument(
        "--pretrained", action="store_true", help=f"start a {PRETRAINED_MODEL} from weights of ImageNet (10 MB, once)"
    )
    group.add_argument(
        "--weights", type=cli.path, metavar="FILE", help=f"start a {PRETRAINED_MODEL} from the weights in this file"
    )
    group.add_argument("--epochs", type=number(int, "epochs"), help="passes over the images (default: by data set)")
    group.add_argument("--batch-size", type=number(int, "batch_size"), default=256, help="images a step (default: 256)")
    group.add_argument("--lr", type=number(float, "lr"), help="peak learning rate (default: by data set)")
    group.add_argument(
        "--weight-decay", type=number(float, "weight_decay"), default=0.05, help="of AdamW (default: 0.05)"
    )
    group.add_argument(
        "--label-smoothing",
        type=number(float, "label_smoothing"),
        default=0.05,
        help="share of a label spread over all classes (default: 0.05)",
    )
    group.add_argument("--augment", nargs="+", choices=AUGMENTATIONS, help="vary images (default: by data set)")
    group.add_argument("--seed", type=number(int, "seed"), default=0, help="of everything random (default: 0)")
    group.add_argument(
        "--keep",
        choices=KEPT_WEIGHTS,
        default="last",
        help="the epoch whose weights are tested and logged; best: by validation loss (default: last)",
    )
    cli.add_device_option(group)


def number(kind: type, field: str) -> Callable[[str], Any]:
    """Return an argparse type for a field of `TrainingConfig`."""
    return cli.bounded_number(kind, *RANGES[field][:2], exclusive=RANGES[field].exclusive)


def add_tracking_options(group: argparse._ArgumentGroup) -> None:
    """Add what says under which names MLflow keeps the result."""
    group.add_argument(
        "--experiment",
        default="pytorch-demo",
        help="MLflow experiment (default: MLFLOW_EXPERIMENT_NAME, else pytorch-demo)",
    )
    group.add_argument("--run-name", help="name of the run (default: MLflow invents one)")
    group.add_argument("--model-name", help="registered model (default: <dataset>-classifier)")
    group.add_argument(
        "--no-register", dest="register", action="store_false", help="log the model, but register no version"
    )
    group.add_argument("--system-metrics", action="store_true", help="log use of processor, memory and network")
    cli.add_store_patience_option(group)


def add_checkpoint_options(group: argparse._ArgumentGroup) -> None:
    """Add when and where the state of the training is saved."""
    group.add_argument(
        "--checkpoint-dir",
        type=cli.path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="has a folder for each run until it has finished (default: checkpoints)",
    )
    group.add_argument(
        "--checkpoint-every", type=cli.bounded_number(int, 1), default=1, metavar="N", help="epochs (default: 1)"
    )
    group.add_argument("--no-checkpoint", dest="checkpoint", action="store_false", help="save none")
    group.add_argument("--keep-checkpoints", action="store_true", help="do not remove them when the run has finished")
    group.add_argument("--log-checkpoints", action="store_true", help="also log them to the run, as artifacts")


def add_earlier_run_options(group: argparse._MutuallyExclusiveGroup) -> None:
    """Add what begins with an earlier training; at most one of them."""
    group.add_argument(
        "--resume", metavar="RUN_ID", help="go on with that training, in the same run; last: with the newest one"
    )
    group.add_argument(
        "--from", dest="from_run", metavar="RUN_ID", help="a new training that starts from the weights of that run"
    )
    group.add_argument(
        "--reproduce", metavar="RUN_ID", help="train again as that run did and compare; exit code 1 if they differ"
    )


def dataset_name(text: str) -> str:
    """Return the name or directory of a data set; an argparse type."""
    cli.path(text)
    if text not in DATASET_NAMES and not is_prepared(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(DATASET_NAMES)}, nor a directory that prepare_data.py wrote"
        )
    return text.rstrip("/")


def check_weights_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse ``--pretrained`` and ``--weights`` where nothing would come of them."""
    given = [f"--{name}" for name in ("pretrained", "weights") if getattr(options, name)]
    if not given:
        return
    if options.resume:
        parser.error(f"{given[0]} does not go with --resume: the checkpoint has the weights")
    if options.from_run:
        parser.error(f"{given[0]} does not go with --from, which takes the weights of a run")
    if options.model != PRETRAINED_MODEL and not options.reproduce:
        parser.error(f"{given[0]} is for --model {PRETRAINED_MODEL} only")


def check_reproduce_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse the options that ``--reproduce`` takes from the run; register no version."""
    options.register = False
    for name in [*(field.name for field in fields(TrainingConfig)), "model_name", "pretrained"]:
        if name in options.given:
            parser.error(f"--{name.replace('_', '-')} does not go with --reproduce, which takes it from the run")


def check_names(options: argparse.Namespace) -> None:
    """Refuse a name that no store can keep, or that holds a secret: everybody who uses the store sees it.

    Raises
    ------
    UserError
        There is one.
    """
    from pipeline.tracking import names, registry

    registry.check_model_name(options.model_name)
    if options.run_name:
        names.check_name(redact(options.run_name), names.RUN)  # as the store gets it
    for option, name in (("--experiment", options.experiment), ("--model-name", options.model_name)):
        if redact(name) != name:
            raise UserError(f"{option} holds a secret, or what looks like one; choose another name")


def check_names_in_store(options: argparse.Namespace) -> None:
    """Refuse, before the training, new names that the store cannot keep, and those that it takes for others.

    Raises
    ------
    UserError
        There is one.
    """
    from pipeline.tracking import names, registry, runs

    if options.resume:  # the training has its names
        return
    if runs.find_experiment(options.experiment) is None:
        names.check_name(names.locate_experiment(options.experiment), names.EXPERIMENT)
    if options.register:
        registry.check_name_for_training(options.model_name)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Load the data, train the network in an MLflow run, test it, log it, register it, print the result."""
    options = parse_options(argv)
    check_names(options)
    from pipeline.provenance.source import describe_code
    from pipeline.session.epochs import train
    from pipeline.session.result import finish, log_complete_training, remove_checkpoints
    from pipeline.session.run import log_origin, open_run
    from pipeline.tracking import store
    from pipeline.tracking.outages import Patience

    code = describe_code(ROOT)  # as it is now: it may change during the training
    command = shlex.join([Path(__file__).name, *argv])
    patience = Patience(options.store_patience)
    with store.connect(creates=True) as tracking_uri, ExitStack() as stack:
        obey_environment(options)
        check_names_in_store(options)
        resumption = find_resumption(options, stack) if options.resume else None
        end_lost_runs(options, resumption)
        differences: dict[str, Any] = {}
        if resumption and resumption.result:
            folder = resumption.folder
            result, delivered = log_complete_training(resumption, patience)
        else:
            training = prepare(options, resumption, code)
            with open_run(training, patience, system_metrics=options.system_metrics):
                patience.call(partial(log_origin, training, code, command))
                train(training)
                result, delivered = finish(training, patience)
            folder = training.folder
            if training.original:
                differences = compare_results(training)
        remove_checkpoints(folder, keep=options.keep_checkpoints)
    accuracy = result.metrics["test_accuracy"]
    cli.log(f"test accuracy {accuracy:.2%}; next: python evaluate.py --run-id {result.run_id} --log-mlflow")
    output = {
        "run_id": result.run_id,
        "model_name": result.model_name,
        "model_version": delivered.version,
        "model_uri": delivered.model_uri,
        "dataset": result.params["dataset"],
        "test_accuracy": accuracy,
        "test_loss": result.metrics["test_loss"],
        "training_seconds": result.metrics["training_seconds"],
        "tracking_uri": tracking_uri,
    }
    cli.print_json(output | differences)
    return cli.OK if differences.get("identical", True) else cli.REFUSED


def obey_environment(options: argparse.Namespace) -> None:
    """Take what MLflow's variables say of experiment and system metrics, if no option says it."""
    from pipeline.tracking.environment import find_experiment_name, is_logging_system_metrics

    if "experiment" not in options.given:
        options.experiment = find_experiment_name() or options.experiment
        check_names(options)
    options.system_metrics = options.system_metrics or is_logging_system_metrics()


def end_lost_runs(options: argparse.Namespace, resumption: "Resumption | None") -> None:
    """End the runs of trainings that died on this machine, and say how they can go on."""
    from pipeline.tracking import lost_runs

    for run_id in lost_runs.end_lost_runs(options.experiment):
        if resumption and resumption.run.info.run_id == run_id:
            continue
        cli.log(lost_runs.describe_lost_run(run_id, options.checkpoint_dir))


def find_resumption(options: argparse.Namespace, stack: ExitStack) -> "Resumption":
    """Return the training that goes on; until the end of ``stack`` no other process can resume it."""
    from pipeline.provenance.resumption import check_options, find_folder, load_resumption
    from pipeline.tracking.runs import get_run
    from pipeline.training.checkpoint import lock_folder

    folder = find_folder(options.resume, options.checkpoint_dir)
    get_run(folder.name)  # a mistyped id creates no folder
    stack.enter_context(lock_folder(folder))
    resumption = load_resumption(folder)
    if resumption.checkpoint:
        check_options(resumption.checkpoint, options.given)
    return resumption


def prepare(options: argparse.Namespace, resumption: "Resumption | None", code: "CodeState") -> "Training":
    """Load the data, build the network, and bring both to where the training begins or goes on."""
    from pipeline.data.datasets import load_splits
    from pipeline.data.forms import PHOTO
    from pipeline.evaluation.inference import choose_device
    from pipeline.provenance.reproduction import check_data_digests, load_original, warn_about_changed_code
    from pipeline.session.training import Training
    from pipeline.training.pretrained import find_weights

    checkpoint = resumption.checkpoint if resumption else None
    reproduced = checkpoint.job.reproduces if checkpoint else options.reproduce
    original = load_original(reproduced) if reproduced else None
    earlier = checkpoint.job if checkpoint else original
    weights = None  # a checkpoint has its own
    if earlier:
        config = earlier.config
        choose_device(config.device)  # this machine may lack it
        set_threads(earlier.threads)
        splits = load_splits(config.dataset, options.data_dir, limit=config.limit)
        check_data_digests(earlier.run_id, earlier.digests, data_digests(splits))
        if config.weights_sha256 and not checkpoint:
            weights = find_weights(options.weights, config.weights_sha256)
    else:
        device = choose_device(options.device)
        if options.pretrained or options.weights:
            weights = find_weights(options.weights, None)
        splits = load_splits(options.dataset, options.data_dir, limit=options.limit)
        chosen = vars(options) | {"weights_sha256": weights.sha256 if weights else None}
        is_photo = splits.train.kind == PHOTO or splits.train.shape[0] > 1
        config = build_config(options.dataset, len(splits.train), device.type, chosen, is_photo=is_photo)
    if original:
        warn_about_changed_code(original.run, code)
    if resumption:
        warn_about_changed_code(resumption.run, code)
    job = checkpoint.job if checkpoint else describe_job(options, config, splits)
    params = describe_params(config, splits)
    state = build_state(config, splits, params, weights)
    if checkpoint:
        checkpoint.restore(state, len(splits.train))
    folder = options.checkpoint_dir / job.run_id
    return Training(job, folder, splits, state, params, original, resumption, checkpoint_policy(options))


def checkpoint_policy(options: argparse.Namespace) -> "CheckpointPolicy":
    """Return when and where the state of the training is saved."""
    from pipeline.session.training import CheckpointPolicy

    every = options.checkpoint_every if options.checkpoint else None
    return CheckpointPolicy(options.checkpoint_dir, every, logged=options.log_checkpoints)


def set_threads(threads: int | None) -> None:
    """Let PyTorch use as many threads as the earlier training: another number gives other rounding errors."""
    import torch

    if threads and threads != torch.get_num_threads():
        cli.log(f"{threads} threads, as recorded")
        torch.set_num_threads(threads)


def describe_job(options: argparse.Namespace, config: TrainingConfig, splits: "Splits") -> "TrainingJob":
    """Return what identifies the training; it has no run yet."""
    import torch

    from pipeline.training.checkpoint import TrainingJob

    return TrainingJob(
        run_id="",
        config=config,
        digests=data_digests(splits),
        experiment=options.experiment,
        run_name=redact(options.run_name) if options.run_name else None,
        model_name=options.model_name if options.register else None,
        reproduces=options.reproduce,
        threads=torch.get_num_threads(),
    )


def data_digests(splits: "Splits") -> dict[str, str]:
    """Return the digest of each split, named as the parameters of the run."""
    return {f"{name}_digest": split.digest for name, split in splits._asdict().items()}


def describe_params(config: TrainingConfig, splits: "Splits") -> dict[str, Any]:
    """Return what the run logs as parameters of configuration and data."""
    params = config.as_params()
    params.update({f"{name}_size": len(split) for name, split in splits._asdict().items()})
    params.update(data_digests(splits))
    return params


def build_state(
    config: TrainingConfig, splits: "Splits", params: dict[str, Any], weights: "PretrainedWeights | None"
) -> "TrainingState":
    """Return the state before the first epoch; add the network and the optimizer to ``params``.

    The first weights follow from the seed, or are those of an earlier run, or pretrained ones.
    """
    import torch

    from pipeline.evaluation.inference import count_multiply_adds, count_parameters
    from pipeline.tracking.loading import load_model
    from pipeline.tracking.models import find_model_uri
    from pipeline.tracking.registry import ModelReference
    from pipeline.training.loop import start_training
    from pipeline.training.models import build_model, load_weights
    from pipeline.training.optimizer import describe_optimizer
    from pipeline.training.pretrained import load_pretrained

    torch.manual_seed(config.seed)
    model = build_model(config.model, len(splits.train.classes), splits.train.images)
    if config.from_run:
        stored = load_model(ModelReference(find_model_uri(config.from_run)))
        load_weights(model, stored.module.state_dict(), origin=f"run {config.from_run}")
    if weights:
        load_pretrained(model, weights)
    params["model_parameters"] = count_parameters(model)
    params["model_multiply_adds"] = count_multiply_adds(model.eval(), splits.train.shape)
    state = start_training(model, config, len(splits.train), torch.device(config.device))
    params.update(describe_optimizer(state.optimizer))
    return state


def compare_results(training: "Training") -> dict[str, Any]:
    """Return how the result differs from that of the original run, and log whether it does."""
    from pipeline.provenance.reproduction import compare_with_original
    from pipeline.tracking import runs

    assert training.original
    run = runs.get_run(training.job.run_id)
    differences = compare_with_original(training.original.run, run, training.state.model.state_dict())
    verdict = "identical" if differences["identical"] else f"not identical: {json.dumps(differences, indent=2)}"
    for line in verdict.splitlines():
        cli.log(line)
    return differences


if __name__ == "__main__":
    sys.exit(main())
