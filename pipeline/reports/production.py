"""What was in Production when, for people and for programs."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from pipeline.context import format_utc
from pipeline.promotion.decision_tags import Decision
from pipeline.promotion.history import Period
from pipeline.reports.comparison import escape_table
from pipeline.text import printable
from pipeline.tracking import registry

COLUMNS = ("version", "from", "until", "decision", "decided_by", "reason", "accuracy", "signer")  # of the table
MOVED, REMOVED, UNKNOWN = "moved by hand", "removed by hand", "not known"


def describe_periods(name: str, periods: Sequence[Period]) -> list[dict[str, Any]]:
    """Return a row for each period, for JSON."""
    moved = any(period.is_by_hand and period.version is not None for period in periods)
    existing = {int(version.version) for version in registry.list_versions(name)} if moved else set()
    rows = []
    for period in periods:
        if period.decision is None:
            facts = _describe_move_by_hand(period, existing)
        else:
            facts = _describe_decision(period.decision)
        rows.append(_describe_times(period) | facts)
    return rows


def _describe_times(period: Period) -> dict[str, Any]:
    return {
        "version": period.version,
        "from": _format_time(period.start),
        "until": _format_time(period.end),
        "known_from": _format_time(period.known_from),
        "known_until": _format_time(period.known_until),
    }


def _format_time(time: datetime | None) -> str | None:
    return format_utc(time) if time else None


def _describe_decision(decision: Decision) -> dict[str, Any]:
    return {
        "decision": decision.kind,
        "decided_by": decision.user,
        "reason": decision.reason,
        "accuracy": decision.accuracy,
        "signer": decision.signer,
        "decision_run_id": decision.decision_run_id,
    }


def _describe_move_by_hand(period: Period, existing: Collection[int]) -> dict[str, Any]:
    if period.version is None:
        kind, reason = REMOVED, "the alias champion was removed, or its version was deleted"
    elif period.version in existing:
        kind, reason = MOVED, "no decision did it: somebody moved the alias champion"
    else:
        kind, reason = UNKNOWN, "the version was deleted, and what was decided about it with it"
    return {
        "decision": kind,
        "decided_by": None,
        "reason": f"{reason}; first seen on {format_utc(period.known_from)}",
        "accuracy": None,
        "signer": None,
        "decision_run_id": None,
    }


def format_history(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table for people."""
    table = pd.DataFrame([_format_row(row) for row in rows], columns=list(COLUMNS))
    table = escape_table(table, printable)
    return f"{printable(name)} in Production, times in UTC\n{table.to_string(index=False, max_colwidth=80)}"


def _format_row(row: dict[str, Any]) -> dict[str, Any]:
    start, end = row["from"] or "not known", row["until"] or "now"
    if row["known_from"] != row["from"] and row["from"]:
        start = f"after {start}"
    if row["known_until"] != row["until"]:
        end = f"before {end}"
    return {
        "version": row["version"] or "none",
        "from": start,
        "until": end,
        "decision": row["decision"],
        "decided_by": row["decided_by"] or "not known",
        "reason": row["reason"],
        "accuracy": "-" if row["accuracy"] is None else row["accuracy"],
        "signer": row["signer"] or "nobody",
    }
