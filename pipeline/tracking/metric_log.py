"""Log metrics and files of a run in the background, so that nothing in a training waits for the store."""

import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

from mlflow.entities import Metric, RunTag

from pipeline.context import utc_now
from pipeline.tracking.outages import describe_failure
from pipeline.tracking.store import get_client

logger = logging.getLogger(__name__)

MAX_STEPS = 100  # in a request: MLflow takes 1,000 metrics, and takes all of a request or none
FIRST_PAUSE, LONGEST_PAUSE = 1, 30  # seconds until the next attempt while the store is away
HEARTBEAT = 600  # seconds; compare.py takes an hour of silence for a lost run
CLOSE_TIMEOUT = 20  # seconds: more than a request may take
INTERRUPTED_TIMEOUT = 3  # seconds: after a signal there is little time
ALIVE_TAG = "invocation.alive"


@dataclass(frozen=True)
class _Upload:
    """A file that is to be logged, and the folder among the run's artifacts."""

    file: Path
    folder: str


class MetricLog:
    """Sends metrics and files of a run from a thread of its own, in order, again and again until the store takes them.

    A request that is repeated doubles nothing: a metric keeps the time at which it was measured. At the end of a
    ``with`` block the log waits for its last requests, after an exception only for some seconds. What an outage keeps
    it from sending is left to `pipeline.tracking.delivery`, or to the training that is resumed.
    """

    def __init__(self, run_id: str, logged_steps: Collection[int] = ()) -> None:
        """Begin to log to the run; metrics of ``logged_steps``, which the run has, are left out."""
        self._run_id = run_id
        self._logged_steps = frozenset(logged_steps)
        self._steps: list[list[Metric]] = []
        self._uploads: dict[Path, _Upload] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_away = False
        self._thread = threading.Thread(target=self._work, name="metric log", daemon=True)
        self._thread.start()

    def log_metrics(self, metrics: Mapping[str, float], step: int, when: float) -> None:
        """Add the metrics of a step, measured at ``when`` (seconds since 1970); returns at once."""
        if step in self._logged_steps:
            return
        milliseconds = round(when * 1000)
        new = [Metric(name, value, milliseconds, step) for name, value in metrics.items()]
        with self._changed:
            self._steps.append(new)
            self._changed.notify()

    def log_file(self, file: Path, folder: str) -> None:
        """Add a file that goes into ``folder`` of the run's artifacts; if it is added again, the newer one counts."""
        with self._changed:
            self._uploads[file] = _Upload(file, folder)
            self._changed.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT if kind is None else INTERRUPTED_TIMEOUT)

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while self._wait_for_work():
            try:
                while self._send_next():
                    pass
            except Exception as error:  # the training goes on, whatever it is
                self._report_failure(error)
                if self._is_closed:
                    return
                self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._report_success()
                pause = FIRST_PAUSE

    def _wait_for_work(self) -> bool:
        """Wait until there is something to send, or it is time for a sign of life; return False if it is all done."""
        with self._changed:
            if not self._is_pending() and not self._is_closed:
                self._changed.wait(HEARTBEAT)
            return self._is_pending() or not self._is_closed

    def _is_pending(self) -> bool:
        return bool(self._steps or self._uploads)

    def _sleep(self, seconds: float) -> None:
        """Sleep until the next attempt, which comes at once if the log is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, seconds)

    def _send_next(self) -> bool:
        """Send the next metrics, else the next file, else a sign of life; return whether there is more."""
        with self._changed:
            steps = self._steps[:MAX_STEPS]
            uploads = list(self._uploads.values())
        client = get_client()
        if steps:
            client.log_batch(self._run_id, metrics=list(chain(*steps)))
            with self._changed:
                del self._steps[: len(steps)]
        elif uploads:
            upload = uploads[0]
            client.log_artifact(self._run_id, str(upload.file), upload.folder)
            with self._changed:
                if self._uploads.get(upload.file) is upload:
                    del self._uploads[upload.file]
        elif not self._is_closed:
            client.log_batch(self._run_id, tags=[RunTag(ALIVE_TAG, utc_now())])
        with self._changed:
            return self._is_pending()

    def _report_failure(self, error: Exception) -> None:
        if not self._is_away:
            reason = describe_failure(error)
            logger.warning("the store does not take metrics (%s); they are kept and sent later", reason)
        self._is_away = True

    def _report_success(self) -> None:
        if self._is_away:
            logger.info("the store takes metrics again")
        self._is_away = False
