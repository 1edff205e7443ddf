"""What is in Production now, as the alias champion says, and what a candidate has to be compared with.

People move the alias by hand. That is never a way around the comparison: a candidate is compared with a version that
promote.py let through, or a person says why not.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.promotion.decision_tags import COUNT_TAG, Decision, find_decision_in_force, list_decisions
from pipeline.promotion.history import Period, describe_move_by_hand, list_restorable, production_history
from pipeline.tracking import registry, tags
from pipeline.tracking.registry import ModelVersion

MAX_READS = 5  # while others move the alias


@dataclass(frozen=True)
class Present:
    """What is in Production, and what a candidate is compared with.

    Attributes
    ----------
    version : the one in Production, or None.
    reference : the one that the candidate is compared with; None if promote.py never put one there.
    decision : that let a version be in Production last, and pins the test set; None if there is none.
    notices : that a person moved the alias by hand, a sentence each.
    requires_reason : why a promotion needs the reason of a person, or None.
    """

    version: int | None
    reference: ModelVersion | None
    decision: Decision | None
    notices: tuple[str, ...] = ()
    requires_reason: str | None = None

    @property
    def pinned_digest(self) -> str | None:
        """The digest of the test set on which the decision was made; None if nobody knows."""
        return self.decision.dataset_digest or None if self.decision else None

    @property
    def standing(self) -> str:
        """What the reference is."""
        is_present = self.reference is not None and int(self.reference.version) == self.version
        return "in Production" if is_present else "last in Production by a decision"


def read_present(name: str, candidate: int) -> Present:
    """Return what is in Production, for a decision about version ``candidate``.

    The candidate is compared with the version in Production. If there is none, or if it is the candidate itself that a
    person put there, it is the last one that promote.py let through. If it is another version that promote.py never
    let through, a promotion needs a reason.
    """
    champion = registry.get_champion(name)
    number = int(champion.version) if champion else None
    in_force = find_decision_in_force(champion) if champion else None
    if in_force is not None and _is_last(name, in_force):
        return Present(number, champion, in_force)
    decisions = list_decisions(name)
    restorable = list_restorable(decisions)
    periods = production_history(decisions, number, datetime.now(UTC))
    last = max(restorable.values(), key=lambda decision: decision.number, default=None)
    decided = restorable.get(number) if number is not None else None
    is_as_decided = last is not None and decided == last
    if is_as_decided or not periods:
        return Present(number, champion, decided)
    notice = describe_move_by_hand(periods)
    if last is None or last.version is None:  # a person alone has decided until now
        return Present(number, champion, None, (notice,))
    if decided is not None:
        return Present(number, champion, decided, (notice,))
    if number in (None, candidate):
        notice = f"{notice}; the candidate is compared with version {last.version}"
        return Present(number, registry.get_version(name, last.version), last, (notice,))
    reason = (
        f"version {number} was put in Production by hand, and promote.py never let it through; to judge it, run: "
        f"python promote.py --model-name {name} --version {number}"
    )
    return Present(number, champion, last, (notice,), requires_reason=reason)


def read_history(name: str) -> list[Period]:
    """Return what was in Production when. No lock is taken, so it reads again if the alias moves meanwhile."""
    for _ in range(MAX_READS):
        present = registry.alias_version(name)
        decisions = list_decisions(name)
        if registry.alias_version(name) == present:
            break
    return production_history(decisions, present, datetime.now(UTC))


def _is_last(name: str, decision: Decision) -> bool:
    """Return whether no decision was numbered after this one, so that nothing else has to be read."""
    count = tags.read_model_tags(name).get(COUNT_TAG, "")
    return bool(re.fullmatch("[0-9]{1,9}", count)) and int(count) == decision.number
