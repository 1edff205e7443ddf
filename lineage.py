"""Where a model comes from: who, what, when, where, how and why, on one screen.

    python lineage.py                                        the model in Production, of the store's only registered one
    python lineage.py --model mnist-classifier --version 3
    python lineage.py --model mnist-classifier@champion
    python lineage.py --run-id 8f1c... --json                for programs
    python lineage.py --prov lineage.prov.json               W3C PROV-JSON, for other provenance tools

It reads what the three scripts recorded and changes nothing. A fact that nobody recorded is shown as unanswered.
"""

import argparse
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.provenance.lineage import Lineage
    from pipeline.tracking.registry import ModelVersion

DEFAULT_VERSION = "@champion"


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; nothing heavy is imported before they are known to be right."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--model", "--model-name", dest="model", metavar="NAME", help="registered model (default: the store's only one)"
    )
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", metavar="N", help="a number, or an alias such as @champion (default: @champion)")
    version.add_argument("--run-id", help="or the model of this run, registered or not")
    parser.add_argument("--json", action="store_true", help="print JSON, not text")
    parser.add_argument("--prov", type=cli.path, metavar="FILE", help="also write W3C PROV-JSON")
    options = parser.parse_args(argv)
    name, at, alias = (options.model or "").partition("@")
    if at:
        if options.version or options.run_id:
            parser.error(f"--model {options.model} names an alias; leave out --version and --run-id")
        options.model, options.version = name, f"@{alias}"
    options.version = options.version or DEFAULT_VERSION
    if not is_version(options.version):
        parser.error(f"--version {options.version!r} is neither a number nor an alias such as @champion")
    return options


def is_version(text: str) -> bool:
    """Return whether ``text`` is the number of a version, or an alias such as @champion."""
    if text.startswith("@"):
        return len(text) > 1
    return bool(re.fullmatch("[1-9][0-9]{0,8}", text))


@cli.entry_point
def main(argv: Sequence[str]) -> int:
    """Find the model, gather what the store knows of it, print, write PROV if asked."""
    options = parse_options(argv)
    from pipeline.files import find_target
    from pipeline.provenance.lineage import gather_lineage
    from pipeline.provenance.lineage_text import format_lineage, lineage_as_dict
    from pipeline.tracking import store

    if options.prov:
        find_target(options.prov)  # it says now what is wrong with it
    with store.connect():
        lineage = gather_lineage(find_version(options), options.run_id)
        if options.prov:
            write_prov(options.prov, lineage)
        if options.json:
            cli.print_json(lineage_as_dict(lineage))
        else:
            cli.print_text(format_lineage(lineage))
    return cli.OK


def find_version(options: argparse.Namespace) -> "ModelVersion | None":
    """Return the version that the options name; None for a run that is not registered."""
    from pipeline.tracking import registry, runs

    if not options.run_id:
        name = registry.resolve_model_name(options.model)
        return registry.get_version(name, registry.resolve_version(name, options.version))
    runs.get_run(options.run_id)  # it says so if there is none
    if not registry.list_versions_of_run(options.run_id, options.model):
        return None
    return registry.get_version_of_run(options.run_id, options.model)


def write_prov(path: Path, lineage: "Lineage") -> None:
    """Write the lineage as W3C PROV-JSON."""
    from pipeline.files import atomic_file
    from pipeline.provenance.prov import build_prov_document
    from pipeline.redact import redact_file

    document = build_prov_document(lineage)
    content = io.StringIO()
    document.serialize(content, format="json", indent=2)
    with atomic_file(path) as file:
        file.write_bytes(redact_file("prov.json", content.getvalue().encode()))


if __name__ == "__main__":
    sys.exit(main())
