"""Who, what, when, where, how and why: the six questions about a model, one function each.

They are those of the Open Provenance Model (Moreau et al. 2011, https://doi.org/10.1016/j.future.2010.07.005). A fact
that nobody recorded is unanswered; nothing is guessed.
"""

from dataclasses import fields
from datetime import datetime
from typing import NamedTuple

from pipeline.context import format_utc
from pipeline.data.catalog import SPLITS
from pipeline.documents import parse_count, parse_milliseconds
from pipeline.provenance.lineage import Lineage
from pipeline.tracking.runs import Run
from pipeline.training.config import TrainingConfig

ANSWERED_ELSEWHERE = {"dataset", "model", "device"}  # parameters that have a line of their own
SHOWN_PARAMS = [field.name for field in fields(TrainingConfig) if field.name not in ANSWERED_ELSEWHERE]
SHOWN_PARAMS.append("optimizer")


class Fact(NamedTuple):
    """An answer, or None; and where it would be if somebody had recorded it."""

    value: str | None
    source: str


Facts = dict[str, Fact]


def answer_questions(lineage: Lineage) -> dict[str, Facts]:
    """Return the six questions, each with its facts by name."""
    return {
        "what": answer_what(lineage),
        "who": answer_who(lineage),
        "when": answer_when(lineage),
        "where": answer_where(lineage),
        "how": answer_how(lineage),
        "why": answer_why(lineage),
    }


def list_unanswered(questions: dict[str, Facts]) -> list[str]:
    """Return the facts that are missing, each as ``question: fact``."""
    missing = []
    for question, facts in questions.items():
        for name, fact in facts.items():
            if not fact.value:
                missing.append(f"{question}: {name}")
    return missing


# --- the questions ---------------------------------------------------------------------------------------------------


def answer_what(lineage: Lineage) -> Facts:
    """Return what the model and its data are."""
    facts = {
        "model": Fact(_describe_model(lineage), "a logged model"),
        "files, SHA-256": Fact(_describe_files(lineage), "a model in pt2 format"),
        "weights, SHA-256": _read_tag(lineage, "result.weights_sha256"),
        "network": Fact(_describe_network(lineage), "parameters model, model_parameters"),
        "data": Fact(lineage.params.get("dataset"), "parameter dataset"),
        "data from": Fact(lineage.data_urls, "an input with a URL"),
    }
    report = lineage.tags.get("data.cleaning_report_sha256")
    if report:  # only one's own data have one
        facts["cleaning report, SHA-256"] = Fact(report, "")
    for split in SPLITS:
        source = f"parameters {split}_size, {split}_digest"
        facts[f"{split} images"] = Fact(_describe_split(lineage, split), source)
    return facts


def answer_who(lineage: Lineage) -> Facts:
    """Return who trained, evaluated and decided."""
    trainer = lineage.tags.get("invocation.user") or lineage.tags.get("mlflow.user")
    evaluation, decision = lineage.evaluation, lineage.last_decision
    return {
        "trained": Fact(trainer, "tag invocation.user"),
        "evaluated": Fact(evaluation.user if evaluation else None, _evaluation_source(lineage)),
        "decided": Fact(decision.user if decision else None, _decision_source(lineage)),
    }


def answer_when(lineage: Lineage) -> Facts:
    """Return when the model was trained, registered, evaluated and decided about."""
    registered = _format_milliseconds(lineage.version.creation_timestamp) if lineage.version else None
    evaluation, decision = lineage.evaluation, lineage.last_decision
    evaluated = _format_time(evaluation.evaluated_at) if evaluation else None
    decided = _format_time(decision.time) if decision else None
    return {
        "trained": Fact(_describe_duration(lineage.run), "a run that ended"),
        "registered": Fact(registered, "pytorch_demo.py: not registered"),
        "evaluated": Fact(evaluated, _evaluation_source(lineage)),
        "decided": Fact(decided, _decision_source(lineage)),
    }


