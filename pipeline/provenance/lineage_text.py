"""The lineage of a model as text for people, and as JSON for programs."""

import textwrap
from typing import Any

from pipeline.context import format_utc
from pipeline.documents import parse_count
from pipeline.provenance.lineage import Lineage
from pipeline.provenance.questions import Facts, answer_questions, list_unanswered
from pipeline.text import printable

QUESTION_WIDTH = 7  # characters
NAME_WIDTH = 18


def format_lineage(lineage: Lineage, width: int = 120) -> str:
    """Return the answers for people: the questions, the graph, what is missing; lines of ``width`` characters."""
    questions = answer_questions(lineage)
    lines = [printable(lineage.name)]
    for question, facts in questions.items():
        lines += ["", *_format_question(question, facts, width)]
    lines += ["", *format_graph(lineage, questions), ""]
    unanswered = list_unanswered(questions)
    if unanswered:
        lines.append(f"Unanswered: {'; '.join(unanswered)}")
    else:
        lines.append("No question is unanswered.")
    return "\n".join(lines)


def _format_question(question: str, facts: Facts, width: int) -> list[str]:
    lines = []
    label = question.upper()
    indent = " " * (QUESTION_WIDTH + NAME_WIDTH)
    for name, fact in facts.items():
        head = f"{label:{QUESTION_WIDTH}}{name:{NAME_WIDTH}}"
        value = printable(fact.value or f"UNANSWERED ({fact.source})")
        lines += textwrap.wrap(head + value, width, subsequent_indent=indent, break_on_hyphens=False)
        label = ""  # the first line of a question has its name
    return lines


def format_graph(lineage: Lineage, questions: dict[str, Facts]) -> list[str]:
    """Return data -> training -> model -> evaluation -> decisions, a line each."""
    steps = [
        ("data", _describe_data(lineage)),
        ("training", _describe_training(lineage, questions)),
        ("model", questions["what"]["model"].value),
        ("evaluation", questions["why"]["evaluation"].value),
    ]
    for decision in lineage.decisions:
        steps.append(("decision", f"{format_utc(decision.time)} UTC {decision.kind} by {decision.user}"))
    if not lineage.decisions:
        steps.append(("decision", None))
    lines = []
    for index, (name, description) in enumerate(steps):
        indent = "   " * min(index, 4)
        arrow = "-> " if index else ""
        lines.append(printable(f"{indent}{arrow}{name}: {description or '(unanswered)'}"))
    return lines


def _describe_data(lineage: Lineage) -> str | None:
    dataset, size = lineage.params.get("dataset"), parse_count(lineage.params.get("train_size"))
    if not dataset or size is None:
        return None
    return f"{dataset}, {size:,} training images"


def _describe_training(lineage: Lineage, questions: dict[str, Facts]) -> str | None:
    if not lineage.run:
        return None
    duration = questions["when"]["trained"].value
    return f"run {lineage.run.info.run_id}, {duration or lineage.run.info.status}"


def lineage_as_dict(lineage: Lineage) -> dict[str, Any]:
    """Return the answers for JSON; None stands for what is unanswered."""
    questions = answer_questions(lineage)
    result: dict[str, Any] = {
        "model_name": lineage.version.name if lineage.version else None,
        "version": int(lineage.version.version) if lineage.version else None,
        "run_id": lineage.run.info.run_id if lineage.run else None,
        "model_uri": lineage.model_uri,
    }
    for question, facts in questions.items():
        result[question] = {name: fact.value for name, fact in facts.items()}
    result["unanswered"] = list_unanswered(questions)
    result["evaluation"] = lineage.evaluation.model_dump(by_alias=True) if lineage.evaluation else None
    result["checklist"] = {answer["question"]: answer["verdict"] for answer in lineage.checklist}
    result["decisions"] = []
    for decision in lineage.decisions:
        entry = {
            "time": f"{format_utc(decision.time)} UTC",
            "decision": decision.kind,
            "user": decision.user,
            "reason": decision.reason,
            "decision_run_id": decision.decision_run_id,
        }
        result["decisions"].append(entry)
    return result
