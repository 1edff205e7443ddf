"""What the gate decides about a candidate, and from what."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.promotion.decision_tags import PROMOTED, REFUSED, UNCHANGED
from pipeline.promotion.evaluated_version import EvaluatedVersion, replace_nan
from pipeline.promotion.gate import Verdict
from pipeline.promotion.policy import Policy


@dataclass(frozen=True)
class CandidateDecision:
    """What follows for a candidate, and from what.

    Attributes
    ----------
    model_name : of the registered model.
    previous_version : that is in Production, as the alias says; None if nothing is.
    candidate, champion : the version in question, and the one that it is compared with, or None. That is the one in
        Production, unless a person moved the alias, see `pipeline.promotion.present`.
    dataset, dataset_digest : of the test images.
    policy, policy_text : the rules, and the text of the file that they are from.
    verdict : of the gate.
    notices : what a person has to know about the evidence, a sentence each.
    requires_reason : why a promotion needs the reason of a person, or None.
    """

    model_name: str
    previous_version: int | None
    candidate: EvaluatedVersion
    champion: EvaluatedVersion | None
    dataset: str
    dataset_digest: str
    policy: Policy
    policy_text: str
    verdict: Verdict
    notices: tuple[str, ...] = ()
    requires_reason: str | None = None

    @property
    def kind(self) -> str:
        """`PROMOTED`, `REFUSED`, or `UNCHANGED` if the candidate passed and is in Production already."""
        if not self.verdict.passed:
            return REFUSED
        return UNCHANGED if self.previous_version == self.candidate.version else PROMOTED

    def as_dict(self) -> dict[str, Any]:
        """Return the decision for JSON."""
        comparison = self.verdict.comparison
        return {
            "model_name": self.model_name,
            "version": self.candidate.version,
            "decision": self.kind,
            "notices": list(self.notices),
            "checks": [replace_nan(asdict(check)) for check in self.verdict.checks],
            "previous_version": self.previous_version,
            "comparison": replace_nan(asdict(comparison)) if comparison else None,
            "candidate": self.candidate.as_dict(),
            "champion": self.champion.as_dict() if self.champion else None,
        }

    def describe_policy(self) -> dict[str, Any]:
        """Return the rules, the SHA-256 of the file that they are from, and its text."""
        return {
            "rules": self.policy.describe(),
            "sha256": hashlib.sha256(self.policy_text.encode()).hexdigest(),
            "text": self.policy_text,
        }
