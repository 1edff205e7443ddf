"""From a registered version to a decision: gather the evidence, judge, write the record.

What `pipeline.gate` decides on is gathered here, and what it decided is written out here.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from pipeline import UserError, cli, gate, registry, tracking
from pipeline.gate import Evidence, Policy, Verdict


@dataclass(frozen=True)
class Party:
    """A version with its evidence.

    Attributes
    ----------
    version : in the registry.
    model_sha256 : of the model's file; None where it cannot be had.
    evidence : on the candidate's test set; None for a champion that no rule asks about.
    source : where the evidence is from.
    """

    version: ModelVersion
    model_sha256: str | None
    evidence: Evidence | None
    source: str = "its recorded evaluation"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        names = ("accuracy", "loss", "parameters", "latency")
        return {
            "version": int(self.version.version),
            "run_id": self.version.run_id,
            "model_sha256": self.model_sha256,
            "evidence": self.source,
            **(gate.for_json({name: getattr(self.evidence, name) for name in names}) if self.evidence else {}),
        }


@dataclass(frozen=True)
class Case:
    """A candidate beside what was in Production when it was judged, and the verdict on it."""

    candidate: Party
    champion: Party | None
    dataset: str
    dataset_digest: str
    policy: Policy
    policy_text: str
    verdict: Verdict

    @property
    def previous(self) -> int | None:
        """The version that was in Production."""
        return int(self.champion.version.version) if self.champion else None

    @property
    def kind(self) -> str:
        """What follows from the verdict."""
        if not self.verdict.passed:
            return registry.REFUSED
        already = self.previous == int(self.candidate.version.version)
        return registry.UNCHANGED if already else registry.PROMOTED

    def as_dict(self) -> dict[str, Any]:
        """Return the case for JSON."""
        comparison = self.verdict.comparison
        return {
            "model_name": self.candidate.version.name,
            "version": int(self.candidate.version.version),
            "decision": self.kind,
            "checks": [gate.for_json(asdict(check)) for check in self.verdict.checks],
            "previous_version": self.previous,
            "comparison": comparison and gate.for_json(asdict(comparison)),
            "candidate": self.candidate.as_dict(),
            "champion": self.champion and self.champion.as_dict(),
        }


def judge(version: ModelVersion, policy_text: str, min_accuracy: float | None, data_dir: Path) -> Case:
    """Return the case of ``version`` under the policy, beside what is in Production now.

    ``data_dir`` is where the test images lie, in case the champion has to be evaluated anew.

    Raises UserError where the evidence is missing, damaged or altered, or the policy is bad.
    """
    found = tracking.evaluation_of(str(version.run_id), str(version.source))
    policy = gate.parse(policy_text, cli.short_name(found.record["dataset"]), min_accuracy)
    evidence = _evidence(version, found)
    holder = registry.champion(version.name)
    champion = None
    if holder and holder.version == version.version:
        champion = Party(holder, found.record["model_sha256"], evidence)
    elif holder and policy.compares:
        champion = _beside(holder, found.record, data_dir)
        if policy.max_latency_ratio and champion.evidence:
            from pipeline.evaluation import latencies

            cli.log("measuring the latency of both models, side by side")
            uris = [f"models:/{each.name}/{each.version}" for each in (version, holder)]
            ours, theirs = latencies([tracking.load_model(uri).module for uri in uris])
            evidence = replace(evidence, latency=ours)
            champion = replace(champion, evidence=replace(champion.evidence, latency=theirs))
    elif holder:
        champion = Party(holder, None, None, "not asked for by the policy")
    return Case(
        candidate=Party(version, found.record["model_sha256"], evidence),
        champion=champion,
        dataset=found.record["dataset"],
        dataset_digest=found.record["dataset_digest"],
        policy=policy,
        policy_text=policy_text,
        verdict=gate.decide(evidence, champion.evidence if champion else None, policy),
    )


def _evidence(version: ModelVersion, found: tracking.Recorded) -> Evidence:
    return gate.evidence(found.record, found.predictions, found.metrics, f"run {version.run_id}")


def _beside(champion: ModelVersion, candidate: dict[str, Any], data_dir: Path) -> Party:
    """Return the champion on the candidate's test set: as recorded, or evaluated anew where that was on other data."""
    reason = "nothing was recorded"
    if champion.run_id and tracking.has_evaluation(champion.run_id):
        found = tracking.evaluation_of(champion.run_id, str(champion.source))
        if found.record["dataset_digest"] == candidate["dataset_digest"]:
            return Party(champion, found.record["model_sha256"], _evidence(champion, found))
        reason = "its record is of other data"

    from pipeline import data
    from pipeline.evaluation import choose_device, evaluate, parameters, predict

    cli.log(f"version {champion.version}, in Production, is evaluated anew: {reason}")
    test = data.load_test(candidate["dataset"], data_dir)
    if test.digest != candidate["dataset_digest"]:
        raise UserError(
            f"{data_dir} holds another {candidate['dataset']} than the candidate was evaluated on; "
            "name the right one with --data-dir, or run evaluate.py --log-mlflow again"
        )
    device = choose_device("auto")
    stored = tracking.load_model(f"models:/{champion.name}/{champion.version}")
    evaluation = evaluate(predict(stored.module.to(device), test.images, device=device), test.labels, test.classes)
    evidence = Evidence(evaluation.labels, evaluation.probabilities, test.classes, parameters=parameters(stored.module))
    return Party(champion, stored.sha256, evidence, f"evaluated anew: {reason}")


