"""The model in Production, on the candidate's test images: as recorded if it can be, else evaluated anew.

If it is broken, that is said, and does not block its successor.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.errors import UserError
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.record import EvaluationRecord
from pipeline.promotion.comparison import select_classes
from pipeline.promotion.evaluated_version import EvaluatedVersion
from pipeline.promotion.recorded import check_origin, describe_recorded, read_evaluation
from pipeline.tracking import loading, registry, runs
from pipeline.tracking.failures import describe_failure, is_outage
from pipeline.tracking.loading import OpenModel
from pipeline.tracking.registry import ModelVersion
from pipeline.tracking.store import StoreError

if TYPE_CHECKING:  # a promotion usually needs no PyTorch
    from pipeline.data.splits import Dataset

logger = logging.getLogger(__name__)

MAX_CLASSES_NAMED = 10
T = TypeVar("T")


@dataclass(frozen=True)
class ChampionEvidence:
    """What is known of the model in Production.

    Attributes
    ----------
    version : the champion; without an evaluation if the candidate cannot be compared with it.
    notices : what a person has to know about it, a sentence each.
    requires_reason : why its replacement needs the reason of a person, or None.
    """

    version: EvaluatedVersion
    notices: tuple[str, ...] = ()
    requires_reason: str | None = None


def gather_champion_evidence(
    champion: ModelVersion, record: EvaluationRecord, data_dir: Path, standing: str = "in Production"
) -> ChampionEvidence:
    """Return the champion on the test images of the candidate's ``record``; ``standing`` says what it is.

    Raises
    ------
    UserError
        It has to be evaluated anew, and ``data_dir`` does not have these test images.
    StoreError, OSError
        The store is away, so nobody knows whether the champion is broken.
    """
    subject = f"version {champion.version}, {standing},"
    reference = registry.reference_version(champion.name, int(champion.version))
    model, problem = _attempt(partial(loading.read_model, reference))
    if model is None:
        return _give_up(champion, subject, f"cannot be loaded ({problem})")
    version, problem = _attempt(partial(_read_recorded, champion, model, record.dataset_digest))
    notices: list[str] = []
    if version is None:
        notices.append(f"{subject} is evaluated anew: {problem}")
        logger.warning("%s", notices[-1])
        test = _load_test_images(record, data_dir)
        evaluation, failure = _attempt(partial(_evaluate, model, test))
        if evaluation is None:
            return _give_up(champion, subject, f"cannot be evaluated ({failure})", notices)
        version = EvaluatedVersion(
            version=int(champion.version),
            run_id=str(champion.run_id),
            model_sha256=model.sha256,
            evaluation=evaluation,
            source=f"evaluated anew: {problem}",
            parameters=model.program.parameters,
        )
    return _check_common_classes(champion, subject, ChampionEvidence(version, tuple(notices)), record.evaluation)


def _attempt(request: Callable[[], T]) -> tuple[T | None, str]:
    """Return what ``request`` returns and no problem; or None, and why it failed. An outage of the store is raised."""
    try:
        return request(), ""
    except (UserError, StoreError, OSError) as error:
        if is_outage(error):
            raise
        return None, str(error) if isinstance(error, UserError) else describe_failure(error)


def _give_up(champion: ModelVersion, subject: str, problem: str, notices: list[str] | None = None) -> ChampionEvidence:
    """Return the champion without an evaluation; whoever decides has to say so, or to refuse."""
    notice = f"{subject} {problem}, so the candidate is not compared with it"
    version = EvaluatedVersion(int(champion.version), str(champion.run_id), None, None, source=f"none: it {problem}")
    return ChampionEvidence(version, (*(notices or []), notice), requires_reason=notice)


def _read_recorded(champion: ModelVersion, model: OpenModel, digest: str) -> EvaluatedVersion:
    """Return the champion as recorded on the test set with this digest; raise UserError if it was not."""
    run = runs.get_run(str(champion.run_id))
    check_origin(run.info.run_id, model)
    record = read_evaluation(run.info.run_id, model)
    if record.dataset_digest != digest:
        raise UserError("its record is of other data")
    return describe_recorded(champion, record, run)


def _load_test_images(record: EvaluationRecord, data_dir: Path) -> "Dataset":
    """Return the test images of the record."""
    from pipeline.data.datasets import load_test_split  # brings PyTorch's data tools

    test = load_test_split(record.dataset, data_dir)
    if test.digest != record.dataset_digest:
        raise UserError(
            f"{data_dir} has another {record.dataset} than the candidate was evaluated on; "
            "name the right directory with --data-dir, or run evaluate.py --log-mlflow again"
        )
    return test


def _evaluate(model: OpenModel, test: "Dataset") -> Evaluation:
    """Return the evaluation of the model on those test images whose class it knows, by the name of the class."""
    import torch

    from pipeline.evaluation.inference import choose_device, compute_logits

    indices = {name: index for index, name in enumerate(model.classes)}
    new_labels = torch.tensor([indices.get(name, -1) for name in test.classes])[test.labels]
    is_known = new_labels >= 0
    if not is_known.any():
        return Evaluation(model.classes, np.empty(0, np.int64), np.empty((0, len(model.classes))))
    device = choose_device("auto")
    stored = loading.load_model(model.reference)
    test.check_shape(stored.form.shape, stored.uri)
    logits = compute_logits(stored.module.to(device), test.images[is_known], device=device)
    return Evaluation.from_logits(logits, new_labels[is_known], model.classes)


def _check_common_classes(
    champion: ModelVersion, subject: str, evidence: ChampionEvidence, candidate: Evaluation
) -> ChampionEvidence:
    """Return the evidence, with what is left out of the comparison if the two models know other classes."""
    classes = evidence.version.require_evaluation().classes
    left_out = sorted(set(classes) ^ set(candidate.classes))
    if not left_out:
        return evidence
    images = len(select_classes(candidate, classes).labels)
    if not images:
        return _give_up(champion, subject, "knows none of the classes of the test images", list(evidence.notices))
    names = ", ".join(repr(name) for name in left_out[:MAX_CLASSES_NAMED])
    if len(left_out) > MAX_CLASSES_NAMED:
        names += f" and {len(left_out) - MAX_CLASSES_NAMED:,} more"
    notice = (
        f"{subject} knows other classes: the two are compared on the {images:,} of {len(candidate.labels):,} test "
        f"images whose class both know; left out: {names}"
    )
    logger.warning("%s", notice)
    return ChampionEvidence(evidence.version, (*evidence.notices, notice))
