"""MLflow runs: connect to the store, open a run, log to it, find it again, load its model.

With `pipeline.registry` the only room that knows MLflow. MLflow tells its makers about its use unless told not to;
here it is told not to.
"""

import hashlib
import io
import json
import logging
import os
import random
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from dotenv import load_dotenv

from pipeline import UserError, cli, without_credentials

if TYPE_CHECKING:  # promote.py needs none of them at once
    import pandas as pd
    import torch
    from mlflow.models import Model

    from pipeline.data import Dataset

load_dotenv(Path(__file__).parent.parent / ".env")  # what the environment has already stays
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for our own JSON
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a model must not run its author's code when it is loaded
    "MLFLOW_DEFAULT_PREDICTION_DEVICE": "cpu",  # where MLflow tries the input example; models are saved on the CPU
}.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402 - reads the settings above when it is imported
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

logging.getLogger("mlflow").setLevel(logging.WARNING)  # the setting above reaches only a part of it

T = TypeVar("T")
INPUT_SHAPE = (-1, 1, 28, 28)
EVALUATION = "evaluation"  # the folder of a run's artifacts in which evaluate.py puts its reports
RECORD, PREDICTIONS = f"{EVALUATION}/evaluation.json", f"{EVALUATION}/predictions.csv"
CHECKLIST = f"{EVALUATION}/checklist.json"


# --- the store ------------------------------------------------------------------------------------------------------


@contextmanager
def connected() -> Iterator[str]:
    """Connect to ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``, and yield its address without credentials.

    Raises
    ------
    UserError
        Nothing answers there (known within 15 seconds); and whatever MLflow refuses inside the ``with`` block.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    mlflow.set_tracking_uri(uri)
    _probe(uri)
    try:
        with _patience(retries=0, timeout=13), _alone(uri):
            client().search_experiments(max_results=1)
        yield without_credentials(uri)
    except MlflowException as error:
        reason = without_credentials(error.message.splitlines()[0])
        if error.error_code == "UNAUTHENTICATED":
            reason, advice = "it does not accept your name and password", "MLFLOW_TRACKING_USERNAME and _PASSWORD"
        elif error.error_code == "PERMISSION_DENIED":
            raise UserError(
                f"{without_credentials(uri)}: your account may not do this; ask its administrator"
            ) from None
        elif "SSLError" in reason:
            reason = "no secure connection: " + reason[reason.index("SSLError") :].rstrip(")'")
            advice = "the address, the certificate, or MLFLOW_TRACKING_SERVER_CERT_PATH"
        else:
            advice = "MLFLOW_TRACKING_URI and your input"
        raise UserError(f"{without_credentials(uri)}: {reason}; check {advice}") from None


def client() -> mlflow.MlflowClient:
    """Return a client of the store."""
    return mlflow.MlflowClient()


def _probe(uri: str) -> None:
    """Raise UserError where nothing can be behind the URI: MLflow itself would try again for minutes."""
    shown = without_credentials(uri)
    parts = urlsplit(uri)
    try:
        if parts.scheme == "sqlite":
            path = Path(unquote(uri.removeprefix("sqlite:///")))
            if not path.parent.is_dir():
                raise UserError(f"{shown}: there is no directory {path.parent}; make it or change MLFLOW_TRACKING_URI")
            with sqlite3.connect(path, timeout=10) as database:
                database.execute("PRAGMA schema_version")
            database.close()
        elif parts.scheme in ("http", "https") and parts.hostname:
            port = parts.port or {"https": 443, "http": 80}[parts.scheme]
            socket.create_connection((parts.hostname, port), timeout=5).close()
        elif parts.scheme.partition("+")[0] in ("mysql", "postgresql", "mssql"):
            from sqlalchemy import create_engine
            from sqlalchemy.exc import SQLAlchemyError

            try:
                create_engine(uri).connect().close()
            except (SQLAlchemyError, ImportError) as error:  # the driver may be missing
                raise OSError(without_credentials(str(error).splitlines()[0])) from None
    except (OSError, ValueError, sqlite3.Error) as error:
        raise UserError(f"nothing answers at {shown} ({error}); start it or change MLFLOW_TRACKING_URI") from None


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keep other processes from opening the same SQLite file for a while: the first to do so makes its tables."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(f"{unquote(uri.removeprefix('sqlite:///')).partition('?')[0]}.lock", timeout=300)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process has held {lock.lock_file} for 5 minutes; stop it and run again") from None
    except OSError:  # where nothing can be written, there are no tables to make either
        pass
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _patience(retries: int, timeout: int) -> Iterator[None]:
    """Limit MLflow's HTTP retries for a while; its default, 7 of them, carries a training over a restart."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def insist(request: Callable[[], T]) -> T:
    """Return what ``request`` does; where other processes do the same at the same time, ask again for some 15 seconds.

    MLflow fails with an IntegrityError where two processes are the first to log the same data set or alias, and gives
    up on the number of a version where many register at once. Who makes an experiment or a model is allowed to change
    it, but only a moment after it is there for all to see: others that use the same account are refused until then.
    """
    for pause in (0.25, 0.5, 1, 2, 4, 8):
        try:
            return request()
        except MlflowException as error:
            crossed = "IntegrityError" in error.message or "Giving up after" in error.message
            if not crossed and error.error_code != "PERMISSION_DENIED":
                raise
            time.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - so that they do not meet again
    return request()


