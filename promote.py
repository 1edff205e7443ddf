"""The quality gate: move a version from Staging to Production, or refuse and say why.

    python promote.py --run-id 8f1c...                       the version that this run registered
    python promote.py --model-name mnist-classifier --version 3 --dry-run
    python promote.py --history                              what was in Production when, and why
    python promote.py --history --at 2026-11-17T12:00        at that time (UTC)
    python promote.py --rollback --reason "it calls every 7 a 1"
    python promote.py --unlock --reason "the machine that held the lock is gone"

It believes only what `evaluate.py --log-mlflow` recorded for exactly this model, and records every decision as a run
of the experiment `<model>-promotions`. Exit code 0: in Production; 1: refused; 2: something that you can fix first.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.context import format_utc
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.promotion.evidence import CandidateDecision
    from pipeline.promotion.history import Period
    from pipeline.tracking.registry import ModelVersion

# Which of the other options go with what is asked for.
PROMOTE_OPTIONS = {"min_accuracy", "dry_run", "reason", "wait"}
HISTORY_OPTIONS = {"at", "json"}
ROLLBACK_OPTIONS = {"to", "reason", "wait"}
UNLOCK_OPTIONS = {"reason"}


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--run-id", help="decide about the version that this run registered")
    action.add_argument("--version", type=cli.bounded_number(int, 1), help="or about this version of --model-name")
    action.add_argument("--history", action="store_true", help="or print what was in Production when")
    action.add_argument("--rollback", action="store_true", help="or restore the version before the present one")
    action.add_argument("--unlock", action="store_true", help="or remove the lock of a process that is gone")
    parser.add_argument("--model-name", help="registered model (default: the run's, or the store's only one)")
    parser.add_argument("--reason", help="why, for the record (default: what the checks say)")
    parser.add_argument(
        "--wait",
        type=cli.bounded_number(float, 0),
        metavar="SECONDS",
        help="how long to wait for another decision about the model (default: 300)",
    )
    gate = parser.add_argument_group("with --run-id or --version")
    share = cli.bounded_number(float, 0, 1)
    gate.add_argument("--min-accuracy", type=share, help="floor of the test accuracy (default: from gates.toml)")
    gate.add_argument("--data-dir", type=Path, default=Path("data"), help="test images, if needed (default: data)")
    gate.add_argument("--dry-run", action="store_true", help="decide, but move nothing and write nothing")
    history = parser.add_argument_group("with --history")
    history.add_argument("--at", type=parse_time, metavar="TIME", help="at this time only, as 2026-11-17T12:00 (UTC)")
    history.add_argument("--json", action="store_true", help="print JSON, not a table")
    rollback = parser.add_argument_group("with --rollback")
    rollback.add_argument("--to", type=cli.bounded_number(int, 1), metavar="VERSION", help="restore this version")
    options = parser.parse_args(argv)
    check_combination(parser, options)
    return options


def check_combination(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that do not go with what is asked for."""
    if options.version and not options.model_name:
        parser.error("--version needs --model-name")
    if options.rollback and not options.reason:
        parser.error("--rollback needs --reason, which the record keeps")
    if options.unlock and not options.reason:
        parser.error("--unlock needs --reason, which the record keeps")
    if options.history:
        allowed = HISTORY_OPTIONS
    elif options.rollback:
        allowed = ROLLBACK_OPTIONS
    elif options.unlock:
        allowed = UNLOCK_OPTIONS
    else:
        allowed = PROMOTE_OPTIONS
    for name in sorted(PROMOTE_OPTIONS | HISTORY_OPTIONS | ROLLBACK_OPTIONS):
        value = getattr(options, name)
        is_given = value is not None and value is not False
        if is_given and name not in allowed:
            parser.error(f"--{name.replace('_', '-')} does not go with what is asked for")


def parse_time(text: str) -> datetime:
    """Return the time; one without a zone is UTC. An argparse type."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-17T12:00") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Connect to the store and do what is asked for."""
    options = parse_options(argv)
    from pipeline.promotion.lock import DEFAULT_WAIT
    from pipeline.tracking import store

    if options.wait is None:
        options.wait = DEFAULT_WAIT
    with store.connect():
        if options.history:
            return print_history(options)
        if options.rollback:
            return roll_back(options)
        if options.unlock:
            return unlock(options)
        return promote(options)


