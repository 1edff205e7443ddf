"""The lineage of a model as W3C PROV (https://www.w3.org/TR/prov-overview/).

Entities, activities and agents, and how they are related. Unknown facts are left out.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from prov.model import ProvActivity, ProvAgent, ProvDocument, ProvEntity

from pipeline.data.catalog import SPLITS
from pipeline.documents import parse_milliseconds
from pipeline.evaluation.record import EvaluationRecord
from pipeline.promotion.decisions import Decision
from pipeline.provenance.lineage import Lineage
from pipeline.tracking.runs import Run

CODE_TAGS = ("remote", "branch", "dirty", "patch_sha256")


def build_prov_document(lineage: Lineage) -> ProvDocument:
    """Return the lineage as a PROV document."""
    document = ProvDocument()
    document.add_namespace("mlflow", "urn:mlflow:")
    document.add_namespace("demo", "urn:pytorch-demo:")
    model = _add_model(document, lineage)
    if lineage.run:
        _add_training(document, lineage, lineage.run, model)
    evaluation = None
    if lineage.evaluation and lineage.run and model:
        evaluation = _add_evaluation(document, lineage.evaluation, lineage.run.info.run_id, model)
    used = [entity for entity in (model, evaluation) if entity]
    for decision in lineage.decisions:
        _add_decision(document, decision, used)
    unified: ProvDocument = document.unified()  # a person who did two things was added twice
    return unified


def _add_model(document: ProvDocument, lineage: Lineage) -> ProvEntity | None:
    if not lineage.model_uri:
        return None
    facts = {
        "sha256": lineage.model_sha256,
        "weights_sha256": lineage.tags.get("result.weights_sha256"),
        "uri": lineage.model_uri,
    }
    attributes = _build_attributes(facts)
    attributes["prov:label"] = lineage.name
    return document.entity(f"mlflow:model/{_quote(lineage.name)}", attributes)


def _add_training(document: ProvDocument, lineage: Lineage, run: Run, model: ProvEntity | None) -> None:
    """Add the training with its data, its code and its user, and derive the model from the data."""
    start, end = parse_milliseconds(run.info.start_time), parse_milliseconds(run.info.end_time)
    training = document.activity(f"mlflow:run/{run.info.run_id}", start, end, _build_attributes(lineage.params))
    splits = _add_splits(document, lineage)
    learned_from = [splits[name] for name in ("train", "validation") if name in splits]
    for images in learned_from:
        document.used(training, images)
    commit = lineage.tags.get("code.commit")
    if commit:
        facts = {name: lineage.tags.get(f"code.{name}") for name in CODE_TAGS}
        document.used(training, document.entity(f"demo:code/{_quote(commit)}", _build_attributes(facts)))
    _associate(document, training, lineage.tags.get("invocation.user") or lineage.tags.get("mlflow.user"))
    if model:
        document.wasGeneratedBy(model, training)
        for images in learned_from:
            document.wasDerivedFrom(model, images, activity=training)


def _add_splits(document: ProvDocument, lineage: Lineage) -> dict[str, ProvEntity]:
    splits = {}
    for name in SPLITS:
        digest = lineage.params.get(f"{name}_digest")
        if not digest:
            continue
        facts = {
            "dataset": lineage.params.get("dataset"),
            "sha256": digest,
            "images": lineage.params.get(f"{name}_size"),
            "cleaning_report_sha256": lineage.tags.get("data.cleaning_report_sha256"),
            "source": lineage.data_urls,
        }
        splits[name] = document.entity(f"demo:data/{_quote(digest)}", _build_attributes(facts))
    return splits


def _add_evaluation(document: ProvDocument, record: EvaluationRecord, run_id: str, model: ProvEntity) -> ProvEntity:
    evaluating = document.activity(f"demo:evaluating/{run_id}", None, record.evaluated_at)
    facts = {
        "accuracy": record.accuracy,
        "loss": record.loss,
        "samples": record.samples,
        "predictions_sha256": record.predictions_sha256,
    }
    evaluation = document.entity(f"demo:evaluation/{run_id}", _build_attributes(facts))
    test = document.entity(f"demo:data/{_quote(record.dataset_digest)}")
    document.used(evaluating, model)
    document.used(evaluating, test)
    document.wasGeneratedBy(evaluation, evaluating)
    _associate(document, evaluating, record.user)
    return evaluation


def _add_decision(document: ProvDocument, decision: Decision, used: list[ProvEntity]) -> None:
    reason = _build_attributes({"reason": decision.reason})
    run_id = decision.decision_run_id
    deciding = document.activity(
        f"mlflow:run/{run_id}" if run_id else f"demo:deciding/{decision.number}", None, decision.time, reason
    )
    facts = {
        "decision": decision.kind,
        "version": decision.version,
        "previous_version": decision.previous_version,
    }
    entity = document.entity(f"demo:decision/{run_id or decision.number}", _build_attributes(facts))
    document.wasGeneratedBy(entity, deciding)
    for source in used:
        document.used(deciding, source)
    _associate(document, deciding, decision.user)


def _associate(document: ProvDocument, activity: ProvActivity, user: str | None) -> None:
    """Relate an activity to the person who did it, if it is known."""
    if user:
        agent: ProvAgent = document.agent(f"demo:user/{_quote(user)}", {"prov:label": user})
        document.wasAssociatedWith(activity, agent)


def _build_attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"demo:{_quote(name)}": value for name, value in facts.items() if value is not None}


def _quote(text: str) -> str:
    return quote(text, safe="")
