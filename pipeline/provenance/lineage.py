"""Gather everything that the store knows of a model: run, version, evaluation, decisions."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.evaluation.record import CHECKLIST_FILE, EVALUATION_FOLDER, EvaluationRecord
from pipeline.promotion.decisions import Decision, list_decisions
from pipeline.promotion.history import describe_move_by_hand, production_history
from pipeline.promotion.recorded import load_evaluation
from pipeline.tracking import artifacts, loading, models, runs
from pipeline.tracking.registry import CHAMPION, ModelReference, ModelVersion, reference_version
from pipeline.tracking.runs import Run


class _Verdict(BaseModel):
    """A part of an answer in ``checklist.json``."""

    model_config = ConfigDict(strict=True)

    question: str
    verdict: str


_CHECKLIST = TypeAdapter(list[_Verdict])


@dataclass(frozen=True)
class Lineage:
    """Everything that the store knows of a model.

    Attributes
    ----------
    run : that trained it; None if it no longer exists.
    version : in the registry; None if the model is not registered.
    model_uri : ``models:/...``; None if the run logged no model.
    model_sha256 : the identity of the model's files as they are now; None if they cannot be read.
    evaluation : the record of evaluate.py about exactly these files; None if there is none.
    no_evaluation : why there is no evaluation.
    checklist : the verdicts on its five questions, each with its ``question``.
    decisions : about the version, the first one first.
    verdict : the report of the last decision; empty if there is none.
    moved_by_hand : that the version is in Production because a person moved the alias; empty if no person did.
    """

    run: Run | None
    version: ModelVersion | None
    model_uri: str | None
    model_sha256: str | None
    evaluation: EvaluationRecord | None
    no_evaluation: str
    checklist: list[dict[str, str]]
    decisions: list[Decision]
    verdict: dict[str, Any]
    moved_by_hand: str = ""

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the run."""
        return dict(self.run.data.params) if self.run else {}

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the run."""
        return dict(self.run.data.tags) if self.run else {}

    @property
    def last_decision(self) -> Decision | None:
        """The newest decision about the version."""
        return self.decisions[-1] if self.decisions else None

    @property
    def name(self) -> str:
        """What to call the model."""
        if self.version:
            return f"{self.version.name} version {self.version.version}"
        if self.run and self.model_uri:
            return f"the model of run {self.run.info.run_id}"
        return "no model"

    @property
    def data_urls(self) -> str | None:
        """The addresses that the data come from."""
        if not self.run:
            return None
        return ", ".join(runs.list_input_urls(self.run)) or None


def gather_lineage(version: ModelVersion | None, run_id: str | None) -> Lineage:
    """Return the lineage of a version, or of the model of a run that is not registered."""
    run, evaluation, no_evaluation = None, None, ""
    model_uri = str(version.source) if version else None
    checklist: list[dict[str, str]] = []
    try:
        run = runs.get_run(str(version.run_id if version else run_id))
        model_uri = model_uri or models.find_model_uri(run.info.run_id)
        evaluation = load_evaluation(run.info.run_id, loading.read_model(_refer_to(version, model_uri)))
        checklist = _read_checklist(run.info.run_id)
    except UserError as error:
        no_evaluation = str(error)
    of_model = list_decisions(version.name) if version else []
    decisions = [decision for decision in of_model if version and decision.version == int(version.version)]
    return Lineage(
        run=run,
        version=version,
        model_uri=model_uri,
        model_sha256=_read_model_sha256(model_uri, evaluation),
        evaluation=evaluation,
        no_evaluation=no_evaluation,
        checklist=checklist,
        decisions=decisions,
        verdict=_read_verdict(decisions[-1]) if decisions else {},
        moved_by_hand=_describe_move_by_hand(version, of_model) if version else "",
    )


def _refer_to(version: ModelVersion | None, model_uri: str) -> ModelReference:
    if version is None:
        return ModelReference(model_uri)
    return reference_version(version.name, int(version.version))


def _describe_move_by_hand(version: ModelVersion, decisions: list[Decision]) -> str:
    """Return that a person put the version in Production; empty if a decision did, or if it is not there."""
    if CHAMPION not in version.aliases:
        return ""
    periods = production_history(decisions, int(version.version), datetime.now(UTC))
    return describe_move_by_hand(periods) if periods[-1].is_by_hand else ""


def _read_checklist(run_id: str) -> list[dict[str, str]]:
    """Return the verdicts; empty if there is no checklist, or if somebody has put something else there."""
    content = artifacts.read_json_artifact(run_id, f"{EVALUATION_FOLDER}/{CHECKLIST_FILE}")
    try:
        return [dict(verdict) for verdict in _CHECKLIST.validate_python(content)]
    except ValidationError:
        return []


def _read_verdict(decision: Decision) -> dict[str, Any]:
    """Return the report of the decision; empty if there is none, or if somebody has put something else there."""
    if not decision.decision_run_id:
        return {}
    verdict = artifacts.read_json_artifact(decision.decision_run_id, "verdict.json")
    return verdict if isinstance(verdict, dict) else {}


def _read_model_sha256(model_uri: str | None, evaluation: EvaluationRecord | None) -> str | None:
    if evaluation:
        return evaluation.model_sha256  # it was compared with the file a moment ago
    if model_uri:
        with suppress(UserError):
            return loading.compute_identity(ModelReference(model_uri))
    return None
