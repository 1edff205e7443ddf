"""The quality gate: move a version from Staging to Production, or refuse and say why.

    python promote.py --run-id 8f1c...                       the version that this run registered
    python promote.py --model-name mnist-classifier --version 3
    python promote.py --run-id 8f1c... --min-accuracy 0.995 --dry-run

It believes only what `evaluate.py --log-mlflow` recorded for exactly this model. Exit code 0: in Production;
1: refused; 2: something to put right first.
"""

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.gate import Verdict

POLICY = Path(__file__).with_name("gates.toml")


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run-id", help="the version that this run registered")
    which.add_argument("--version", type=cli.number(int, 1), help="or this version of --model-name")
    parser.add_argument("--model-name", help="registered model; needed with --version")
    parser.add_argument(
        "--min-accuracy",
        type=cli.number(float, 0, high=1),
        help="floor of the test accuracy (default: from gates.toml)",
    )
    parser.add_argument("--dry-run", action="store_true", help="decide, but move nothing and write nothing")
    options = parser.parse_args()
    if options.version and not options.model_name:
        parser.error("--version needs --model-name")
    return options


def main() -> int:
    """Find the version and its evaluation, decide, move it or refuse, print."""
    options = parse_options()
    from pipeline import gate, registry, tracking

    with tracking.connected():
        if options.version:
            version = registry.get_version(options.model_name, options.version)
        else:
            tracking.get_run(options.run_id)
            version = registry.version_of(options.run_id, options.model_name)
        evidence = tracking.evaluation_of(str(version.run_id), str(version.source))
        verdict = gate.decide(evidence, gate.parse(cli.read(POLICY), evidence["dataset"], options.min_accuracy))

        champion = registry.champion(version.name)
        in_production = champion is not None and champion.version == version.version
        decision = "refused" if not verdict.passed else "unchanged" if in_production else "promoted"
        if not options.dry_run and not in_production:
            registry.tag(version, tags(decision, verdict, champion))
        if not options.dry_run and verdict.passed:
            registry.promote(version)  # also where a stopped promotion left the stage behind the alias
    what = f"{version.name} version {version.version}: {'would be ' * options.dry_run}{decision}"
    for check in verdict.checks:
        cli.log(f"{what}; {check}")
    cli.print_json(
        {
            "model_name": version.name,
            "version": int(version.version),
            "decision": decision,
            "checks": [asdict(check) for check in verdict.checks],
            "previous_version": int(champion.version) if champion else None,
        }
    )
    return cli.OK if verdict.passed else cli.REFUSED


def tags(decision: str, verdict: "Verdict", champion: "ModelVersion | None") -> dict[str, Any]:
    """Return what the version says in the registry about its gate: which one, which figures, when."""
    return {
        "gate.decision": decision,
        "gate.checks": "; ".join(str(check) for check in verdict.checks),
        "gate.time": datetime.now(UTC).isoformat(timespec="seconds"),
        "gate.previous_version": champion.version if champion else "none",
    }


if __name__ == "__main__":
    cli.run(main)
