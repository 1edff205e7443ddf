"""Damage to records and options by a seeded generator: bytes, texts, and the values of documents."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from pipeline.errors import UserError
from support.scripts import Result

LONG = "x" * 5000
DIGITS = "9" * 5000  # Python refuses to convert more than 4,300
HOSTILE_TEXTS = (
    "",
    " ",
    "\n",
    "x\0y",
    "\ud800",
    "\ufeff",
    "\x1b[2J\n::error::x",
    "=cmd|x",
    "x" * 300,
    LONG,
    ".",
    "..",
    "../x",
    "a/b/c",
    "no\\such'%s{0}\"",
    "\U0001f986",
    "0",
    "-1",
    "1",
    "1.5",
    "1e400",
    "1e308",
    "1e-320",
    DIGITS,
    "9" * 20,
    "2147483648",
    "nan",
    "-inf",
    "0x10",
    "\uff11\uff12",
    "1_0",
    "None",
    "true",
    "off",
    "0000-00-00",
    "9999-12-31T23:59:59.999999+00:00",
    "0001-01-01",
)
HOSTILE_NUMBERS = (0, 1, -1, 2, 7, 2**31, 2**63, 2**64, 10**400, -0.0, 0.5, 1.5, 1e308, math.nan, math.inf, -math.inf)
HOSTILE_VALUES: tuple[Any, ...] = (None, True, False, [], [1], [[[[]]]], {}, {"": {}}, *HOSTILE_NUMBERS, *HOSTILE_TEXTS)


# --- bytes ----------------------------------------------------------------------------------------------------------

WHOLE_CONTENTS = (
    b"",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe{\0}\0",
    b"\x80\x81",
    b"null",
    b"0",
    b'""',
    b"[]",
    b"{}",
    b"NaN",
    b"9" * 5000,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"- " * 20_000,
    b"a." * 3000 + b"a = 1",
    b"x = " + b"[" * 5000 + b"]" * 5000,
    b"x = " + b"9" * 5000,
    b"a: 2020-99-99",
    b"a: !!timestamp x",
    b"a: !!int ''",
    b"a: !!python/object/apply:os.getcwd []",
    b"? [1]\n: 2",
    b"a: &a [1]\nb: *a",
    b"a: &a [*a]",
    b"".join(b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9 if i else [b"1"])) for i in range(20)),
)


def damage_bytes(random: Random, content: bytes) -> bytes:
    """Return the content with one to three changes of its bytes, or something else in its place."""
    if random.random() < 0.1:
        return random.choice(WHOLE_CONTENTS)
    for _ in range(random.randint(1, 3)):
        start = random.randrange(len(content) + 1)
        end = min(len(content), start + random.choice((0, 1, 1, 2, 8, 100, 3000)))
        piece = random.choice(
            (
                b"",
                content[start:end] * 2,
                random.randbytes(end - start),
                random.choice((b"0", b"-", b"9" * 20, b"1e999", b"NaN", b'"', b"'", b",", b"[", b"{", b"\n", b"\xff")),
                random.choice(HOSTILE_TEXTS).encode("utf-8", "surrogatepass"),
            )
        )
        content = content[:start] + piece + content[end:]
    return content


# --- documents ------------------------------------------------------------------------------------------------------

Place = tuple[Any, Any]  # what holds a value, and its index or key there


def list_places(document: Any) -> list[Place]:
    """Return the places of all values in nested lists and dictionaries."""
    places = []
    holders = [document]
    while holders:
        holder = holders.pop()
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        for key in keys:
            places.append((holder, key))
            if isinstance(holder[key], dict | list):
                holders.append(holder[key])
    return places


def damage_document(random: Random, document: Any, values: tuple[Any, ...] = HOSTILE_VALUES) -> Any:
    """Return a copy of the document with one to three values deleted, replaced, doubled, moved, renamed or nested."""
    document = copy.deepcopy(document)
    for _ in range(random.randint(1, 3)):
        places = list_places(document)
        if not places:
            return random.choice(values)
        holder, key = random.choice(places)
        value = copy.deepcopy(random.choice(values))
        change = random.choice(("delete", "replace", "replace", "replace", "double", "move", "rename", "nest"))
        if change == "delete":
            del holder[key]
        elif change == "replace":
            holder[key] = value
        elif change == "double" and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * random.choice((1, 500))
        elif change == "move":
            other, other_key = random.choice(places)
            holder[key] = copy.deepcopy(other[other_key])
        elif change == "rename" and isinstance(holder, dict):
            holder[random.choice(HOSTILE_TEXTS)] = holder.pop(key)
        elif change == "nest":
            for _ in range(random.choice((1, 40, 150))):
                value = [value]
            holder[key] = value
    return document


def damage_json(random: Random, content: bytes) -> bytes:
    """Return JSON with damage to its values, or to its bytes."""
    if random.random() < 0.35:
        return damage_bytes(random, content)
    text = json.dumps(damage_document(random, json.loads(content)))
    if random.random() < 0.1:  # a key that is there twice
        text = text.replace("{", '{"samples": 1, "samples": 2, ', 1)
    return text.encode()


# --- cases ----------------------------------------------------------------------------------------------------------


def check_cases(count: int, read: Callable[[Random], object]) -> None:
    """Read ``count`` damaged things, each with its seed: the result may be anything, the only error a UserError."""
    check_numbers(count, lambda seed: read(Random(seed)))


def check_every_value(document: Any, read: Callable[[Any], object]) -> None:
    """Read a document with each hostile value at the first place of each key, one at a time."""
    places: dict[Any, int] = {}
    for number, (_, key) in enumerate(list_places(document)):
        places.setdefault(key, number)
    cases = [(number, value) for number in places.values() for value in HOSTILE_VALUES]

    def read_case(index: int) -> None:
        number, value = cases[index]
        damaged = copy.deepcopy(document)
        holder, key = list_places(damaged)[number]
        holder[key] = copy.deepcopy(value)
        read(damaged)

    check_numbers(len(cases), read_case)


def check_numbers(count: int, read: Callable[[int], object]) -> None:
    """Call ``read`` with each number below ``count``: the result may be anything, the only error a UserError."""
    bugs = []
    accepted = 0
    for seed in range(count):
        try:
            read(seed)
            accepted += 1
        except UserError as error:
            if not str(error).strip():
                bugs.append(f"seed {seed}: an empty message")
        except Exception as error:
            bugs.append(f"seed {seed}: {type(error).__name__}: {error!s:.150}")
    print(f"{count} cases, {accepted} accepted, {len(bugs)} bugs")
    assert not bugs, f"{len(bugs)} of {count} cases:\n" + "\n".join(bugs)


class EnoughError(UserError):
    """Takes the place of the work that a script begins after it has accepted everything."""


def is_harmless(result: Result) -> bool:
    """Return whether a script has done its work, or has refused in one line."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    is_refusal = result.code == 2 and len(lines) == 1
    return "Traceback" not in result.stderr and (result.code in (0, 1) or is_refusal)


@contextmanager
def as_bug_of(case: str) -> Iterator[None]:
    """Name the case in what is raised inside the block, unless it is a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
