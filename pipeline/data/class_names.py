"""The names of the classes: which are refused, and where two lists of them differ."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from pipeline.errors import UserError

UNUSABLE_CHARACTERS = re.compile("[\0\ud800-\udfff]")  # NUL ends a text, and halves of characters cannot be written
MAX_NAME_LENGTH = 255  # characters; a folder's name has no more
ADVICE = "give every class a name of its own, and run prepare_data.py again"


def check_class_names(names: Sequence[str], origin: object) -> None:
    """Check that every class of ``origin`` has a name of its own, which every file and program can hold.

    Two names are the same if they differ only by blanks at the ends, or by how Unicode writes the same letters.

    Raises
    ------
    UserError
        A record by class name could not tell such classes from each other.
    """
    known: dict[str, str] = {}
    for label, name in enumerate(names):
        stripped = unicodedata.normalize("NFC", name).strip()
        if not stripped:
            raise UserError(f"{origin}: the class of label {label} has no name ({name!r}); {ADVICE}")
        if UNUSABLE_CHARACTERS.search(name) or len(name) > MAX_NAME_LENGTH:
            raise UserError(f"{origin}: the class of label {label} cannot be called {name[:40]!a}; {ADVICE}")
        if stripped in known:
            raise UserError(f"{origin}: two classes are called {known[stripped]!r} and {name!r}; {ADVICE}")
        known[stripped] = name


def parse_class_names(content: Any) -> tuple[str, ...]:
    """Return the class names in the content of a classes.json.

    Raises
    ------
    ValueError
        It is not a list of names; a number is a name, too.
    """
    if not isinstance(content, list):
        raise ValueError("not a list of class names")
    for name in content:
        if type(name) not in (str, int):
            raise ValueError(f"a class name is of type {type(name).__name__}")
    return tuple(str(name) for name in content)


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
