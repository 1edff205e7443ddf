"""A version of a registered model with its evaluation: what the gate judges. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.metrics import Evaluation


@dataclass(frozen=True)
class EvaluatedVersion:
    """A version of a registered model, with what is known of it.

    Attributes
    ----------
    version : its number.
    run_id : of the run that trained it.
    model_sha256 : of the model's file; None if it cannot be read.
    evaluation : on the candidate's test images; None for a champion that no rule asks for.
    source : where the evaluation comes from.
    generalisation_gap : training minus validation accuracy after the last epoch; NaN if it is not known.
    parameters : how many the model has; NaN if it is not known.
    latency : seconds for one image; NaN if it was not measured.
    overlap : number of test images that are training or validation images of the run too; NaN if it is not known.
    """

    version: int
    run_id: str
    model_sha256: str | None
    evaluation: Evaluation | None
    source: str = "its recorded evaluation"
    generalisation_gap: float = math.nan
    parameters: float = math.nan
    latency: float = math.nan
    overlap: float = math.nan

    def require_evaluation(self) -> Evaluation:
        """Return the evaluation; raise ValueError if there is none."""
        if self.evaluation is None:
            raise ValueError(f"version {self.version} has no evaluation")
        return self.evaluation

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        content: dict[str, Any] = {
            "version": self.version,
            "run_id": self.run_id,
            "model_sha256": self.model_sha256,
            "evidence": self.source,
        }
        if self.evaluation:
            figures = {
                "accuracy": self.evaluation.accuracy,
                "loss": self.evaluation.loss,
                "parameters": self.parameters,
                "latency": self.latency,
            }
            content.update(replace_nan(figures))
        return content


def replace_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for JSON, which has no NaN: None stands for it."""
    result = {}
    for name, value in values.items():
        is_number = isinstance(value, float)
        result[name] = None if is_number and not math.isfinite(value) else value
    return result