# --- runs -----------------------------------------------------------------------------------------------------------


@contextmanager
def run(experiment: str, name: str | None, system_metrics: bool = False) -> Iterator[str]:
    """Open a run and yield its id. It ends FINISHED, FAILED after an exception, KILLED after Ctrl-C or SIGTERM.

    With ``system_metrics`` MLflow logs use of processor, memory, disk and network every ten seconds. Under
    `mlflow run`, which has opened a run already, in the experiment that it was told, it is that one.
    """
    own = None if "MLFLOW_RUN_ID" in os.environ else experiment_id(experiment)
    start = partial(mlflow.start_run, run_name=name, experiment_id=own, log_system_metrics=system_metrics)
    with insist(start) as active:
        try:
            yield active.info.run_id
        except KeyboardInterrupt:
            mlflow.end_run(RunStatus.to_string(RunStatus.KILLED))
            raise


def experiment_id(name: str) -> str:
    """Return the id of the experiment, which is made where it is missing; raise UserError where it was deleted.

    MLflow's `set_experiment` makes it too, but not the active one where another process is faster.
    """
    if found := client().get_experiment_by_name(name):
        if found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise UserError(f"experiment {name!r} was deleted; bring it back with: {restore}")
        return str(found.experiment_id)
    try:
        return str(client().create_experiment(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return experiment_id(name)  # another process was faster


def log_inputs(splits: "dict[str, Dataset]") -> None:
    """Log each data set of ``splits`` (context -> data set) as an input of the run, with its digest."""
    from mlflow.data.http_dataset_source import HTTPDatasetSource

    for context, split in splits.items():
        dataset = mlflow.data.from_numpy(  # type: ignore[attr-defined]
            split.images.numpy(),
            source=HTTPDatasetSource(split.source),
            targets=split.labels.numpy(),
            name=f"{cli.short_name(split.name)}-{context}",
            digest=split.digest[:32],  # MLflow stores 36 characters at most; the parameters hold the whole
        )
        insist(partial(mlflow.log_input, dataset, context=context))


def sources(run: Run) -> list[str]:
    """Return the addresses of the data sets that the run logged as inputs, each once."""
    logged = run.inputs.dataset_inputs if run.inputs else []
    found = (json.loads(each.dataset.source or "{}") for each in logged)
    return sorted({str(each["url"]) for each in found if each.get("url")})


def log_artifacts(run_id: str, directory: Path, folder: str | None = None) -> None:
    """Log every file in ``directory`` to the run, under ``folder`` where given."""
    client().log_artifacts(run_id, str(directory), folder)


def set_tags(run_id: str, tags: dict[str, Any]) -> None:
    """Set tags of the run, in one request; what is None is left out, and so are credentials."""
    known = [RunTag(name, without_credentials(str(value))[:5000]) for name, value in tags.items() if value is not None]
    client().log_batch(run_id, tags=known)


def log_params(run_id: str, params: dict[str, Any]) -> None:
    """Log parameters, without credentials, in one request; those that `mlflow run` has logged stay as they are."""
    there = client().get_run(run_id).data.params
    new = [Param(name, without_credentials(str(value))) for name, value in params.items() if name not in there]
    client().log_batch(run_id, params=new)


def log_metrics(run_id: str, metrics: dict[str, float], step: int = 0) -> None:
    """Log metrics of one step, in one request."""
    now = round(time.time() * 1000)
    client().log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])


def get_run(run_id: str) -> Run:
    """Return the run; raise UserError where the store has none of that id or it was deleted."""
    try:
        found = client().get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"there is no run {run_id!r} in this store; look its id up in mlflow ui") from None
    if found.info.lifecycle_stage == "deleted":
        raise UserError(f"run {run_id} was deleted; bring it back with: mlflow runs restore --run-id {run_id}")
    return found


