"""What is known about a request that failed: is it an outage, why, what to do. And the words for it."""

from dataclasses import dataclass

CHECK_ADDRESS = "check MLFLOW_TRACKING_URI"
CHECK_INPUT = "check MLFLOW_TRACKING_URI and your input"
RUN_AGAIN = "run again when it works"
ASK_ADMINISTRATOR = "ask its administrator"


@dataclass(frozen=True)
class Failure:
    """Why a request to the store failed.

    Attributes
    ----------
    is_outage : whether the store may take the same request later.
    reason : in plain words, without secrets, in one line.
    advice : what to do.
    """

    is_outage: bool
    reason: str
    advice: str


class StoreAway(Exception):  # noqa: N818 - it is a state of the store
    """The store did not answer for as long as there was patience.

    Attributes
    ----------
    seconds : that were spent on waiting.
    reason : why the last request failed, in plain words.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(f"it did not work for {format_seconds(seconds)}: {reason}")
        self.seconds = seconds
        self.reason = reason


def outage(reason: str, advice: str = RUN_AGAIN) -> Failure:
    """Return a failure that passes."""
    return Failure(is_outage=True, reason=reason, advice=advice)


def refusal(reason: str, advice: str = CHECK_INPUT) -> Failure:
    """Return a failure that stays until somebody changes something."""
    return Failure(is_outage=False, reason=reason, advice=advice)


def format_seconds(seconds: float) -> str:
    """Return a duration for people, such as "5 minutes" or "12 seconds"."""
    count, unit = (seconds, "second") if seconds < 90 else (seconds / 60, "minute")
    return f"{count:.0f} {unit}" if round(count) == 1 else f"{count:.0f} {unit}s"
