"""Where a model comes from, read back: who, what, when, where, how and why.

The six questions are those of the Open Provenance Model (Moreau et al. 2011, https://doi.org/10.1016/j.future.2010.07.005);
`document` writes the answers as its successor, W3C PROV (https://www.w3.org/TR/prov-overview/). What nobody recorded
is unanswered; nothing is guessed.
"""

import textwrap
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from pipeline import UserError, cli, registry, tracking

if TYPE_CHECKING:
    from prov.model import ProvDocument

SPLITS = ("train", "validation", "test")
PARAMETERS = ("epochs", "batch_size", "lr", "weight_decay", "label_smoothing", "augment", "optimizer", "seed", "limit")


class Fact(NamedTuple):
    """An answer, or None; and where it would stand if somebody had recorded it."""

    value: str | None
    source: str


@dataclass(frozen=True)
class Lineage:
    """Everything that the store knows of a model.

    Attributes
    ----------
    run : that trained it; None where it is gone.
    version : in the registry; None where it was not registered.
    model_uri : ``models:/...``; None where the run logged no model.
    sha256 : of the model's file as it is now; None where there is none that can be read without running code.
    evaluation : `evaluate.py`'s record, of exactly this file; None without, and then ``no_evaluation`` says why.
    checklist : the verdicts on its five questions.
    decisions : about the version, the first one first.
    verdict : the record of the last decision.
    """

    run: Run | None
    version: ModelVersion | None
    model_uri: str | None
    sha256: str | None
    evaluation: dict[str, Any] | None
    no_evaluation: str
    checklist: list[dict[str, Any]]
    decisions: list[registry.Decision]
    verdict: dict[str, Any]

    @property
    def params(self) -> dict[str, str]:
        """The run's parameters."""
        return dict(self.run.data.params) if self.run else {}

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags."""
        return dict(self.run.data.tags) if self.run else {}

    @property
    def name(self) -> str:
        """What to call the model."""
        if self.version:
            return f"{self.version.name} version {self.version.version}"
        return f"the model of run {self.run.info.run_id}" if self.run and self.model_uri else "no model"


def gather(version: ModelVersion | None, run_id: str | None) -> Lineage:
    """Return the lineage of a version, or of the model of a run that is not registered."""
    run, sha256, evaluation, reason = None, None, None, ""
    model_uri = str(version.source) if version else None
    checklist: list[dict[str, Any]] = []
    try:
        run = tracking.get_run(str(version.run_id) if version else str(run_id))
        model_uri = model_uri or tracking.model_of(run.info.run_id)
        evaluation = tracking.evaluation_of(run.info.run_id, model_uri).record
        checklist = tracking.read_json(run.info.run_id, tracking.CHECKLIST) or []
    except UserError as error:
        reason = str(error)
    if evaluation:
        sha256 = evaluation["model_sha256"]  # compared with the file a moment ago
    elif model_uri:
        with suppress(UserError):
            sha256 = tracking.model_sha256(model_uri)
    taken = registry.decisions(version.name) if version else []
    decisions = [each for each in taken if version and each.version == int(version.version)]
    verdict = decisions and tracking.read_json(decisions[-1].run_id, "verdict.json")
    return Lineage(run, version, model_uri, sha256, evaluation, reason, checklist, decisions, verdict or {})


# --- the questions --------------------------------------------------------------------------------------------------


def questions(about: Lineage) -> dict[str, dict[str, Fact]]:
    """Return the six questions, each with its facts by name."""
    run, version, tags, params = about.run, about.version, about.tags, about.params
    evaluation, last = about.evaluation or {}, about.decisions[-1] if about.decisions else None
    no_evaluation = f"evaluate.py: {about.no_evaluation}"
    no_decision = "promote.py: nothing was decided" if version else "pytorch_demo.py: not registered"
    job = tags.get("invocation.job_url") or ("no CI job" if "invocation.host" in tags else None)

    def tag(*names: str) -> Fact:
        values = [tags.get(name) for name in names]
        return Fact(", ".join(map(str, values)) if all(values) else None, "tags " + ", ".join(names))

    stage = [str(version.current_stage), *(f"alias {alias}" for alias in version.aliases)] if version else []
    recorded = {"the run": tags.get("result.model_sha256"), "its evaluation": evaluation.get("model_sha256")}
    recorded["the decision"] = last.model_sha256 if last else None
    other = [who for who, value in recorded.items() if value and value != about.sha256]
    agreed = ", ".join(who for who, value in recorded.items() if value)
    file = about.sha256 and about.sha256 + (f"; NOT what {' and '.join(other)} recorded" if other else f" ({agreed})")
    parameters = _count(params.get("model_parameters"))
    report = tags.get("data.cleaning_report_sha256")  # only data of one's own have one
    cleaned = {"cleaning report, SHA-256": Fact(report, "")} if report else {}
    return {
        "what": {
            "model": Fact(", ".join([about.name, *stage]) if about.model_uri else None, "a logged model"),
            "file, SHA-256": Fact(file, "a model in pt2 format"),
            "weights, SHA-256": tag("result.weights_sha256"),
            "network": Fact(
                f"{params['model']}, {parameters} parameters" if "model" in params and parameters else None,
                "parameters model, model_parameters",
            ),
            "data": Fact(params.get("dataset"), "parameter dataset"),
            "data from": Fact(_source(about), "an input with a URL"),
            **cleaned,
            **{f"{split} images": _split(params, split) for split in SPLITS},
        },
        "who": {
            "trained": Fact(tags.get("invocation.user") or tags.get("mlflow.user"), "tag invocation.user"),
            "evaluated": Fact(evaluation.get("user"), no_evaluation),
            "decided": Fact(last.user if last else None, no_decision),
        },
        "when": {
            "trained": Fact(_duration(run), "a run that ended"),
            "registered": Fact(
                _time(version.creation_timestamp) if version else None, "pytorch_demo.py: not registered"
            ),
            "evaluated": Fact(
                _utc(datetime.fromisoformat(evaluation["time"])) if "time" in evaluation else None, no_evaluation
            ),
            "decided": Fact(_utc(last.time) if last else None, no_decision),
        },
        "where": {
            "trained": Fact(job and f"{tags['invocation.host']}, {job}", "tag invocation.host"),
            "machine": tag("environment.system", "environment.cpu"),
            "device": tag("environment.gpu", "environment.threads")._replace(value=_device(about)),
            "evaluated": Fact(_place(evaluation), no_evaluation),
            "decided": Fact(_place(vars(last)) if last else None, no_decision),
        },
        "how": {
            "code": Fact(_code(tags), "tag code.commit"),
            "command": tag("invocation.command"),
            "parameters": Fact(
                ", ".join(f"{name} {params[name]}" for name in PARAMETERS if name in params) or None, "parameters"
            ),
            "environment": Fact(_environment(about), "tags environment.python, environment.packages_sha256"),
        },
        "why": {
            "evaluation": Fact(_score(evaluation), no_evaluation),
            "checklist": Fact(
                ", ".join(f"{each['question']} {each['verdict']}" for each in about.checklist) or None, no_evaluation
            ),
            "decision": Fact(_reason(about), no_decision),
            "compared with": Fact(_beside(about.verdict, last), no_decision),
        },
    }


def unanswered(facts: dict[str, dict[str, Fact]]) -> list[str]:
    """Return what is missing, each as ``question: fact``."""
    return [f"{question}: {name}" for question, row in facts.items() for name, fact in row.items() if not fact.value]


def _time(milliseconds: int) -> str:
    return _utc(datetime.fromtimestamp(milliseconds / 1000, UTC))


def _utc(when: datetime) -> str:
    return f"{cli.utc(when)} UTC"


def _duration(run: Run | None) -> str | None:
    if not run or not run.info.end_time:
        return None
    seconds = (run.info.end_time - run.info.start_time) / 1000
    return f"{_time(run.info.start_time)} to {_time(run.info.end_time)}, {seconds:.1f} s, {run.info.status}"


def _place(record: dict[str, Any]) -> str | None:
    return f"{record['host']}, {record.get('job_url') or 'no CI job'}" if record.get("host") else None


def _source(about: Lineage) -> str | None:
    return ", ".join(tracking.sources(about.run) if about.run else []) or None


def _count(text: str | None) -> str | None:
    return f"{int(text):,}" if text and text.isdecimal() else None


def _split(params: dict[str, str], split: str) -> Fact:
    size, digest = _count(params.get(f"{split}_size")), params.get(f"{split}_digest")
    return Fact(f"{size}, SHA-256 {digest}" if size and digest else None, f"parameters {split}_size, {split}_digest")


def _device(about: Lineage) -> str | None:
    tags, device = about.tags, about.params.get("device")
    if not device or "environment.threads" not in tags:
        return None
    strict = "on" if tags.get("environment.deterministic_algorithms") == "True" else "off"
    gpu = f" ({tags['environment.gpu']})" if tags.get("environment.gpu") not in (None, "none") else ""
    return f"{device}{gpu}, {tags['environment.threads']} threads, deterministic algorithms enforced: {strict}"


def _code(tags: dict[str, str]) -> str | None:
    commit = tags.get("code.commit")
    if commit is None:
        own = tags.get("mlflow.source.git.commit")
        return own and f"commit {own} (from MLflow, which does not say whether the files were changed)"
    if "code.dirty" not in tags:
        return commit
    patch = f"changed; patch {tags.get('code.patch')}" if tags["code.dirty"] == "true" else "unchanged"
    return f"commit {commit}, {patch}, branch {tags.get('code.branch')}, remote {tags.get('code.remote')}"


def _environment(about: Lineage) -> str | None:
    python, packages = (about.tags.get(f"environment.{name}") for name in ("python", "packages_sha256"))
    return f"Python {python}, packages in provenance/packages.txt, SHA-256 {packages}" if python and packages else None


def _score(evaluation: dict[str, Any]) -> str | None:
    if not evaluation:
        return None
    interval = evaluation["accuracy_interval"]
    about = f"{evaluation['accuracy']:.2%} of {evaluation['samples']:,} test images of {evaluation['dataset']}"
    return f"{about}, 95% interval {interval['low']:.2%} to {interval['high']:.2%}, loss {evaluation['loss']:.4f}"


def _reason(about: Lineage) -> str | None:
    if not about.decisions:
        return None
    last = about.decisions[-1]
    in_production = about.version is not None and registry.CHAMPION in about.version.aliases
    if in_production and last.kind == registry.REFUSED:
        return f"{last.kind}: {last.reason}; the alias champion was moved by hand since"
    return f"{last.kind}: {last.reason}"


def _beside(verdict: dict[str, Any], last: registry.Decision | None) -> str | None:
    if last is None:
        return None
    if last.previous_version is None:
        return "nothing was in Production"
    comparison = verdict.get("comparison")
    figures = f", McNemar p {comparison['p']:.2g}" if comparison else ""
    return f"version {last.previous_version}{figures}"


# --- the answers as text, JSON and PROV -----------------------------------------------------------------------------


def graph(about: Lineage, facts: dict[str, dict[str, Fact]]) -> list[str]:
    """Return data -> training -> model -> evaluation -> decisions, a line each; ``facts`` are its `questions`."""
    run, trained = about.run, facts["when"]["trained"].value
    data, images = facts["what"]["data"].value, _count(about.params.get("train_size"))
    steps = [
        ("data", data and images and f"{data}, {images} training images"),
        ("training", run and f"run {run.info.run_id}, {trained or run.info.status}"),
        ("model", facts["what"]["model"].value),
        ("evaluation", facts["why"]["evaluation"].value),
    ]
    steps += [("decision", f"{_utc(each.time)} {each.kind} by {each.user}") for each in about.decisions]
    if not about.decisions:
        steps.append(("decision", None))
    return [
        f"{'   ' * min(place, 4)}{'-> ' if place else ''}{name}: {said or '(unanswered)'}"
        for place, (name, said) in enumerate(steps)
    ]


def text(about: Lineage, width: int = 120) -> str:
    """Return the answers for people: the questions, what is missing, the graph."""
    facts = questions(about)
    lines = [about.name]
    for question, row in facts.items():
        lines.append("")
        for place, (name, fact) in enumerate(row.items()):
            head = f"{question.upper() if place == 0 else '':7}{name:18}"
            said = fact.value or f"UNANSWERED ({fact.source})"
            lines += textwrap.wrap(head + said, width, subsequent_indent=" " * 25, break_on_hyphens=False)
    missing = unanswered(facts)
    lines += ["", *graph(about, facts), ""]
    lines.append(f"Unanswered: {'; '.join(missing)}" if missing else "No question is unanswered.")
    return "\n".join(lines)


def as_dict(about: Lineage) -> dict[str, Any]:
    """Return the answers for JSON; None stands for what is unanswered."""
    facts = questions(about)
    return {
        "model_name": about.version and about.version.name,
        "version": int(about.version.version) if about.version else None,
        "run_id": about.run and about.run.info.run_id,
        "model_uri": about.model_uri,
        **{question: {name: fact.value for name, fact in row.items()} for question, row in facts.items()},
        "unanswered": unanswered(facts),
        "evaluation": about.evaluation,
        "checklist": {each["question"]: each["verdict"] for each in about.checklist},
        "decisions": [
            {"time": _utc(each.time), "decision": each.kind, "user": each.user, "reason": each.reason}
            | {"run_id": each.run_id}
            for each in about.decisions
        ],
    }


def document(about: Lineage) -> "ProvDocument":
    """Return the lineage as W3C PROV: entities, activities, agents and how they hang together; unknown is left out."""
    from prov.model import ProvDocument

    found = ProvDocument()
    found.add_namespace("mlflow", "urn:mlflow:")
    found.add_namespace("demo", "urn:pytorch-demo:")
    params, tags, run = about.params, about.tags, about.run

    def attributes(values: dict[str, Any]) -> dict[str, Any]:
        return {f"demo:{_quoted(name)}": value for name, value in values.items() if value is not None}

    def agent(user: str | None) -> Any:
        return found.agent(f"demo:user/{_quoted(user)}", {"prov:label": user}) if user else None

    model = record = None
    if about.model_uri:
        known = {"sha256": about.sha256, "weights_sha256": tags.get("result.weights_sha256"), "uri": about.model_uri}
        model = found.entity(f"mlflow:model/{_quoted(about.name)}", attributes(known) | {"prov:label": about.name})
    splits = {}
    for split in SPLITS:
        if digest := params.get(f"{split}_digest"):
            known = {"dataset": params.get("dataset"), "sha256": digest, "images": params.get(f"{split}_size")}
            known["cleaning_report_sha256"] = tags.get("data.cleaning_report_sha256")
            splits[split] = found.entity(f"demo:data/{_quoted(digest)}", attributes(known | {"source": _source(about)}))
    if run:
        times = (run.info.start_time, run.info.end_time)
        start, end = (datetime.fromtimestamp(when / 1000, UTC) if when else None for when in times)
        training = found.activity(f"mlflow:run/{run.info.run_id}", start, end, attributes(params))
        learned_from = [splits[split] for split in ("train", "validation") if split in splits]
        for images in learned_from:
            found.used(training, images)
        if commit := tags.get("code.commit"):
            known = {name: tags.get(f"code.{name}") for name in ("remote", "branch", "dirty", "patch_sha256")}
            found.used(training, found.entity(f"demo:code/{_quoted(commit)}", attributes(known)))
        if user := agent(tags.get("invocation.user") or tags.get("mlflow.user")):
            found.wasAssociatedWith(training, user)
        if model:
            found.wasGeneratedBy(model, training)
            for images in learned_from:
                found.wasDerivedFrom(model, images, activity=training)
    if about.evaluation and run and model:
        when = datetime.fromisoformat(about.evaluation["time"])
        evaluating = found.activity(f"demo:evaluating/{run.info.run_id}", None, when)
        known = {key: about.evaluation[key] for key in ("accuracy", "loss", "samples", "predictions_sha256")}
        record = found.entity(f"demo:evaluation/{run.info.run_id}", attributes(known))
        test = found.entity(f"demo:data/{_quoted(about.evaluation['dataset_digest'])}")
        for used in (model, test):
            found.used(evaluating, used)
        found.wasGeneratedBy(record, evaluating)
        if user := agent(about.evaluation.get("user")):
            found.wasAssociatedWith(evaluating, user)
    for each in about.decisions:
        deciding = found.activity(f"mlflow:run/{each.run_id}", None, each.time, attributes({"reason": each.reason}))
        moved = {"decision": each.kind, "version": each.version, "previous_version": each.previous_version}
        decision = found.entity(f"demo:decision/{each.run_id}", attributes(moved))
        found.wasGeneratedBy(decision, deciding)
        for used in filter(None, (model, record)):
            found.used(deciding, used)
        if user := agent(each.user):
            found.wasAssociatedWith(deciding, user)
    unified: ProvDocument = found.unified()  # who did two things was named twice
    return unified


def _quoted(text: str | None) -> str:
    return quote(str(text), safe="")
