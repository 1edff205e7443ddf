"""A training that is ready to begin or to go on, and when its state is saved."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.splits import Splits
from pipeline.provenance.reproduction import Original
from pipeline.provenance.resumption import Resumption
from pipeline.signals import StopRequest
from pipeline.training.checkpoint import TrainingJob
from pipeline.training.loop import TrainingState


@dataclass(frozen=True)
class CheckpointPolicy:
    """When checkpoints are written, and where.

    Attributes
    ----------
    directory : has a folder for each run.
    every : epochs from one to the next; None: there are none.
    logged : whether they are logged to the run, too.
    """

    directory: Path
    every: int | None
    logged: bool

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Return whether one is written after this epoch of ``epochs``."""
        if self.every is None:
            return False
        return epoch % self.every == 0 or epoch == epochs


@dataclass
class Training:
    """A training that is ready to begin or to go on.

    Attributes
    ----------
    job : what identifies it; its ``run_id`` is empty until there is a run.
    folder : of its checkpoints and, at the end, of everything that is to be logged.
    splits, state : on what it trains, and how far it is.
    params : what is logged as the parameters of the run.
    original : the run that it reproduces, or None.
    resumption : None if it begins.
    checkpoints : when its state is saved.
    stop : the signal that arrived, if one did.
    """

    job: TrainingJob
    folder: Path
    splits: Splits
    state: TrainingState
    params: dict[str, Any]
    original: Original | None
    resumption: Resumption | None
    checkpoints: CheckpointPolicy
    stop: StopRequest = field(default_factory=StopRequest)