def runs(experiment_id: str, where: str = "", most: int = 100_000) -> list[Run]:
    """Return the runs of the experiment that fit ``where``, MLflow's filter; the newest first, ``most`` of them."""
    found: list[Run] = mlflow.search_runs(
        [experiment_id], where, max_results=most, order_by=["attributes.start_time DESC"], output_format="list"
    )
    return found


def runs_on(experiment: str, dataset: str | None, most: int) -> list[Run]:
    """Return the newest runs of the experiment of that name, on ``dataset`` where given; none where it is not there."""
    found = client().get_experiment_by_name(experiment)
    quote = '"' if "'" in str(dataset) else "'"
    where = f"params.dataset = {quote}{dataset}{quote}" if dataset else ""
    return runs(found.experiment_id, where, most) if found else []


def experiments() -> list[str]:
    """Return the names of the store's experiments, the newest first."""
    return [each.name for each in client().search_experiments()]


def curves(run_id: str, names: Iterable[str]) -> dict[str, list[float]]:
    """Return the values of the run's metrics over the epochs; those that it has not are empty."""
    histories = {name: client().get_metric_history(run_id, name) for name in names}
    return {name: [each.value for each in sorted(points, key=lambda m: m.step)] for name, points in histories.items()}


@dataclass(frozen=True)
class Recorded:
    """What ``evaluate.py --log-mlflow`` recorded: ``evaluation.json`` and the table in ``predictions.csv``.

    ``metrics`` are those of the run, the last value of each.
    """

    record: dict[str, Any]
    predictions: "pd.DataFrame"
    metrics: dict[str, float]


def read_json(run_id: str, path: str) -> Any:
    """Return what the run's JSON artifact at ``path`` holds; None where there is none or it is not readable."""
    try:
        return mlflow.artifacts.load_dict(f"runs:/{run_id}/{path}")
    except (MlflowException, OSError, ValueError):
        return None


def has_evaluation(run_id: str) -> bool:
    """Return whether ``evaluate.py --log-mlflow`` recorded something in the run."""
    return RECORD in _evaluation_files(run_id)


def _evaluation_files(run_id: str) -> set[str]:
    return {item.path for item in client().list_artifacts(run_id, EVALUATION)}


def evaluation_of(run_id: str, model_uri: str) -> Recorded:
    """Return what ``evaluate.py --log-mlflow`` recorded in the run about the model at ``model_uri``.

    Raises
    ------
    UserError
        Nothing recorded, or not readable, or recorded of another model file or on another data set than the run's, or
        ``predictions.csv`` is not the one that ``evaluation.json`` was written with.
    """
    import pandas as pd

    again = f"run: python evaluate.py --run-id {run_id} --log-mlflow"
    files = _evaluation_files(run_id)
    if RECORD not in files:
        raise UserError(f"run {run_id} has no recorded evaluation; {again}")
    with tempfile.TemporaryDirectory() as directory:
        text, table = (
            Path(client().download_artifacts(run_id, name, directory)).read_bytes() if name in files else b""
            for name in (RECORD, PREDICTIONS)
        )
    try:
        record = dict(json.loads(text))
        recorded, measured_on = record["model_sha256"], (record["dataset"], record["dataset_digest"])
        if hashlib.sha256(table).hexdigest() != record["predictions_sha256"]:
            raise UserError(f"{PREDICTIONS} of run {run_id} is not the one that {RECORD} was written with; {again}")
        predictions = pd.read_csv(io.BytesIO(table), index_col=0)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{RECORD} of run {run_id} is damaged ({type(error).__name__}: {error}); {again}") from None
    if (sha256 := model_sha256(model_uri)) != recorded:
        raise UserError(
            f"{RECORD} of run {run_id} belongs to another model "
            f"(SHA-256 {str(recorded)[:12]}..., the registered file has {sha256[:12]}...); {again}"
        )
    found = get_run(run_id).data
    expected = tuple(
        found.params.get(name, value) for name, value in zip(("dataset", "test_digest"), measured_on, strict=True)
    )
    same_name = cli.short_name(measured_on[0]) == cli.short_name(expected[0])  # one of your own may have been moved
    if measured_on[1] != expected[1] or not same_name:
        what = [f"{name} ({digest[:12]}...)" for name, digest in (measured_on, expected)]
        raise UserError(f"{RECORD} of run {run_id} was made on {what[0]}, the run's test set is {what[1]}; {again}")
    return Recorded(record, predictions, found.metrics)


