"""The names of the classes: which are refused, and where two lists of them differ."""

from collections.abc import Sequence
from itertools import zip_longest

from pipeline.errors import UserError

ADVICE = "give every class a name of its own, and run prepare_data.py again"


def check_class_names(names: Sequence[str], origin: object) -> None:
    """Check that every class of ``origin`` has a name, and that no two differ by blanks at the ends only.

    Raises
    ------
    UserError
        A record by class name could not tell such classes from each other.
    """
    known: dict[str, str] = {}
    for label, name in enumerate(names):
        stripped = name.strip()
        if not stripped:
            raise UserError(f"{origin}: the class of label {label} has no name ({name!r}); {ADVICE}")
        if stripped in known:
            raise UserError(f"{origin}: two classes are called {known[stripped]!r} and {name!r}; {ADVICE}")
        known[stripped] = name


def find_class_difference(names: Sequence[str], expected: Sequence[str]) -> str | None:
    """Return the first label that has another name than expected, for people; None if there is none."""
    for label, (name, expected_name) in enumerate(zip_longest(names, expected)):
        if name is None:
            return f"label {label}, {expected_name!r}, is missing"
        if expected_name is None:
            return f"label {label}, {name!r}, is one too many"
        if name != expected_name:
            return f"label {label} means {name!r}, not {expected_name!r}"
    return None