def record(run_id: str, case: Case, reason: str) -> None:
    """Write the case into the run of a `registry.turn` as a decision."""
    rules = {name: rule for name, rule in asdict(case.policy).items() if rule is not None}
    full = case.as_dict() | {
        "reason": reason,
        **registry.here(),
        "dataset": case.dataset,
        "dataset_digest": case.dataset_digest,
        "policy": {
            "rules": rules,
            "sha256": hashlib.sha256(case.policy_text.encode()).hexdigest(),
            "text": case.policy_text,
        },
    }
    candidate = {name: full["candidate"][name] for name in ("accuracy", "model_sha256")}
    checks = {"checks": "; ".join(map(str, case.verdict.checks))}
    metrics = {check.name: check.value for check in case.verdict.checks if math.isfinite(check.value)}
    registry.decide(run_id, case.kind, full | candidate | checks, metrics, _files(full))


def roll_back(run_id: str, name: str, target: registry.Decision, reason: str) -> dict[str, Any]:
    """Write into the run of a `registry.turn` that the target's version goes back to Production; return the record."""
    full: dict[str, Any] = {
        "model_name": name,
        "version": target.version,
        "decision": registry.ROLLED_BACK,
        "checks": [],
        "previous_version": registry.holder(name),
        "reason": reason,
        **registry.here(),
        "promoted_by": target.run_id,
        "model_sha256": target.model_sha256,
    }
    about = {"accuracy": target.accuracy, "checks": "none, by rollback"}
    registry.decide(run_id, registry.ROLLED_BACK, full | about, {}, _files(full))
    return full


def _files(full: dict[str, Any]) -> dict[str, str]:
    return {"verdict.json": json.dumps(full, indent=2, allow_nan=False), "verdict.md": markdown(full)}


def markdown(full: dict[str, Any]) -> str:
    """Return the record for people."""
    lines = [f"# {full['model_name']} version {full['version']}: {full['decision']}", "", full["reason"], ""]
    if full["checks"]:
        lines += ["| check | value | in Production | threshold | result |", "| --- | ---: | ---: | ---: | --- |"]
        for check in full["checks"]:
            figures = ("-" if check[key] is None else f"{check[key]:.4f}" for key in ("value", "champion", "threshold"))
            result = "passed" if check["passed"] else "**refused**"
            lines.append(f"| {check['name']} | {' | '.join(figures)} | {result} |")
        lines += ["", *(f"- {check['name']}: {check['sentence']}" for check in full["checks"]), ""]
    if both := full.get("comparison"):
        lines += [
            f"Of {both['images']:,} test images the candidate has {both['candidate_correct']:,} right, the champion "
            f"{both['champion_correct']:,}; {both['only_candidate']:,} only the candidate, {both['only_champion']:,} "
            "only the champion.",
            "",
        ]
    job = f", [CI job]({full['job_url']})" if full["job_url"] else ""
    lines.append(f"- Decided at {full['time']} by {full['user']} on {full['host']}{job}")
    for role in ("candidate", "champion"):
        if party := full.get(role):
            lines.append(
                f"- {role.capitalize()}: version {party['version']}, run {party['run_id']}, "
                f"model SHA-256 {party['model_sha256'] or 'not read'}; evidence: {party['evidence']}"
            )
    if full["previous_version"] is None:
        lines.append("- Nothing was in Production")
    if policy := full.get("policy"):
        lines += [f"- Test set: {full['dataset']}, SHA-256 {full['dataset_digest']}"]
        lines += [f"- Policy: SHA-256 {policy['sha256']}, of which these rules:", ""]
        lines += [f"      {name} = {rule!r}" for name, rule in policy["rules"].items()]
    return "\n".join(lines) + "\n"
