"""The record of a decision, for people: ``verdict.md``."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.promotion.gate import format_figure
from pipeline.text import escape_markdown

LINK = re.compile(r"https?://[\w.:/~%-]+", re.ASCII)  # nothing that ends a link in Markdown


def format_verdict_files(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of a decision by name: ``verdict.json`` and ``verdict.md``."""
    return {
        "verdict.json": json.dumps(record, indent=2, allow_nan=False),
        "verdict.md": format_verdict(record),
    }


def format_verdict(record: Mapping[str, Any]) -> str:
    """Return the record of a decision as Markdown."""
    subject = record["model_name"]
    if record["version"] is not None:
        subject += f" version {record['version']}"
    lines = [f"# {escape_markdown(subject)}: {record['decision']}", "", escape_markdown(record["reason"]), ""]
    lines += [f"- **{escape_markdown(notice)}**" for notice in record.get("notices", [])]
    if record.get("notices"):
        lines.append("")
    if record["checks"]:
        lines += _format_checks(record["checks"])
    if record.get("comparison"):
        lines += _format_comparison(record["comparison"])
    lines += _format_facts(record)
    return "\n".join(lines) + "\n"


def _format_checks(checks: list[dict[str, Any]]) -> list[str]:
    lines = ["| check | value | in Production | threshold | result |", "| --- | ---: | ---: | ---: | --- |"]
    for check in checks:
        figures = [_format_figure(check[key]) for key in ("value", "champion", "threshold")]
        result = "passed" if check["passed"] else "**refused**"
        lines.append(f"| {escape_markdown(check['name'])} | {' | '.join(figures)} | {result} |")
    sentences = [f"- {escape_markdown(check['name'])}: {escape_markdown(check['sentence'])}" for check in checks]
    return [*lines, "", *sentences, ""]


def _format_figure(value: float | None) -> str:
    return "-" if value is None else format_figure(value)


def _format_comparison(comparison: Mapping[str, Any]) -> list[str]:
    sentence = (
        f"Of {comparison['images']:,} test images the candidate has {comparison['candidate_correct']:,} right, "
        f"the champion {comparison['champion_correct']:,}; {comparison['only_candidate']:,} only the candidate, "
        f"{comparison['only_champion']:,} only the champion."
    )
    if comparison["left_out"]:
        names = ", ".join(map(escape_markdown, comparison["left_out"]))
        sentence += f" These are the images whose class both know; left out: {names}."
    return [sentence, ""]


def _format_job(url: str | None) -> str:
    if not url:
        return ""
    return f", [CI job]({url})" if LINK.fullmatch(url) else f", CI job {escape_markdown(url)}"


def _format_facts(record: Mapping[str, Any]) -> list[str]:
    user, host = escape_markdown(record["user"]), escape_markdown(record["host"])
    lines = [f"- Decided at {record['time']} by {user} on {host}{_format_job(record['job_url'])}"]
    for role in ("candidate", "champion"):
        version = record.get(role)
        if version:
            lines.append(
                f"- {role.capitalize()}: version {version['version']}, run {version['run_id']}, "
                f"model SHA-256 {version['model_sha256'] or 'not read'}; "
                f"evidence: {escape_markdown(version['evidence'])}"
            )
    if record.get("lock_owner"):
        lines.append(f"- The lock was that of {escape_markdown(record['lock_owner'])}")
    if record["previous_version"] is None:
        lines.append("- Nothing was in Production")
    policy = record.get("policy")
    if policy:
        lines.append(f"- Test set: {escape_markdown(record['dataset'])}, SHA-256 {record['dataset_digest']}")
        lines += [f"- Policy: SHA-256 {policy['sha256']}, of which these rules:", ""]
        lines += [f"      {name} = {rule!r}" for name, rule in policy["rules"].items()]
    return lines
