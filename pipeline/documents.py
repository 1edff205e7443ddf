"""JSON, TOML and YAML that others may have written: plain values only, limited in depth and size.

The files are read with `pipeline.regular_files`.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

MAX_DEPTH = 20  # lists and dictionaries in each other
MAX_INTEGER = 2**63 - 1  # what PyTorch, NumPy and the stores hold
MAX_SHOWN_LENGTH = 100  # characters of a value in a message
YEARS = range(2000, 2200)
LATEST_TIME = 7_000_000_000_000  # milliseconds since 1970: in the year 2191
COUNT = re.compile("[0-9]{1,15}", re.ASCII)
T = TypeVar("T")


class DamagedError(ValueError):
    """A document cannot be used: the text says why, in one line."""


# --- formats ---------------------------------------------------------------------------------------------------------


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Return the value of a JSON document; it may have NaN and Infinity if not ``finite``.

    Raises
    ------
    DamagedError
        It is no JSON in UTF-8, a key is there twice, or a value is not plain, see `check_plain`.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_build_object)
    except (ValueError, RecursionError) as error:
        raise DamagedError(describe_error(error)) from None
    check_plain(document, finite=finite)
    return document


def parse_toml(text: str) -> dict[str, Any]:
    """Return the value of a TOML document; its numbers may be infinite or NaN.

    Raises
    ------
    DamagedError
        It is no TOML, or a value is not plain, see `check_plain`.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(describe_error(error)) from None
    check_plain(document, finite=False)
    return document


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """A loader of YAML that refuses aliases: a few of them in each other stand for more values than fit in memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise DamagedError("it has an alias")
        return super().compose_node(parent, index)


def parse_yaml(content: bytes) -> Any:
    """Return the value of a YAML document without aliases and tags.

    Raises
    ------
    DamagedError
        It is no YAML, or a value is not plain, see `check_plain`.
    """
    try:
        document = yaml.load(content, _PlainLoader)  # noqa: S506 - a SafeLoader
    except DamagedError:
        raise
    except Exception as error:  # a value with a tag raises what its constructor does not expect
        raise DamagedError(describe_error(error)) from None
    check_plain(document)
    return document


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is there twice")
    return result


# --- values ----------------------------------------------------------------------------------------------------------


def check_plain(document: Any, *, finite: bool = True) -> None:
    """Check that a document has plain values only, which every later step can handle.

    These are dictionaries by text, lists, texts, numbers, booleans and None. Texts are Unicode; numbers fit in 64 bits,
    and are finite if ``finite``.

    Raises
    ------
    DamagedError
        A value is something else, or lies more than `MAX_DEPTH` deep.
    """
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        level = [part for value in level for part in _list_parts(value, finite=finite)]
    raise DamagedError(f"it is nested more than {MAX_DEPTH} deep")


def _list_parts(value: Any, *, finite: bool) -> Iterator[Any]:
    """Yield the values in a dictionary or list, and none for another one, after a check of the value."""
    if isinstance(value, dict):
        for key in value:
            _check_text(key)
        yield from value.values()
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise DamagedError("a number has more than 64 bits")
    elif isinstance(value, float):
        if finite and not math.isfinite(value):
            raise DamagedError("a number is not finite")
    elif value is not None:
        _check_text(value)


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise DamagedError(f"a value or key has the type {type(value).__name__}")
    if not is_unicode(value):
        raise DamagedError("a text is not Unicode")


def is_unicode(text: str) -> bool:
    """Return whether UTF-8 can write the text: a name that is not UTF-8 is a text with surrogates in Python."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def parse_count(text: str | None) -> int | None:
    """Return the whole number that a parameter or tag says; None if it says none, or one that cannot be a count."""
    return int(text) if text and COUNT.fullmatch(text) else None


def parse_milliseconds(milliseconds: int | None) -> datetime | None:
    """Return the time, in UTC, that a store gives in milliseconds since 1970; None if there is no such time."""
    if milliseconds is None or abs(milliseconds) > LATEST_TIME:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def check_time(text: str) -> str:
    """Return ``text``; raise ValueError if it is no time in ISO 8601, or not one of this and the next century."""
    if datetime.fromisoformat(text).year not in YEARS:
        raise ValueError(f"no year from {YEARS[0]} to {YEARS[-1]}")
    return text


# --- records ---------------------------------------------------------------------------------------------------------


def parse_record(adapter: TypeAdapter[T], content: bytes | str, *, finite: bool = True) -> T:
    """Return what a JSON document says, checked strictly by the types of ``adapter``.

    Raises
    ------
    DamagedError
        It is no such document.
    """
    parse_json(content, finite=finite)
    try:
        return adapter.validate_json(content, strict=True)
    except ValidationError as error:
        raise DamagedError(describe_problem(error)) from None


def describe_problem(error: ValidationError) -> str:
    """Return the first problem in one line: where it is, and what is expected."""
    problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
    location = ".".join(str(part) for part in problem["loc"])
    return f"{location}: {problem['msg']}" if location else problem["msg"]


def describe_error(error: Exception) -> str:
    """Return why a parser failed, in one line."""
    if isinstance(error, RecursionError):
        return f"it is nested more than {MAX_DEPTH} deep"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    lines = str(error).splitlines()
    return lines[0][:200] if lines and isinstance(error, ValueError) else type(error).__name__


def shorten_repr(value: Any) -> str:
    """Return the value as Python writes it, cut to the length of a message."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[: MAX_SHOWN_LENGTH - 3]}..."
