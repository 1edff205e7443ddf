"""The quality gate: move a version from Staging to Production, or refuse and say why.

    python promote.py --run-id 8f1c...                       the version that this run registered
    python promote.py --model-name mnist-classifier --version 3 --dry-run
    python promote.py --history                              what was in Production when, and why
    python promote.py --history --at 2026-11-17T12:00        at that time (UTC)
    python promote.py --rollback --reason "it calls every 7 a 1"

It believes only what `evaluate.py --log-mlflow` recorded for exactly this model, and records every decision as a run
of the experiment `<model>-promotions`. Exit code 0: in Production; 1: refused; 2: something to put right first.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from pipeline import UserError, cli


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    do = parser.add_mutually_exclusive_group(required=True)
    do.add_argument("--run-id", help="decide about the version that this run registered")
    do.add_argument("--version", type=cli.number(int, 1), help="or about this version of --model-name")
    do.add_argument("--history", action="store_true", help="or print what was in Production when")
    do.add_argument("--rollback", action="store_true", help="or put the version before the present one back")
    parser.add_argument("--model-name", help="registered model (default: the run's, or the store's only one)")
    parser.add_argument("--reason", help="why, for the record (default: what the checks say)")
    gate = parser.add_argument_group("with --run-id or --version")
    share = cli.number(float, 0, high=1)
    gate.add_argument("--min-accuracy", type=share, help="floor of the test accuracy (default: from gates.toml)")
    gate.add_argument("--data-dir", type=Path, default=Path("data"), help="test images, if needed (default: data)")
    gate.add_argument("--dry-run", action="store_true", help="decide, but move nothing and write nothing")
    history = parser.add_argument_group("with --history")
    history.add_argument("--at", type=moment, metavar="TIME", help="at this time only, such as 2026-11-17T12:00 (UTC)")
    history.add_argument("--json", action="store_true", help="print JSON, not a table")
    rollback = parser.add_argument_group("with --rollback")
    rollback.add_argument("--to", type=cli.number(int, 1), metavar="VERSION", help="put this version back")
    options = parser.parse_args()
    if options.version and not options.model_name:
        parser.error("--version needs --model-name")
    if options.rollback and not options.reason:
        parser.error("--rollback needs --reason, which the record keeps")
    decides = bool(options.run_id or options.version)
    for name, fits in {
        "min_accuracy": decides,
        "dry_run": decides,
        "reason": not options.history,
        "at": options.history,
        "json": options.history,
        "to": options.rollback,
    }.items():
        if getattr(options, name) and not fits:
            parser.error(f"--{name.replace('_', '-')} does not go with what is asked for")
    return options


def moment(text: str) -> datetime:
    """Return the time; one without a zone is UTC."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-17T12:00") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def main() -> int:
    """Connect and do what was asked for."""
    options = parse_options()
    from pipeline import tracking

    with tracking.connected():
        if options.history:
            return history(options)
        return rollback(options) if options.rollback else promote(options)


def promote(options: argparse.Namespace) -> int:
    """Find the version, judge it, record the decision, move the version or refuse, print."""
    from pipeline import promotion, registry, tracking

    if options.version:
        version = registry.get_version(options.model_name, options.version)
    else:
        tracking.get_run(options.run_id)
        version = registry.version_of(options.run_id, options.model_name)
    policy = cli.read(cli.POLICY)
    case = promotion.judge(version, policy, options.min_accuracy, options.data_dir)
    decided_in = None
    if not options.dry_run:
        with registry.turn(version.name) as run_id:
            if case.previous != registry.holder(version.name):  # another promotion came between
                case = promotion.judge(version, policy, options.min_accuracy, options.data_dir)
            promotion.record(run_id, case, options.reason or case.verdict.reason)
            registry.carry_out(version.name, run_id)
            decided_in = run_id
    what = f"{version.name} version {version.version}: {'would be ' * options.dry_run}{case.kind}"
    for check in case.verdict.checks:
        cli.log(f"{what}; {check}")
    cli.print_json(case.as_dict() | {"reason": options.reason or case.verdict.reason, "decision_run_id": decided_in})
    return cli.OK if case.verdict.passed else cli.REFUSED


def rollback(options: argparse.Namespace) -> int:
    """Choose the version to go back to, see that it still loads, put it back, record it, print."""
    from pipeline import promotion, registry, tracking

    name = registry.only_model(options.model_name)
    with registry.turn(name) as run_id:
        target = registry.to_go_back_to(registry.decisions(name), options.to)
        stored = tracking.load_model(f"models:/{name}/{target.version}")
        if stored.sha256 != target.model_sha256:
            raise UserError(f"the file of version {target.version} is not the one that was promoted; choose another")
        record = promotion.roll_back(run_id, name, target, options.reason)
        registry.carry_out(name, run_id)
    cli.log(f"{name} version {target.version} is back in Production; before: version {record['previous_version']}")
    cli.print_json(record | {"decision_run_id": run_id})
    return cli.OK


def history(options: argparse.Namespace) -> int:
    """Print what was in Production when."""
    from pipeline import registry

    name = registry.only_model(options.model_name)
    taken = registry.decisions(name)
    reigns = registry.reigns(taken)
    last = reigns[-1][0].version if reigns else None
    if options.at:
        reigns = [reign for reign in reigns if reign[0] == registry.reign_at(taken, options.at)]
    rows = [
        {
            "version": move.version,
            "from": cli.utc(move.time),
            "until": until and cli.utc(until),
            "decision": move.kind,
            "decided_by": move.user,
            "reason": move.reason,
            "accuracy": move.accuracy,
            "run_id": move.run_id,
        }
        for move, until in reigns
    ]
    if (number := registry.holder(name)) != last:
        cli.log(f"the alias champion points to version {number}, which promote.py did not decide")
    if options.json:
        cli.print_json({"model_name": name, "reigns": rows})
    elif rows:
        import pandas as pd

        table = pd.DataFrame(rows).drop(columns="run_id").fillna({"until": "now", "accuracy": "-"})
        print(f"{name} in Production, times in UTC\n{table.to_string(index=False, max_colwidth=80)}")
    else:
        print(f"{name}: nothing was in Production{f' at {cli.utc(options.at)}' if options.at else ' yet'}")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
