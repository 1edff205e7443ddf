"""The quality gate: evidence and policy in, verdict out. Pure: no files, no network, no MLflow."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scipy.stats import binomtest

from pipeline import UserError


@dataclass(frozen=True)
class Policy:
    """What a model has to reach.

    Attributes
    ----------
    min_accuracy : floor of the test accuracy, 0 to 1.
    confidence : where given, the lower end of the accuracy's Wilson interval at this confidence has to reach the floor
        too: a model that is above it by luck alone does not pass.
    """

    min_accuracy: float
    confidence: float | None = None


RULES = tuple(field.name for field in fields(Policy))


@dataclass(frozen=True)
class Check:
    """One rule of the policy against what was measured."""

    name: str
    value: float
    threshold: float
    passed: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.4f} {'reaches' if self.passed else 'is below'} {self.threshold:.4f}"


@dataclass(frozen=True)
class Verdict:
    """The checks; it passed when every one of them did."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def parse(text: str, dataset: str, min_accuracy: float | None = None, file: str = "gates.toml") -> Policy:
    """Return the policy for ``dataset`` out of the text of ``file``, with another ``min_accuracy`` where given.

    Raises UserError, naming the line, where the text is bad.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}; put it right and run again") from None
    table = tables.get(dataset, {} if min_accuracy is not None else None)
    if not isinstance(table, dict):
        raise UserError(f"{file} has no table [{dataset}]; add it, or pass --min-accuracy")
    for key, value in table.items():
        where = f"{file}, line {_line(text, dataset, key)}"
        if key not in RULES:
            raise UserError(f"{where}: there is no rule {key!r}; the rules are {', '.join(RULES)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"{where}: {key} = {value!r} is not a number from 0 to 1; put it right and run again")
        if key == "confidence" and not 0 < value < 1:
            raise UserError(f"{where}: confidence = {value!r} is not between 0 and 1; 0.95 is usual")
    if min_accuracy is not None:
        table["min_accuracy"] = min_accuracy
    if "min_accuracy" not in table:
        raise UserError(f"{file}, line {_line(text, dataset)}: [{dataset}] has no min_accuracy; add it")
    return Policy(**table)


def _line(text: str, table: str, key: str | None = None) -> int:
    """Return the number of the line where the table starts, or where its key stands."""
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\s*[\"']?{re.escape(table)}[\"']?\s*\]")
    start = next((i for i, line in enumerate(lines) if header.match(line)), 0)
    if key is None:
        return start + 1
    assignment = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    return next((i for i in range(start, len(lines)) if assignment.match(lines[i])), start) + 1


def decide(evidence: Mapping[str, Any], policy: Policy) -> Verdict:
    """Return the verdict on a model from ``accuracy`` and ``samples`` of its ``evaluation.json``.

    A missing or NaN value never passes. The interval is computed here, by Wilson (1927), JASA 22:209, not believed.
    """
    value, samples = evidence.get("accuracy"), evidence.get("samples")
    accuracy = float(value) if isinstance(value, int | float) and 0 <= value <= 1 else math.nan
    measured = {"min_accuracy": accuracy}
    if policy.confidence is not None:
        low = math.nan
        if math.isfinite(accuracy) and isinstance(samples, int) and samples > 0:
            low = float(binomtest(round(accuracy * samples), samples).proportion_ci(policy.confidence, "wilson").low)
        measured["min_accuracy_lower_end"] = low
    floor = policy.min_accuracy
    return Verdict(tuple(Check(name, value, floor, value >= floor) for name, value in measured.items()))
