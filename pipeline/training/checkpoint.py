"""Checkpoints: everything that a training needs to go on, in files of tensors and plain values.

``last.pt`` has the state after the last complete epoch, or in the middle of one if the training was stopped there.
``best.pt`` has the weights with the lowest validation loss. Both appear complete or not at all.
"""

import json
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import Field, TypeAdapter

from pipeline.documents import DamagedError, parse_record
from pipeline.errors import UserError
from pipeline.files import atomic_file
from pipeline.training.checkpoint_content import check_content, check_weights
from pipeline.training.config import TrainingConfig
from pipeline.training.loop import BestWeights, EpochProgress, EpochResult, TrainingState, find_best_epoch

logger = logging.getLogger(__name__)

LAST_FILE = "last.pt"
BEST_FILE = "best.pt"
LOCK_FILE = ".lock"
MAX_THREADS = 1024  # more are not believed
FORMAT = 1  # of the files; a later version that reads them differently counts on


@dataclass(frozen=True)
class TrainingJob:
    """What identifies a training and stays the same when it is resumed.

    Attributes
    ----------
    run_id : of MLflow.
    config : of the training.
    digests : of each split, named as the parameters of the run: ``train_digest`` and so on.
    experiment, run_name : where MLflow keeps the run; the name is None if MLflow invented it.
    model_name : under which the model is registered at the end; None: not at all.
    reproduces : id of the run that the training repeats, or None.
    threads : of PyTorch on the CPU. Another number gives other rounding errors.
    """

    run_id: str
    config: TrainingConfig
    digests: dict[str, str]
    experiment: str
    run_name: str | None
    model_name: str | None
    reproduces: str | None
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: which training it is of, and the state of that training."""

    job: TrainingJob
    content: Mapping[str, Any]
    path: Path

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return int(self.content["epoch"])

    def restore(self, state: TrainingState, train_size: int) -> None:
        """Bring a new state, and the random generators of this process, to where the checkpoint was written.

        Parameters
        ----------
        state
            As `start_training` returns it, for the configuration of the job; it changes in place.
        train_size
            The number of training images.

        Raises
        ------
        UserError
            The content does not fit the state.
        """
        content = self.content
        try:
            check_content(content, state, self.job.config, train_size)
            state.model.load_state_dict(content["model"])
            state.optimizer.load_state_dict(content["optimizer"])
            state.schedule.load_state_dict(content["schedule"])
            state.generator.set_state(content["generator"])
            state.epoch = self.epoch
            state.history = [EpochResult(**result) for result in content["history"]]
            state.progress = _restore_progress(content["progress"], state.device)
            _restore_random_states(content["random"], state.device)
        except Exception as error:  # whatever the file holds, it was read from outside
            raise _damaged(self.path, error) from None
        state.best = _restore_best(state, self.path.with_name(BEST_FILE))


class CheckpointWriter:
    """Writes the checkpoints of a training into its folder."""

    def __init__(self, folder: Path, job: TrainingJob) -> None:
        self._folder = folder
        self._job = job
        self._best_epoch = _read_best_epoch(folder / BEST_FILE)
        self._is_warned = False

    def write(self, state: TrainingState) -> bool:
        """Write ``last.pt``, and ``best.pt`` if its weights are new; return whether that worked.

        A full disk ends no training: the first failure is logged as a warning, and the files stay as they were.
        """
        try:
            self._write_best(state)
            _save(self._folder / LAST_FILE, _build_content(self._job, state))
        except (OSError, RuntimeError, UserError) as error:  # torch.save turns an OSError into a RuntimeError
            if not self._is_warned:
                logger.warning("cannot write a checkpoint (%s); the training goes on without", _first_line(error))
            self._is_warned = True
            return False
        self._is_warned = False
        return True

    def _write_best(self, state: TrainingState) -> None:
        best = state.best
        if best is None or best.epoch == self._best_epoch:
            return
        content = {"format": FORMAT, "run_id": self._job.run_id, "epoch": best.epoch, "model": best.weights}
        _save(self._folder / BEST_FILE, content)
        self._best_epoch = best.epoch


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file. Nothing in the file is executed.

    Raises
    ------
    UserError
        The file is missing, damaged, or not a checkpoint of this version.
    """
    content = _load(path)
    try:
        job = parse_record(TypeAdapter(TrainingJob), content["job"])
    except (KeyError, TypeError, AttributeError, DamagedError) as error:
        raise _damaged(path, error) from None
    return Checkpoint(job, content, path)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time work in the folder of a training; it is created if it is missing.

    Raises
    ------
    UserError
        Another process works there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, blocking=False)
        lock.acquire()
    except Timeout:
        raise UserError(f"another process trains in {folder}; stop it, or wait until it ends") from None
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another --checkpoint-dir") from None
    try:
        yield
    finally:
        lock.release()


def _build_content(job: TrainingJob, state: TrainingState) -> dict[str, Any]:
    progress = state.progress
    return {
        "format": FORMAT,
        "job": json.dumps(asdict(job)),
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "generator": state.generator.get_state(),
        "random": _read_random_states(state.device),
        "epoch": state.epoch,
        "history": [asdict(result) for result in state.history],
        "progress": vars(progress) if progress else None,
    }


def _restore_progress(values: Mapping[str, Any] | None, device: torch.device) -> EpochProgress | None:
    if values is None:
        return None
    progress = EpochProgress(**values)
    progress.order = progress.order.to(device)
    progress.total_loss = progress.total_loss.to(device)
    progress.correct = progress.correct.to(device)
    return progress


def _restore_best(state: TrainingState, path: Path) -> BestWeights | None:
    """Return the best weights of the epochs in the history; None if they are lost."""
    epoch = find_best_epoch(state.history)
    if epoch is None:
        return None
    if epoch == state.epoch and state.progress is None:
        weights = {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}
        return BestWeights(epoch, weights)
    if _read_best_epoch(path) != epoch:
        logger.warning("%s is not of epoch %d: the best of the epochs from now on counts", path, epoch)
        return None
    saved: Any = _load(path).get("model")
    try:
        check_weights(saved, state.model)
    except ValueError as error:
        raise _damaged(path, error) from None
    return BestWeights(epoch, dict(saved))


def _read_best_epoch(path: Path) -> int | None:
    """Return the epoch of the weights in ``best.pt``; None if it is missing or damaged."""
    try:
        epoch = _load(path).get("epoch")
    except UserError:
        return None
    return epoch if type(epoch) is int else None


def _read_random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the process's random generators, which augmentations and layers may use."""
    numpy_state = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    states = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return states


def _restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    numpy_state = states["numpy"]
    numpy_state["state"]["key"] = numpy_state["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_state)
    torch.set_rng_state(states["torch"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states["device"])


def _save(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as file:
        torch.save(content, file)


def _load(path: Path) -> dict[str, Any]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}; start the training again") from None
    except Exception as error:  # the unpickler raises what the instructions in the file make it raise
        raise _damaged(path, error) from None
    if not isinstance(content, dict) or type(content.get("format")) is not int or content["format"] != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version; resume with the version that wrote it")
    return content


def _damaged(path: Path, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return UserError(f"the checkpoint {path} is damaged ({reason}); start the training again")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else ""
