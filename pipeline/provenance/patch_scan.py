"""Search a patch for secrets by its content, before it leaves this machine."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.secret_patterns import ASSIGNMENT, AUTHORIZATION, QUERY_SECRET, TOKEN, TOKENS, URL_CREDENTIALS
from pipeline.secret_values import compile_values, secret_values
from pipeline.text import printable

HUNK = re.compile(rb"@@ -\d+(?:,(?P<old>\d+))? \+(?P<start>\d+)(?:,(?P<new>\d+))? @@")
MIN_LITERAL = 6  # characters; documents and tests are full of shorter stand-ins for a password
# What stands for a value that is filled in later, or is computed: ${X}, <password>, {x}, os.environ, f(x), a.b, ...
STAND_IN = re.compile(
    r"[\W_]*$|.*[${}<>()\[\]|]|\.\.\.|(?:os\.|self\.|options\.|secrets\.|env\.)|.*(?:\.\.\.|…|\*\*\*)|"
    r"(?:your|my|the|some|a|an|example|sample|dummy|fake|changeme|change-me|placeholder|redacted|none|null|true|false|read|write|bearer|basic|"
    r"str|bytes|int|password|passwd|secret|token|key|hidden|x+)(?:[\W_].*|\d*)$",
    re.IGNORECASE | re.DOTALL,
)
CODE_FILE = re.compile(r"\.(?:py|pyi|ipynb|js|ts|md|rst|sh|mk)$|(?:^|/)Makefile$")  # there a literal has quotes
NAME_CHARS = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Line:
    """A line of a patch: its file, its number there, its text, and whether the patch adds it."""

    file: str
    number: int
    text: str
    is_added: bool


def find_secret(patch: bytes, contents: dict[str, bytes]) -> str | None:
    """Return where the patch holds what looks like a secret, and of which kind, or None; never the secret itself.

    A value of `secret_values`, or a token of a known form, must not stand anywhere in the patch. Addresses with
    credentials, and assignments to a name such as ``password``, count only in lines that the patch adds.

    Parameters
    ----------
    patch
        In Git's format, with line numbers.
    contents
        Of binary files that the patch changes, by name: the patch has them in a form that nobody can read.
    """
    secrets = secret_values()
    expressions = {name: compile_values((value,)) for name, value in secrets.items()}
    lines = [*iterate_lines(patch)]
    for file, content in contents.items():
        text = content.decode("ascii", "replace")
        lines.append(Line(file, 1, text, is_added=False))
    every = compile_values(tuple(secrets.values()))
    for line in lines:
        kind = None
        if every and every.search(line.text):
            names = [name for name, value in expressions.items() if value and value.search(line.text)]
            kind = f"the value of {', '.join(names)}"
        elif TOKEN.search(line.text):
            kind = next(name for name, pattern in TOKENS.items() if re.search(pattern, line.text))
        elif line.is_added:
            kind = _find_credentials(line)
        if kind:
            return f"{printable(line.file)}:{line.number} looks like {kind}"
    multiline = _find_in_whole(lines, expressions)
    return f"it holds the value of {multiline}" if multiline else None


def iterate_lines(patch: bytes) -> Iterator[Line]:
    """Yield the lines of a patch: added, removed and unchanged ones, and those with names; not what is binary."""
    file, number, old, new = "", 0, 0, 0
    is_binary = False
    for raw in patch.split(b"\n"):
        text = os.fsdecode(raw)
        if old > 0 or new > 0:
            sign = text[:1]
            yield Line(file, number, text[1:], is_added=sign == "+")
            old -= sign in ("-", " ")
            new -= sign in ("+", " ")
            number += sign in ("+", " ")
            continue
        hunk = HUNK.match(raw)
        if hunk:
            number, old, new = int(hunk["start"]), int(hunk["old"] or 1), int(hunk["new"] or 1)
        elif raw.startswith(b"diff --git "):
            file, number, is_binary = text.rpartition(" b/")[2].rstrip('"'), 0, False
        elif raw == b"GIT binary patch":
            is_binary = True
        if not is_binary:
            yield Line(file, number, text, is_added=False)


def _find_in_whole(lines: Iterable[Line], expressions: dict[str, re.Pattern[str] | None]) -> str | None:
    """Return the names of secrets of several lines that the added lines hold."""
    text = "\n".join(line.text for line in lines if line.is_added)
    names = [name for name, value in expressions.items() if value and value.search(text)]
    return ", ".join(names) or None


def _find_credentials(line: Line) -> str | None:
    """Return the kind of what looks like a secret in a line that is added, or None."""
    for pattern in URL_CREDENTIALS:
        for match in pattern.finditer(line.text):
            if _is_literal(match["secret"].rpartition(":")[2]):
                return "an address with credentials"
    for pattern in (QUERY_SECRET, AUTHORIZATION):
        for match in pattern.finditer(line.text):
            if _is_literal(match["secret"]):
                return "an address or a header with credentials"
    for match in ASSIGNMENT.finditer(line.text):
        value = match["secret"].strip("\"'`")
        is_quoted = match["quote"] is not None
        is_name = NAME_CHARS.fullmatch(value) is not None and not any(char.isdigit() for char in value)
        if CODE_FILE.search(line.file) and not is_quoted and is_name:
            continue
        if _is_literal(value):
            return "a password or token"
    return None


def _is_literal(value: str) -> bool:
    """Return whether the text is a value itself, not a stand-in for one."""
    return len(value) >= MIN_LITERAL and not STAND_IN.match(value)
