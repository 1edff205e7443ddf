"""Keeps secrets out of log lines, tags, names and files: everything that leaves the process passes `redact`."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipeline.secret_patterns import (
    ASSIGNMENT,
    AUTHORIZATION,
    NAME_MARK,
    QUERY_SECRET,
    TOKEN,
    TOKEN_MARKS,
    URL_CREDENTIALS,
)
from pipeline.secret_values import compile_values, secret_values

MASK = "***"
OWN_KEY = re.compile("[a-z_]+")  # of our JSON; other keys are names from outside


def redact(text: str) -> str:
    """Return ``text`` without secrets: user and password in addresses disappear, all others become ``***``.

    Secrets are the values of `secret_values`, tokens of a known form, credentials in addresses and their parameters,
    and what is assigned to a name such as ``password``.
    """
    return _redact(text, compile_values(tuple(secret_values().values())))


def _redact(text: str, values: re.Pattern[str] | None) -> str:
    if values:
        text = values.sub(MASK, text)
    if any(mark in text for mark in TOKEN_MARKS):
        text = TOKEN.sub(MASK, text)
    if "@" in text or "%40" in text:
        for credentials in URL_CREDENTIALS:
            text = credentials.sub(r"\g<before>", text)
    if not NAME_MARK.search(text):
        return text
    for pattern in (QUERY_SECRET, AUTHORIZATION):
        text = pattern.sub(rf"\g<before>{MASK}", text)
    return ASSIGNMENT.sub(_mask_assignment, text)


def _mask_assignment(match: re.Match[str]) -> str:
    quote = match["quote"] or ""
    return f"{match['before']}{quote}{MASK}{quote}"


def redact_address(address: str) -> str:
    """Return an address without its credentials, also if it is malformed: all up to the last ``@`` is one of them."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return redact(address.rpartition("@")[2])
    location, question, query = rest.rpartition("@")[2].partition("?")
    return redact(f"{scheme}://{location}{question}{query}")


def redact_value(value: Any) -> Any:
    """Return the value, which JSON could hold, with every text in it redacted."""
    return _redact_value(value, compile_values(tuple(secret_values().values())))


def redact_file(name: str, content: bytes) -> bytes:
    """Return the content of a text file of that name, redacted; JSON stays JSON. Other content stays as it is."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    if name.endswith(".json"):
        with suppress(ValueError, RecursionError):  # it is no JSON
            parsed = json.loads(text)
            clean = redact_value(parsed)
            return content if clean == parsed else json.dumps(clean, indent=2).encode()
    return redact(text).encode()


def _redact_value(value: Any, values: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        return _redact(value, values)
    if isinstance(value, Mapping):
        return {_redact_key(key, values): _redact_item(key, item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(item, values) for item in value]
    return value


def _redact_item(key: Any, item: Any, values: re.Pattern[str] | None) -> Any:
    if isinstance(item, str) and item and ASSIGNMENT.fullmatch(f"{key}=x"):
        return MASK
    return _redact_value(item, values)


def _redact_key(key: Any, values: re.Pattern[str] | None) -> Any:
    return _redact(key, values) if isinstance(key, str) and not OWN_KEY.fullmatch(key) else key
