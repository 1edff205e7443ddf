"""The quality gate: move a version from Staging to Production, or refuse and say why.

    python promote.py --run-id 8f1c...                       the version that this run registered
    python promote.py --run-id 8f1c... --signing-key signing.key
    python promote.py --model-name mnist-classifier --version 3 --dry-run
    python promote.py --run-id 8f1c... --new-test-set --reason "photos of this year"
    python promote.py --history                              what was in Production when, and why
    python promote.py --history --at 2026-11-17T12:00        at that time (UTC)
    python promote.py --rollback --reason "it calls every 7 a 1"
    python promote.py --unlock --reason "the machine that held the lock is gone"

It believes only what `evaluate.py --log-mlflow` recorded for exactly this model, and records every decision on the
version, with a report in the experiment `<model>-promotions`. Exit code 0: in Production; 1: refused; 2: something that
you can fix first.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli
from pipeline.context import format_utc
from pipeline.errors import UserError
from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.promotion.candidate_decision import CandidateDecision
    from pipeline.promotion.decisions import Decision
    from pipeline.promotion.signature import Signer
    from pipeline.tracking.registry import ModelVersion

# Which of the other options go with what is asked for.
PROMOTE_OPTIONS = {"min_accuracy", "dry_run", "new_test_set", "reason", "wait", "signing_key", "sign_keyless"}
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
    gate.add_argument("--data-dir", type=cli.path, default=Path("data"), help="test images, if needed (default: data)")
    gate.add_argument("--dry-run", action="store_true", help="decide, but move nothing and write nothing")
    gate.add_argument(
        "--new-test-set", action="store_true", help="allow another test set than before; score both models on it"
    )
    signing = gate.add_mutually_exclusive_group()
    signing.add_argument(
        "--signing-key",
        type=cli.path,
        metavar="FILE",
        help="sign the model with this private EC key (PEM); its password is read from SIGNING_KEY_PASSWORD",
    )
    signing.add_argument(
        "--sign-keyless", action="store_true", help="sign it as this GitHub Actions job, without a key"
    )
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
    if options.new_test_set and not options.reason:
        parser.error("--new-test-set needs --reason, which the record keeps")


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
    with store.connect(writes=not (options.history or options.dry_run)):
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
    from pipeline.promotion.lock import promotion_lock
    from pipeline.promotion.signature import UNSIGNED, sign_candidate
    from pipeline.tracking import registry

    version = find_version(options)
    signature = UNSIGNED
    policy_text = read_text(policy.POLICY_FILE)
    decision = judge(options, version, policy_text)
    recorded = None
    if not options.dry_run:
        with promotion_lock(version.name, options.wait) as lock:
            complete_unfinished_decisions(version.name)
            if decision.previous_version != registry.alias_version(version.name):  # another promotion came in between
                decision = judge(options, version, policy_text)
            reason = options.reason or decision.verdict.reason
            signature = sign_candidate(decision, choose_signer(options))
            recorded = record_candidate_decision(
                lock, decision, reason, signature=signature.bundle, signer=signature.signer
            )
            apply_decision(version.name, recorded)
    log_checks(decision, dry_run=options.dry_run)
    if signature.signer:
        cli.log(f"{decision.model_name} version {decision.candidate.version}: signed by {signature.signer}")
    result = decision.as_dict()
    result["signer"] = signature.signer
    result["reason"] = options.reason or decision.verdict.reason
    result["decision_run_id"] = recorded.decision_run_id if recorded else None
    cli.print_json(result)
    return cli.OK if decision.verdict.passed else cli.REFUSED


def judge(options: argparse.Namespace, version: "ModelVersion", policy_text: str) -> "CandidateDecision":
    """Return what the gate decides about the version; refuse to go on without a reason if it needs one."""
    from pipeline.promotion.decision_tags import PROMOTED
    from pipeline.promotion.evidence import evaluate_candidate

    decision = evaluate_candidate(
        version,
        policy_text,
        min_accuracy=options.min_accuracy,
        data_dir=options.data_dir,
        new_test_set=options.new_test_set,
    )
    if decision.kind == PROMOTED and decision.requires_reason and not options.reason:
        raise UserError(f"{decision.requires_reason}; say with --reason why it may be replaced all the same")
    return decision


def find_version(options: argparse.Namespace) -> "ModelVersion":
    """Return the version that the options name."""
    from pipeline.tracking import registry, runs

    if options.version:
        return registry.get_version(options.model_name, options.version)
    runs.get_run(options.run_id)  # it says so if there is none
    return registry.get_version_of_run(options.run_id, options.model_name)


def choose_signer(options: argparse.Namespace) -> "Signer | None":
    """Return what the options say that the model is signed with, or None."""
    from pipeline.promotion.signature import PASSWORD_VARIABLE, Signer

    if options.signing_key:
        return Signer(options.signing_key, os.environ.get(PASSWORD_VARIABLE))
    return Signer(None) if options.sign_keyless else None


def log_checks(decision: "CandidateDecision", *, dry_run: bool) -> None:
    """Log each check, a line each, after the warning that the champion is not compared."""
    verb = "would be " if dry_run else ""
    if decision.requires_reason:
        cli.log(f"warning: {decision.requires_reason}")
    subject = f"{decision.model_name} version {decision.candidate.version}: {verb}{decision.kind}"
    for check in decision.verdict.checks:
        cli.log(f"{subject}; {check}")


def roll_back(options: argparse.Namespace) -> int:
    """Choose the version to restore, restore it, record it, print."""
    from pipeline.promotion.decisions import apply_decision, complete_unfinished_decisions, record_rollback
    from pipeline.promotion.lock import promotion_lock
    from pipeline.promotion.rollback import choose_target
    from pipeline.tracking import registry

    name = registry.resolve_model_name(options.model_name)
    with promotion_lock(name, options.wait) as lock:
        complete_unfinished_decisions(name)
        target = choose_target(name, options.to)
        for notice in target.notices:
            cli.log(f"warning: {notice}")
        recorded = record_rollback(lock, target.decision, target.present, options.reason, target.notices)
        decision = apply_decision(name, recorded)
    before = "nothing" if target.present is None else f"version {target.present}"
    cli.log(f"{name} version {decision.version} is back in Production; before: {before}")
    result = describe_decision(name, decision)
    result["notices"] = list(target.notices)
    result["promoted_by"] = target.decision.decision_run_id
    cli.print_json(result)
    return cli.OK


def unlock(options: argparse.Namespace) -> int:
    """Remove the lock of a process that is gone, record it, print."""
    from pipeline.promotion.decisions import force_unlock
    from pipeline.tracking import registry

    name = registry.resolve_model_name(options.model_name)
    decision, holder = force_unlock(name, options.reason)
    cli.log(f"the lock of {name} is removed; it was that of {holder}")
    result = describe_decision(name, decision)
    result["lock_owner"] = str(holder)
    cli.print_json(result)
    return cli.OK


def describe_decision(name: str, decision: "Decision") -> dict[str, Any]:
    """Return a decision for JSON."""
    return {
        "model_name": name,
        "version": decision.version,
        "decision": decision.kind,
        "previous_version": decision.previous_version,
        "reason": decision.reason,
        "user": decision.user,
        "host": decision.host,
        "job_url": decision.job_url,
        "time": decision.time.isoformat(timespec="milliseconds"),
        "model_sha256": decision.model_sha256 or None,
        "decision_run_id": decision.decision_run_id,
    }


def print_history(options: argparse.Namespace) -> int:
    """Print what was in Production when."""
    from pipeline.promotion.history import describe_move_by_hand
    from pipeline.promotion.present import read_history
    from pipeline.reports.production import describe_periods, format_history
    from pipeline.tracking import registry

    name = registry.resolve_model_name(options.model_name)
    history = read_history(name)
    present = history[-1].version if history else None
    if history and history[-1].is_by_hand:
        cli.log(f"warning: {describe_move_by_hand(history)}; the store does not say who did it, nor when")
    if present is not None:
        check_signature(name, present)
    if options.at:
        history = [period for period in history if period.may_include(options.at)]
    rows = describe_periods(name, history)
    if options.json:
        cli.print_json({"model_name": name, "history": rows})
    elif rows:
        cli.print_text(format_history(name, rows))
    else:
        when = f"at {format_utc(options.at)}" if options.at else "yet"
        cli.print_text(printable(f"{name}: nothing was in Production {when}"))
    return cli.OK


def check_signature(name: str, version: int) -> None:
    """Say so if ``gates.toml`` requires a signature and that of the version in Production is not valid."""
    from pipeline.promotion.signature import verify_version
    from pipeline.promotion.signature_policy import read_signature_policy

    if not read_signature_policy().require_signature:
        return
    try:
        verify_version(name, version)
    except UserError as error:
        cli.log(f"warning: what is in Production now would not be loaded: {error}")


if __name__ == "__main__":
    sys.exit(main())
