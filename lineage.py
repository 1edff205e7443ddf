"""Where a model comes from: who, what, when, where, how and why, on one screen.

    python lineage.py                                        the model in Production, of the store's only registered one
    python lineage.py --model mnist-classifier --version 3
    python lineage.py --model mnist-classifier@champion
    python lineage.py --run-id 8f1c... --json                for programs
    python lineage.py --prov lineage.prov.json               W3C PROV-JSON, for other provenance tools

It reads what the three scripts recorded and changes nothing. What nobody recorded is shown as unanswered.
"""

import argparse
from pathlib import Path

from pipeline import cli


def parse_options() -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--model", "--model-name", dest="model", metavar="NAME", help="registered model (default: the store's only one)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", metavar="N", help="a number, or an alias such as @champion (default: @champion)")
    which.add_argument("--run-id", help="or the model of this run, registered or not")
    parser.add_argument("--json", action="store_true", help="print JSON, not text")
    parser.add_argument("--prov", type=Path, metavar="FILE", help="also write W3C PROV-JSON")
    options = parser.parse_args()
    name, at, alias = (options.model or "").partition("@")
    if at:
        if options.version or options.run_id:
            parser.error(f"--model {options.model} names an alias; leave out --version and --run-id")
        options.model, options.version = name, at + alias
    wanted = options.version or "@champion"
    if not (wanted.isdecimal() and int(wanted)) and not (wanted.startswith("@") and wanted[1:]):
        parser.error(f"--version {wanted!r} is neither a number nor an alias such as @champion")
    options.version = wanted
    return options


def main() -> int:
    """Find the model, gather what the store knows of it, print, write PROV where asked."""
    options = parse_options()
    from pipeline import lineage, registry, tracking

    with tracking.connected():
        if options.run_id:
            tracking.get_run(options.run_id)
            found = registry.registered(options.run_id, options.model)
            version = registry.version_of(options.run_id, options.model) if found else None
        else:
            name = registry.only_model(options.model)
            version = registry.get_version(name, registry.number_of(name, options.version))
        about = lineage.gather(version, options.run_id)
        if options.prov:
            with cli.whole_file(options.prov) as file:
                lineage.document(about).serialize(str(file), format="json", indent=2)
    if options.json:
        cli.print_json(lineage.as_dict(about))
    else:
        print(lineage.text(about))
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
