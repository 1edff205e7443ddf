"""The epochs of a training: after each of them its state is saved and its metrics are logged."""

import logging
import sys

from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.provenance.resumption import CHECKPOINTS_FOLDER
from pipeline.session.training import Training
from pipeline.tracking.metric_log import MetricLog
from pipeline.tracking.runs import list_logged_steps
from pipeline.tracking.store import limit_requests
from pipeline.training.checkpoint import BEST_FILE, LAST_FILE, CheckpointWriter
from pipeline.training.loop import EpochResult, place_dataset, train_one_epoch

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT = 15  # seconds


def train(training: Training) -> None:
    """Train until the last epoch is complete; the state changes in place.

    After a signal the batch at hand is completed and the state is saved.

    Raises
    ------
    Stopped
        A signal arrived.
    UserError
        The loss became infinite or NaN.
    """
    state = training.state
    run_id = training.job.run_id
    logged = list_logged_steps(run_id, "train_loss") if training.resumption else set()
    # One attempt for each request: the log has pauses of its own.
    with limit_requests(retries=0, timeout=REQUEST_TIMEOUT), MetricLog(run_id, logged) as metric_log:
        for result in state.history:
            _log_metrics(metric_log, result)
        with logging_redirect_tqdm([logging.getLogger("pipeline")]):
            _train_epochs(training, metric_log)


def _train_epochs(training: Training, metric_log: MetricLog) -> None:
    state, config = training.state, training.job.config
    policy = training.checkpoints
    data = place_dataset(training.splits.train, state.device)
    writer = CheckpointWriter(training.folder, training.job)
    is_terminal = sys.stderr.isatty()
    stop = training.stop
    while state.epoch < config.epochs and not stop.is_made():
        result = train_one_epoch(
            state,
            data,
            training.splits.validation,
            config,
            should_stop=stop.is_made,
            show_progress=is_terminal,
        )
        is_stopped = stop.is_made() and policy.every is not None
        if is_stopped or (result and policy.is_due(state.epoch, config.epochs)):
            is_written = writer.write(state)
            if is_written and policy.logged:
                _log_checkpoints(training, metric_log)
        if result:
            _log_metrics(metric_log, result)
            if not is_terminal:  # there the progress bar shows it
                logger.info("%s", result)
    stop.raise_if_made()


def _log_metrics(metric_log: MetricLog, result: EpochResult) -> None:
    metric_log.log_metrics(result.metrics(), result.epoch, result.time)


def _log_checkpoints(training: Training, metric_log: MetricLog) -> None:
    for name in (BEST_FILE, LAST_FILE):
        file = training.folder / name
        if file.exists():
            metric_log.log_file(file, CHECKPOINTS_FOLDER)