def answer_where(lineage: Lineage) -> Facts:
    """Return where the model was trained, evaluated and decided about."""
    host = lineage.tags.get("invocation.host")
    trained = _describe_location(host, lineage.tags.get("invocation.job_url"))
    evaluation, decision = lineage.evaluation, lineage.last_decision
    evaluated = _describe_location(evaluation.host, evaluation.job_url) if evaluation else None
    decided = _describe_location(decision.host, decision.job_url) if decision else None
    return {
        "trained": Fact(trained, "tag invocation.host"),
        "machine": _read_tag(lineage, "environment.system", "environment.cpu"),
        "device": Fact(_describe_device(lineage), "tags environment.gpu, environment.threads"),
        "evaluated": Fact(evaluated, _evaluation_source(lineage)),
        "decided": Fact(decided, _decision_source(lineage)),
    }


def answer_how(lineage: Lineage) -> Facts:
    """Return the code, the command, the parameters and the environment of the training."""
    params = [f"{name} {lineage.params[name]}" for name in SHOWN_PARAMS if name in lineage.params]
    resumptions = [value for name, value in sorted(lineage.tags.items()) if name.startswith("resumed.")]
    facts = {
        "code": Fact(_describe_code(lineage.tags), "tag code.commit"),
        "command": _read_tag(lineage, "invocation.command"),
        "parameters": Fact(", ".join(params) or None, "parameters"),
        "environment": Fact(
            _describe_environment(lineage.tags), "tags environment.python, environment.packages_sha256"
        ),
    }
    if resumptions:
        facts["resumed"] = Fact("; ".join(resumptions), "tags resumed.1, resumed.2 ...")
    return facts


def answer_why(lineage: Lineage) -> Facts:
    """Return the evaluation, the checklist, the decision and its reasons."""
    verdicts = [f"{answer['question']} {answer['verdict']}" for answer in lineage.checklist]
    return {
        "evaluation": Fact(_describe_evaluation(lineage), _evaluation_source(lineage)),
        "checklist": Fact(", ".join(verdicts) or None, _evaluation_source(lineage)),
        "decision": Fact(_describe_decision(lineage), _decision_source(lineage)),
        "compared with": Fact(_describe_comparison(lineage), _decision_source(lineage)),
    }


# --- single facts ----------------------------------------------------------------------------------------------------


def _read_tag(lineage: Lineage, *names: str) -> Fact:
    values = [lineage.tags.get(name) for name in names]
    known = [value for value in values if value]
    source = "tag " if len(names) == 1 else "tags "
    value = ", ".join(known) if len(known) == len(names) else None
    return Fact(value, source + ", ".join(names))


def _evaluation_source(lineage: Lineage) -> str:
    return f"evaluate.py: {lineage.no_evaluation}"


def _decision_source(lineage: Lineage) -> str:
    return "promote.py: nothing was decided" if lineage.version else "pytorch_demo.py: not registered"


def _format_time(when: datetime) -> str:
    return f"{format_utc(when)} UTC"


def _format_milliseconds(milliseconds: int | None) -> str | None:
    when = parse_milliseconds(milliseconds)
    return _format_time(when) if when else None


def _format_count(text: str | None) -> str | None:
    count = parse_count(text)
    return None if count is None else f"{count:,}"


def _describe_model(lineage: Lineage) -> str | None:
    if not lineage.model_uri:
        return None
    parts = [lineage.name]
    if lineage.version:
        parts.append(str(lineage.version.current_stage))
        parts += [f"alias {alias}" for alias in lineage.version.aliases]
    return ", ".join(parts)


def _describe_files(lineage: Lineage) -> str | None:
    """Return the identity of the files, and which records agree or disagree with it."""
    if not lineage.model_sha256:
        return None
    decision = lineage.last_decision
    recorded = {
        "the run": lineage.tags.get("result.model_sha256"),
        "its evaluation": lineage.evaluation.model_sha256 if lineage.evaluation else None,
        "the decision": decision.model_sha256 if decision else None,
    }
    known = {record: value for record, value in recorded.items() if value}
    different = [record for record, value in known.items() if value != lineage.model_sha256]
    if different:
        return f"{lineage.model_sha256}; NOT what {' and '.join(different)} recorded"
    return f"{lineage.model_sha256} ({', '.join(known) or 'nobody recorded it'})"