# --- models ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredModel:
    """A model in the store, loaded.

    Attributes
    ----------
    module : float32 [N, 1, 28, 28] raw pixels to logits, float32 [N, classes].
    model_id, run_id : MLflow's ids of the model and of the run that made it.
    uri : ``models:/<model_id>``.
    classes : the names of the classes, in the order of the logits; their numbers where the model does not say.
    sha256 : of the model's file, in hexadecimal.
    size : of that file, in bytes.
    """

    module: "torch.nn.Module"
    model_id: str
    run_id: str
    uri: str
    classes: tuple[str, ...]
    sha256: str
    size: int


def log_model(model: "torch.nn.Module", examples: "torch.Tensor", classes: Sequence[str]) -> str:
    """Log ``model`` to the open run in MLflow's ``pt2`` format (torch.export) and return its URI.

    The names of the ``classes`` go into its metadata, so that whoever has the model can name what it says.

    ``examples``, float32 [2, 1, 28, 28], are stored as the input example. More than one, because torch.export takes
    a batch of one for a constant.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype("float32")
    info = mlflow.pytorch.log_model(
        model,
        name="model",
        serialization_format="pt2",
        signature=ModelSignature(
            Schema([TensorSpec(float32, INPUT_SHAPE)]), Schema([TensorSpec(float32, (-1, len(classes)))])
        ),
        input_example=examples.numpy(),
        metadata={"classes": list(classes)},
        # without the build label: torch 2.15.0+cpu is not on the package index
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "numpy")],
    )
    return str(info.model_uri)


def model_of(run_id: str) -> str:
    """Return the URI of the run's model, ``models:/<model_id>``; raise UserError where it logged none."""
    found = get_run(run_id)
    outputs = found.outputs.model_outputs if found.outputs else []
    if not outputs:
        raise UserError(f"run {run_id} has no model (its status is {found.info.status}); choose a finished training")
    return f"models:/{outputs[-1].model_id}"


def load_model(uri: str) -> StoredModel:
    """Return the model at a URI that MLflow knows, without running its author's code.

    Raises
    ------
    UserError
        Nothing there; not in the ``pt2`` format; brings code of its own; takes another input than 28x28 images.
    """
    import mlflow.pytorch
    import torch
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as directory:
        folder = _download(uri, directory)
        file = _model_file(folder)
        about = Model.load(folder / "MLmodel")
        flavor = about.flavors.get("pytorch", {})
        if flavor.get("code"):
            raise UserError(f"{uri} brings code of its own, which would run here; log it without code_paths")
        inputs = about.signature.inputs.inputs if about.signature and about.signature.inputs else []
        shapes = [getattr(each, "shape", None) for each in inputs]  # a column of a table has none
        if shapes != [INPUT_SHAPE]:
            raise UserError(f"{uri} takes inputs of shape {shapes or 'unknown'}, not {[INPUT_SHAPE]}; choose another")
        return StoredModel(
            module=mlflow.pytorch.load_model(str(folder)).to(memory_format=torch.channels_last),  # twice as fast
            uri=uri,
            model_id=str(about.model_id),
            run_id=str(about.run_id),
            classes=_classes(about),
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            size=file.stat().st_size,
        )


def _classes(about: "Model") -> tuple[str, ...]:
    """Return the names in the model's metadata, or numbers."""
    names = (about.metadata or {}).get("classes")
    outputs = about.signature.outputs.inputs if about.signature and about.signature.outputs else []
    return tuple(map(str, names or range(outputs[0].shape[-1] if outputs else 0)))


def model_sha256(uri: str) -> str:
    """Return the SHA-256, in hexadecimal, of the file of the model at ``uri``, without loading it.

    Raises UserError where there is none, or it is not in the ``pt2`` format.
    """
    with tempfile.TemporaryDirectory() as directory:
        return hashlib.sha256(_model_file(_download(uri, directory)).read_bytes()).hexdigest()


def _model_file(folder: Path) -> Path:
    file = folder / "data" / "model.pt2"
    if not file.is_file():
        raise UserError("the model is not in MLflow's pt2 format (pickle can run any code); train it again")
    return file


def _download(uri: str, directory: str) -> Path:
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=directory))
        reason = "" if (folder / "MLmodel").is_file() else "its files are gone"
    except (MlflowException, OSError, ValueError) as error:
        reason = without_credentials(str(error).splitlines()[0])
    if reason:
        raise UserError(f"cannot get {uri} ({reason}); look in mlflow ui whether it is there")
    return folder
