"""The promotion policy: what a model has to reach, read from ``gates.toml``."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError

POLICY_FILE = Path(__file__).parent.parent.parent / "gates.toml"

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Policy(BaseModel):
    """What a model has to reach. A rule that is None is not applied.

    Attributes
    ----------
    min_accuracy : floor of the test accuracy, 0 to 1.
    confidence : the lower end of the accuracy's Wilson interval at this confidence has to reach ``min_accuracy`` too:
        a model that is above it by chance does not pass.
    min_class_recall, min_class_f1 : floors of every class's recall and F1, 0 to 1. A class without test images has 0.
    max_loss : ceiling of the mean cross-entropy on the test set, in nats.
    max_generalisation_gap : ceiling of training minus validation accuracy after the last epoch.
    regression : compared with the model in Production, "not_worse" refuses a model that is significantly worse,
        "better" demands one that is significantly better, by McNemar's exact test.
    alpha : significance level of that test.
    max_parameters_ratio, max_latency_ratio : ceilings of parameters and seconds for one image, as a multiple of the
        champion's. A model that is significantly more accurate may cost more.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    min_accuracy: Share | None = None
    confidence: OpenShare | None = None
    min_class_recall: Share | None = None
    min_class_f1: Share | None = None
    max_loss: Positive | None = None
    max_generalisation_gap: Share | None = None
    regression: Literal["not_worse", "better"] | None = None
    alpha: OpenShare = 0.05
    max_parameters_ratio: Positive | None = None
    max_latency_ratio: Positive | None = None

    @property
    def min_accuracy_lower_end(self) -> float | None:
        """Floor of the lower end of the accuracy's interval; None if there is no confidence."""
        return None if self.confidence is None else self.min_accuracy

    @property
    def compares(self) -> bool:
        """Whether a rule needs the model in Production."""
        return any((self.regression, self.max_parameters_ratio, self.max_latency_ratio))


def parse_policy(text: str, dataset: str, min_accuracy: float | None = None, file: str = "gates.toml") -> Policy:
    """Return the policy for ``dataset`` in the text of ``file``, with another ``min_accuracy`` if it is not None.

    Raises
    ------
    UserError
        The text is not TOML, has no table for the data set, or the table has an unknown key or a bad value.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not TOML: {error}; correct it and run again") from None
    header = f"[{_quote_key(dataset)}]"
    table = tables.get(dataset)
    if table is None and min_accuracy is not None:
        table = {}
    if not isinstance(table, dict):
        raise UserError(f"{file} has no table {header}; add it, or use promote.py --min-accuracy")
    rules = dict(table)
    if min_accuracy is not None:
        rules["min_accuracy"] = min_accuracy
    if not rules:
        raise UserError(f"{file}, table {header} has no rule, so everything would pass; add min_accuracy")
    try:
        policy = Policy(**rules)
    except ValidationError as error:
        raise UserError(f"{file}, table {header}: {_describe_problem(error)}") from None
    _check_combination(policy, rules, f"{file}, table {header}")
    return policy


def _check_combination(policy: Policy, rules: dict[str, Any], origin: str) -> None:
    if policy.confidence is not None and policy.min_accuracy is None:
        raise UserError(f"{origin} has a confidence but no min_accuracy for it; add min_accuracy")
    if "alpha" in rules and not policy.compares:
        raise UserError(f"{origin} has an alpha but no rule that compares with the champion; add regression")


def _describe_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"][:1])
    if problem["type"] == "extra_forbidden":
        return f"there is no rule {key!r}; the rules are {', '.join(Policy.model_fields)}"
    expected = problem["msg"].removeprefix("Input ")
    return f"{key} = {problem['input']!r} {expected}; correct it and run again"


def _quote_key(dataset: str) -> str:
    """Return the name of a data set as a key of TOML."""
    if re.fullmatch(r"[\w-]+", dataset, re.ASCII):
        return dataset
    escaped = dataset.replace('"', '\\"')
    return f'"{escaped}"'