def _describe_network(lineage: Lineage) -> str | None:
    model = lineage.params.get("model")
    parameters = _format_count(lineage.params.get("model_parameters"))
    return f"{model}, {parameters} parameters" if model and parameters else None


def _describe_split(lineage: Lineage, split: str) -> str | None:
    size = _format_count(lineage.params.get(f"{split}_size"))
    digest = lineage.params.get(f"{split}_digest")
    return f"{size}, SHA-256 {digest}" if size and digest else None


def _describe_duration(run: Run | None) -> str | None:
    if not run:
        return None
    start, end = _format_milliseconds(run.info.start_time), _format_milliseconds(run.info.end_time)
    if not start or not end:
        return None
    seconds = (run.info.end_time - run.info.start_time) / 1000
    return f"{start} to {end}, {seconds:.1f} s, {run.info.status}"


def _describe_location(host: str | None, job_url: str | None) -> str | None:
    return f"{host}, {job_url or 'no CI job'}" if host else None


def _describe_device(lineage: Lineage) -> str | None:
    tags = lineage.tags
    device, threads = lineage.params.get("device"), tags.get("environment.threads")
    if not device or not threads:
        return None
    gpu = tags.get("environment.gpu", "none")
    hardware = device if gpu == "none" else f"{device} ({gpu})"
    enforced = "on" if tags.get("environment.deterministic_algorithms") == "True" else "off"
    return f"{hardware}, {threads} threads, deterministic algorithms enforced: {enforced}"


def _describe_code(tags: dict[str, str]) -> str | None:
    commit = tags.get("code.commit")
    if commit is None:
        mlflow_commit = tags.get("mlflow.source.git.commit")
        if mlflow_commit is None:
            return None
        return f"commit {mlflow_commit} (from MLflow, which does not say whether the files were changed)"
    if "code.dirty" not in tags:
        source = tags.get("code.commit_source")
        return f"commit {commit}, named by {source}" if source else commit
    state = "unchanged"
    if tags["code.dirty"] == "true":
        state = f"changed; patch {tags.get('code.patch')}"
    return f"commit {commit}, {state}, branch {tags.get('code.branch')}, remote {tags.get('code.remote')}"


def _describe_environment(tags: dict[str, str]) -> str | None:
    python, packages = tags.get("environment.python"), tags.get("environment.packages_sha256")
    if not python or not packages:
        return None
    return f"Python {python}, packages in provenance/packages.txt, SHA-256 {packages}"


def _describe_evaluation(lineage: Lineage) -> str | None:
    record = lineage.evaluation
    if not record:
        return None
    interval = record.accuracy_interval
    return (
        f"{record.accuracy:.2%} of {record.samples:,} test images of {record.dataset}, "
        f"95% interval {interval.low:.2%} to {interval.high:.2%}, loss {record.loss:.4f}"
    )


def _describe_decision(lineage: Lineage) -> str | None:
    decision = lineage.last_decision
    if not decision:
        return f"none; {lineage.moved_by_hand}" if lineage.moved_by_hand else None
    text = f"{decision.kind}: {decision.reason}"
    return f"{text}; {lineage.moved_by_hand}" if lineage.moved_by_hand else text


def _describe_comparison(lineage: Lineage) -> str | None:
    decision = lineage.last_decision
    if not decision:
        return None
    champion = lineage.verdict.get("champion")
    number = champion.get("version") if isinstance(champion, dict) else None
    if not isinstance(number, int):
        number = decision.previous_version
    if number is None:
        return "nothing was in Production"
    text = f"version {number}"
    if number != decision.previous_version:
        text += ", the last one in Production by a decision"
    comparison = lineage.verdict.get("comparison")
    p = comparison.get("p") if isinstance(comparison, dict) else None
    if isinstance(p, int | float):
        text += f", McNemar p {p:.2g}"
    return text
