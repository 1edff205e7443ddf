"""The answers of the checklist as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reports.checklist import QUESTIONS, Answer
from pipeline.text import escape_markdown

SHOWN_AS_FIGURE = "reliability"  # reliability.png shows these numbers


def format_checklist(answers: Sequence[Answer], title: str) -> str:
    """Return the answers for people: a table of verdicts, then each question with its sentences and figures."""
    lines = [f"# {escape_markdown(title)}", "", "| question | verdict |", "| --- | --- |"]
    lines += [f"| {QUESTIONS[answer.question]} | **{answer.verdict}** |" for answer in answers]
    for number, answer in enumerate(answers, start=1):
        lines += ["", f"## {number}. {QUESTIONS[answer.question]} {answer.verdict.capitalize()}", ""]
        lines += [*map(escape_markdown, answer.sentences), "", *_format_figures(answer.figures)]
    return "\n".join(lines) + "\n"


def _format_figures(figures: Mapping[str, Any]) -> list[str]:
    rows = ["| figure | value |", "| --- | --- |"]
    for name, value in figures.items():
        if name == SHOWN_AS_FIGURE:
            continue
        rows.append(f"| {name.replace('_', ' ')} | {_format_value(value)} |")
    return rows


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return "<br>".join(_format_entry(entry) for entry in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{escape_markdown(key)}: {_format_value(item)}" for key, item in value.items())
    if isinstance(value, float):
        is_large_integer = value.is_integer() and value > 1
        return f"{value:,.0f}" if is_large_integer else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else escape_markdown(str(value))


def _format_entry(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_format_value(value)}" for key, value in entry.items())
