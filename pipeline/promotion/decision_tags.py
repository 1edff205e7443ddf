"""Decisions as tags: of the version that a decision is about, else of the registered model.

Whoever may edit the model may write these tags, and may move the alias anyway. Nobody else may. A decision about a
version is its tag ``decision.<number>``. The model has ``decision.count``, the last number, and ``decision.pending``,
which names the decision that a process has begun to carry out.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter

from pipeline.documents import YEARS
from pipeline.promotion.tag_values import MAX_NUMBER, Line, Number, format_tag, parse_tag, warn_unreadable
from pipeline.tracking import registry, tags
from pipeline.tracking.registry import ModelVersion
from pipeline.tracking.tags import longest_tag

PROMOTED, REFUSED, UNCHANGED, ROLLED_BACK, UNLOCKED = "promoted", "refused", "unchanged", "rolled back", "unlocked"
MOVES = (PROMOTED, ROLLED_BACK)  # the kinds that put a version in Production
IN_FORCE = (*MOVES, UNCHANGED)  # the kinds that let it be there

DECISION_TAG = re.compile(r"decision\.(?P<number>[1-9][0-9]{0,9})")
COUNT_TAG = "decision.count"
PENDING_TAG = "decision.pending"
LONGEST_ESCAPE = 6  # characters, of a character in JSON


def _check_time(time: datetime) -> datetime:
    if time.year not in YEARS:
        raise ValueError(f"the year {time.year}")
    return time.astimezone(UTC)


Kind = Annotated[str, Field(pattern=rf"^({'|'.join((*IN_FORCE, REFUSED, UNLOCKED))})$")]
Time = Annotated[AwareDatetime, AfterValidator(_check_time)]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
RunId = Annotated[str, Field(pattern=r"^([0-9a-zA-Z][0-9a-zA-Z_-]{0,63})?$")]


@dataclass(frozen=True)
class Decision:
    """A decision about a model.

    Attributes
    ----------
    number : decisions about a model are numbered in their order.
    kind : "promoted", "refused", "unchanged", "rolled back" or "unlocked".
    version : that was decided about; None if a lock was removed.
    previous_version : that was in Production before, or None.
    time : when it took effect; UTC.
    user, host, job_url : who decided, on which machine, in which CI job, or None.
    reason : why.
    accuracy : of the version on its test set, or None.
    model_sha256 : the identity of the version's model; empty if there is no version.
    dataset, dataset_digest : of the test images; empty if they are not known.
    signer : who signed the model; empty if nobody did.
    decision_run_id : the run that has the report; empty if there is none.
    applied : whether it has taken effect.
    """

    number: Number
    kind: Kind
    version: Number | None
    previous_version: Number | None
    time: Time
    user: Line
    host: Line
    job_url: Line | None
    reason: str
    accuracy: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    model_sha256: Sha256
    dataset: Line
    dataset_digest: Sha256
    signer: Line
    decision_run_id: RunId
    applied: bool

    @property
    def tag(self) -> str:
        """The name of its tag."""
        return f"decision.{self.number}"


@dataclass(frozen=True)
class PendingDecision:
    """Which decision a process has begun to carry out."""

    version: Number
    number: Number


_DECISION = TypeAdapter(Decision)
_PENDING = TypeAdapter(PendingDecision)


# --- write ----------------------------------------------------------------------------------------------------------


def write_decision(model_name: str, decision: Decision) -> None:
    """Write the decision on its version, else on the model; the reason is cut so that the tag is not too long."""
    limit = longest_tag()
    text = format_tag(_DECISION, decision)
    while decision.reason and len(text) > limit:
        excess = len(text) - limit
        kept = len(decision.reason) - excess // LONGEST_ESCAPE - 1
        decision = replace(decision, reason=decision.reason[: max(0, kept)])
        text = format_tag(_DECISION, decision)
    if decision.version is None:
        tags.set_model_tag(model_name, decision.tag, text)
    else:
        tags.set_version_tag(model_name, decision.version, decision.tag, text)


def write_pending(model_name: str, pending: PendingDecision) -> None:
    """Write on the model which decision is about to be carried out."""
    tags.set_model_tag(model_name, PENDING_TAG, format_tag(_PENDING, pending))


def allocate_number(model_name: str, version: int | None) -> int:
    """Return the number of the next decision, which is about ``version``. Call it under the lock of the model.

    If nobody knows the last number, it is the highest one of all decisions. No tag of the version is written twice.
    """
    model_tags = tags.read_model_tags(model_name)
    present = set(model_tags)
    if version is not None:
        present |= set(registry.get_version(model_name, version).tags)
    known = set(present)
    count = model_tags.get(COUNT_TAG, "")
    last = int(count) if re.fullmatch("[0-9]{1,9}", count) else None
    if last is None:
        if count:
            warn_unreadable(model_name, COUNT_TAG, "not a number of a decision")
        for other in registry.list_versions(model_name):
            known |= set(other.tags)
    number = max([last or 0, *_read_numbers(known)]) + 1
    while f"decision.{number}" in present:
        number += 1
    tags.set_model_tag(model_name, COUNT_TAG, str(number))
    return number


def _read_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the decisions that have these tags, without those that are too high to be followed."""
    matches = [DECISION_TAG.fullmatch(name) for name in names]
    numbers = [int(match["number"]) for match in matches if match]
    return [number for number in numbers if number < MAX_NUMBER // 2]


# --- read -----------------------------------------------------------------------------------------------------------


def read_decisions(model_name: str, version: int | None, owner_tags: Mapping[str, str]) -> list[Decision]:
    """Return the decisions in the tags of a version, or of the model if ``version`` is None, the first one first.

    What is not readable is skipped with a warning. A decision that has not been applied yet is one of them.
    """
    owner = model_name if version is None else f"{model_name} version {version}"
    decisions = []
    for tag, value in owner_tags.items():
        if not DECISION_TAG.fullmatch(tag):
            continue
        try:
            decision = parse_tag(_DECISION, value)
            if decision.tag != tag or decision.version != version:
                raise ValueError("it is a decision of another number or version")
        except ValueError as error:
            warn_unreadable(owner, tag, str(error))
        else:
            decisions.append(decision)
    return _sort(decisions)


def read_pending(model_name: str, model_tags: Mapping[str, str]) -> PendingDecision | None:
    """Return which decision a process has begun to carry out, from the tags of the model; None also if not readable."""
    value = model_tags.get(PENDING_TAG)
    if value is None:
        return None
    try:
        return parse_tag(_PENDING, value)
    except ValueError as error:
        warn_unreadable(model_name, PENDING_TAG, str(error))
        return None


def list_decisions(model_name: str) -> list[Decision]:
    """Return every decision about the model that has taken effect, the first one first.

    One whose process died after it had moved the alias has taken effect too.
    """
    model_tags = tags.read_model_tags(model_name)
    pending = read_pending(model_name, model_tags)
    champion = registry.alias_version(model_name) if pending else None
    decisions = read_decisions(model_name, None, model_tags)
    for version in registry.list_versions(model_name):
        decisions += read_decisions(model_name, int(version.version), version.tags)
    in_effect = []
    for decision in decisions:
        is_pending = pending is not None and (decision.version, decision.number) == (pending.version, pending.number)
        if is_pending and decision.kind in MOVES and decision.version == champion:
            in_effect.append(replace(decision, applied=True))
        elif decision.applied:
            in_effect.append(decision)
    return _sort(in_effect)


def find_decision_in_force(version: ModelVersion) -> Decision | None:
    """Return the decision that lets the version be in Production, from its tags alone; None if there is none."""
    decisions = read_decisions(version.name, int(version.version), version.tags)
    in_force = [decision for decision in decisions if decision.applied and decision.kind in IN_FORCE]
    return in_force[-1] if in_force else None


def _sort(decisions: list[Decision]) -> list[Decision]:
    return sorted(decisions, key=lambda decision: (decision.number, decision.time))
