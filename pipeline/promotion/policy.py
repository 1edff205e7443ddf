"""The promotion policy: what a model has to reach, read from ``gates.toml``."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.data.catalog import DATASET_NAMES, short_name
from pipeline.documents import DamagedError, parse_toml, shorten_repr
from pipeline.errors import UserError

POLICY_FILE = Path(__file__).parent.parent.parent / "gates.toml"
OFF = "off"  # in the file: a rule that holds unless the table names it

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_MayBeOff = BeforeValidator(lambda value: None if value == OFF else value)

# Without one of these a table says nothing about how good a model has to be.
QUALITY_RULES = (
    "min_accuracy",
    "min_class_recall",
    "min_class_f1",
    "max_loss",
    "max_generalisation_gap",
    "regression",
    "max_parameters_ratio",
    "max_latency_ratio",
)


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
    min_test_images : floor of the number of test images.
    max_test_overlap : ceiling of the share of test images that are training or validation images too, 0 to 1.
    test_digest : SHA-256 of the test split that counts, see `Dataset.digest`; None: the champion's decision pins it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    min_accuracy: Share | None = None
    confidence: Annotated[OpenShare | None, _MayBeOff] = 0.95
    min_class_recall: Share | None = None
    min_class_f1: Share | None = None
    max_loss: Positive | None = None
    max_generalisation_gap: Share | None = None
    regression: Annotated[Literal["not_worse", "better"] | None, _MayBeOff] = "not_worse"
    alpha: OpenShare = 0.05
    max_parameters_ratio: Positive | None = None
    max_latency_ratio: Positive | None = None
    min_test_images: Annotated[PositiveCount | None, _MayBeOff] = 100
    max_test_overlap: Annotated[Share | None, _MayBeOff] = 0.0
    test_digest: Sha256 | None = None

    @property
    def min_accuracy_lower_end(self) -> float | None:
        """Floor of the lower end of the accuracy's interval; None if there is no confidence."""
        return None if self.confidence is None else self.min_accuracy

    @property
    def compares(self) -> bool:
        """Whether a rule needs the model in Production."""
        return any((self.regression, self.max_parameters_ratio, self.max_latency_ratio))

    def describe(self) -> dict[str, Any]:
        """Return the rules that are applied, and "off" for those that are switched off, for JSON."""
        rules = self.model_dump(exclude_none=True)
        for name, field in Policy.model_fields.items():
            if field.default is not None and name not in rules:
                rules[name] = OFF
        return rules


def find_table_name(dataset: str) -> str:
    """Return which table of ``gates.toml`` is for a data set: the last part of its path, if it is a directory.

    Raises
    ------
    UserError
        One's own data are in a directory that has the name of another data set, whose table is not for them.
    """
    if dataset in DATASET_NAMES:
        return dataset
    name = short_name(dataset)
    if name in DATASET_NAMES:
        raise UserError(
            f"{dataset} has the name of the data set {name}, whose table in gates.toml is not for it; "
            "rename the directory, then train and evaluate again"
        )
    return name


def parse_policy(text: str, table_name: str, min_accuracy: float | None = None, file: str = "gates.toml") -> Policy:
    """Return the policy in a table of the text of ``file``, with another ``min_accuracy`` if it is not None.

    What is not in a table concerns signatures, see `pipeline.promotion.signature`.

    Raises
    ------
    UserError
        The text is not TOML, has no such table, or the table has an unknown key or a bad value.
    """
    header = format_header(table_name)
    table = _find_table(text, table_name, file)
    if table is None and min_accuracy is None:
        raise UserError(f"{file} has no table {header}; add it, or use promote.py --min-accuracy")
    rules = dict(table or {})
    if min_accuracy is not None:
        rules["min_accuracy"] = min_accuracy
    try:
        policy = Policy(**rules)
    except ValidationError as error:
        raise UserError(f"{file}, table {header}: {_describe_problem(error)}") from None
    _check_combination(policy, rules, f"{file}, table {header}")
    return policy


def has_table(text: str, table_name: str, file: str = "gates.toml") -> bool:
    """Return whether the text has such a table; raise UserError if it is not TOML."""
    return _find_table(text, table_name, file) is not None


def format_header(table_name: str) -> str:
    """Return the header of a table as TOML writes it."""
    if re.fullmatch(r"[\w-]+", table_name, re.ASCII):
        return f"[{table_name}]"
    escaped = table_name.replace('"', '\\"')
    return f'["{escaped}"]'


def _find_table(text: str, table_name: str, file: str) -> dict[str, Any] | None:
    try:
        content = parse_toml(text)
    except DamagedError as error:
        raise UserError(f"{file} is not TOML: {error}; correct it and run again") from None
    table = content.get(table_name)
    return table if isinstance(table, dict) else None


def _check_combination(policy: Policy, rules: dict[str, Any], origin: str) -> None:
    if all(rules.get(name, OFF) == OFF for name in QUALITY_RULES):
        raise UserError(f"{origin} has no rule, so everything would pass; add min_accuracy")
    if rules.get("confidence", OFF) != OFF and policy.min_accuracy is None:
        raise UserError(f"{origin} has a confidence but no min_accuracy for it; add min_accuracy")
    if "alpha" in rules and not policy.compares:
        raise UserError(f"{origin} has an alpha but no rule that compares with the champion; add regression")


def _describe_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"][:1])
    if problem["type"] == "extra_forbidden":
        return f"there is no rule {key!r}; the rules are {', '.join(Policy.model_fields)}"
    expected = problem["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{key} = {shorten_repr(problem['input'])} {expected}; correct it and run again"
