import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.documents import (
    MAX_DEPTH,
    DamagedError,
    parse_count,
    parse_json,
    parse_milliseconds,
    parse_record,
    parse_toml,
    parse_yaml,
    shorten_repr,
)
from pipeline.regular_files import read_file

BOMB = b"".join(b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9 if i else [b"1"])) for i in range(20))


def nest(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("\ufeff{}", "BOM"),
        (b"\xff\xfe{\0}\0", "it is not UTF-8"),
        ('{"a": 1, "a": 2}', "a key is there twice"),
        ("[NaN]", "a number is not finite"),
        ("[1e999]", "a number is not finite"),
        ("[9223372036854775808]", "a number has more than 64 bits"),
        ("9" * 5000, "4300 digits"),
        ('["\\ud800"]', "a text is not Unicode"),
        (nest(MAX_DEPTH + 1), "it is nested more than 20 deep"),
        ("[" * 100_000, "it is nested more than 20 deep"),
    ],
)
def test_damaged_json_is_described(text: str | bytes, problem: str) -> None:
    with pytest.raises(DamagedError, match=problem):
        parse_json(text)


def test_plain_json_is_read() -> None:
    assert parse_json(b'{"a": [1, -2.5, null, true, "\\u00e9"]}') == {"a": [1, -2.5, None, True, "é"]}
    assert parse_json(nest(MAX_DEPTH))
    assert parse_json("[Infinity]", finite=False) == [float("inf")]


@pytest.mark.parametrize("text", ["a", "a = " + "9" * 5000, "a." * 30 + "a = 1", "a = 2026-01-01", "a = " + nest(5000)])
def test_damaged_toml_is_refused(text: str) -> None:
    with pytest.raises(DamagedError):
        parse_toml(text)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (BOMB, "it has an alias"),
        (b"a: &a [*a]", "it has an alias"),
        (b"a: 2020-99-99", "month must be"),
        (b"a: 2020-01-01", "the type date"),
        (b"1: 2", "the type int"),
        (b"a: !!timestamp x", "AttributeError"),
        (b"a: !!python/object/apply:os.getcwd []", "ConstructorError"),
        (b"- " * 20_000, "nested more than"),
    ],
)
def test_damaged_yaml_is_described(content: bytes, problem: str) -> None:
    with pytest.raises(DamagedError, match=problem):
        parse_yaml(content)


def test_record_names_the_value_that_is_wrong() -> None:
    adapter = TypeAdapter(dict[str, list[int]])
    assert parse_record(adapter, '{"a": [1]}') == {"a": [1]}
    with pytest.raises(DamagedError, match=r"a\.0: Input should be a valid integer"):
        parse_record(adapter, '{"a": ["1"]}')


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("60000", 60000), ("-1", None), ("1.0", None), ("\u0661", None), ("9" * 16, None)]
)
def test_only_counts_are_counts(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def test_impossible_times_are_none() -> None:
    assert str(parse_milliseconds(1_000)) == "1970-01-01 00:00:01+00:00"
    assert [parse_milliseconds(number) for number in (None, 2**63 - 1, -(2**63))] == [None, None, None]


def test_long_values_are_cut() -> None:
    assert shorten_repr([1]) == "[1]"
    assert len(shorten_repr("x" * 5000)) == 100


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(10)
def test_only_small_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "file", 5) == b"12345"
    places: list[tuple[Any, str]] = [
        (tmp_path / "file", "more than 4 bytes"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "absent", "No such file"),
        (tmp_path, "Is a directory"),
        ("/dev/zero", "not a regular file"),
    ]
    for place, problem in places:
        with pytest.raises(OSError, match=problem):
            read_file(Path(place), 4)