def promote(options: argparse.Namespace) -> int:
    """Decide about a version, record the decision, move the version or refuse, print."""
    from pipeline.files import read_text
    from pipeline.promotion import policy
    from pipeline.promotion.decisions import (
        apply_decision,
        complete_unfinished_decisions,
        record_candidate_decision,
    )
    from pipeline.promotion.evidence import evaluate_candidate
    from pipeline.promotion.lock import promotion_lock
    from pipeline.tracking import registry

    version = find_version(options)
    policy_text = read_text(policy.POLICY_FILE)
    decision = evaluate_candidate(version, policy_text, options.min_accuracy, options.data_dir)
    decision_run_id = None
    if not options.dry_run:
        with promotion_lock(version.name, options.wait) as lock:
            complete_unfinished_decisions(version.name)
            if decision.previous_version != registry.alias_version(version.name):  # another promotion came in between
                decision = evaluate_candidate(version, policy_text, options.min_accuracy, options.data_dir)
            reason = options.reason or decision.verdict.reason
            decision_run_id = record_candidate_decision(lock, decision, reason)
            apply_decision(version.name, decision_run_id)
    log_checks(decision, dry_run=options.dry_run)
    result = decision.as_dict()
    result["reason"] = options.reason or decision.verdict.reason
    result["decision_run_id"] = decision_run_id
    cli.print_json(result)
    return cli.OK if decision.verdict.passed else cli.REFUSED


def find_version(options: argparse.Namespace) -> "ModelVersion":
    """Return the version that the options name."""
    from pipeline.tracking import registry, runs

    if options.version:
        return registry.get_version(options.model_name, options.version)
    runs.get_run(options.run_id)  # it says so if there is none
    return registry.get_version_of_run(options.run_id, options.model_name)


def log_checks(decision: "CandidateDecision", *, dry_run: bool) -> None:
    """Log each check, a line each."""
    verb = "would be " if dry_run else ""
    subject = f"{decision.model_name} version {decision.candidate.version}: {verb}{decision.kind}"
    for check in decision.verdict.checks:
        cli.log(f"{subject}; {check}")


def roll_back(options: argparse.Namespace) -> int:
    """Choose the version to restore, check that it still loads, restore it, record it, print."""
    from pipeline.promotion.decisions import (
        apply_decision,
        complete_unfinished_decisions,
        list_decisions,
        record_rollback,
    )
    from pipeline.promotion.history import rollback_target
    from pipeline.promotion.lock import promotion_lock
    from pipeline.tracking import models, registry

    name = registry.resolve_model_name(options.model_name)
    with promotion_lock(name, options.wait) as lock:
        complete_unfinished_decisions(name)
        target = rollback_target(list_decisions(name), options.to)
        stored = models.load_model(f"models:/{name}/{target.version}")
        if stored.sha256 != target.model_sha256:
            raise UserError(
                f"the file of version {target.version} is not the one that was promoted; choose another with --to"
            )
        decision_run_id, record = record_rollback(lock, target, options.reason)
        apply_decision(name, decision_run_id)
    cli.log(f"{name} version {target.version} is back in Production; before: version {record['previous_version']}")
    record["decision_run_id"] = decision_run_id
    cli.print_json(record)
    return cli.OK


def unlock(options: argparse.Namespace) -> int:
    """Remove the lock of a process that is gone, record it, print."""
    from pipeline.promotion.decisions import apply_decision, force_unlock
    from pipeline.tracking import registry

    name = registry.resolve_model_name(options.model_name)
    decision_run_id, record = force_unlock(name, options.reason)
    apply_decision(name, decision_run_id)
    cli.log(f"the lock of {name} is removed; it was that of {record['lock_owner']}")
    record["decision_run_id"] = decision_run_id
    cli.print_json(record)
    return cli.OK


def print_history(options: argparse.Namespace) -> int:
    """Print what was in Production when."""
    from pipeline.promotion.decisions import list_decisions
    from pipeline.promotion.history import decision_in_force, production_history
    from pipeline.tracking import registry

    name = registry.resolve_model_name(options.model_name)
    decisions = list_decisions(name)
    history = production_history(decisions)
    last_version = history[-1][0].version if history else None
    if options.at:
        in_force = decision_in_force(decisions, options.at)
        history = [period for period in history if period[0] == in_force]
    rows = [describe_period(period) for period in history]
    present = registry.alias_version(name)
    if present != last_version:
        cli.log(f"the alias champion points to version {present}, which promote.py did not decide")
    if options.json:
        cli.print_json({"model_name": name, "history": rows})
    elif rows:
        print(format_table(name, rows))
    else:
        when = f"at {format_utc(options.at)}" if options.at else "yet"
        print(f"{name}: nothing was in Production {when}")
    return cli.OK


def describe_period(period: "Period") -> dict[str, Any]:
    """Return a row of the history for JSON."""
    decision, end = period
    return {
        "version": decision.version,
        "from": format_utc(decision.time),
        "until": format_utc(end) if end else None,
        "decision": decision.kind,
        "decided_by": decision.user,
        "reason": decision.reason,
        "accuracy": decision.accuracy,
        "decision_run_id": decision.decision_run_id,
    }


def format_table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the history for people."""
    import pandas as pd

    table = pd.DataFrame(rows).drop(columns="decision_run_id")
    table = table.fillna({"until": "now", "accuracy": "-"})
    return f"{name} in Production, times in UTC\n{table.to_string(index=False, max_colwidth=80)}"


if __name__ == "__main__":
    sys.exit(main())
