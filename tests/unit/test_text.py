import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.text import escape_formula, escape_markdown, format_log_line, printable
from support.workflows import find_commands

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
PIECES = st.sampled_from([*"\\`*_{}[]<>()#+-.!|~=:$&'\" \t\n1ax", "![", "](", "<b>", "~~~", "---", "&lt;", "1. ", "# "])
NAMES = st.lists(PIECES, min_size=1, max_size=8).map("".join).filter(str.strip)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seven", "seven"),
        ("数字 七\u3000é", "数字 七\u3000é"),
        ("\x1b[2Jcat", r"\x1b[2Jcat"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\u202egnp.exe\u2028\u200b\ufeff", r"\u202egnp.exe\u2028\u200b\ufeff"),
        ("\udcff", r"\udcff"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_terminals_show_a_name_as_it_is(text: str, expected: str) -> None:
    assert printable(text) == expected


# --- CI logs --------------------------------------------------------------------------------------------------------

LINES = ("::{}::x", "\u00a0 ::{} file=a::x", "name ##[{}]x", "a\r::{}::x", "a\n::{}::x", "####[{} code=1;]x")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("command", ["error", "add-mask", "stop-commands"])
def test_no_log_line_is_a_command(line: str, command: str) -> None:
    text = line.format(command) + "\n::error::"
    assert find_commands(text)[-1:] == ([] if command == "stop-commands" else ["error"])
    assert find_commands(format_log_line(line.format(command))) == []


def test_ordinary_log_lines_stay_the_same() -> None:
    for line in ("std::vector ::a", "## [draft]", "accuracy 97.50%: a::b", "#1 [x]"):
        assert format_log_line(line) == line


# --- Markdown -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seven, 七", "seven, 七"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("![](http://host/a.png)", r"!\[\](http\://host/a.png)"),
        ("a|b\n# c", r"a\|b\\n# c"),
        ("- one", r"\- one"),
        (" # one", r" \# one"),
        ("1. one", r"1\. one"),
        ("&lt; $x$", "&amp;lt; &#36;x&#36;"),
        ("@bob a@b", "&#64;bob a@b"),
        ("www.host.example :octocat:", r"www\.host.example \:octocat:"),
        ("7-segment 3.5 (95% of min_accuracy: 12:30)", "7-segment 3.5 (95% of min_accuracy: 12:30)"),
    ],
)
def test_markdown_shows_a_name_as_it_is(text: str, expected: str) -> None:
    assert escape_markdown(text) == expected


def read_text(html: str) -> str:
    """Return the text of HTML without its blanks: Markdown joins them."""
    return re.sub(r"\s", "", unescape(re.sub(r"<[^>]*>", "", html)))


@given(NAMES)
def test_renderer_shows_a_name_as_text(name: str) -> None:
    escaped = escape_markdown(name).strip()  # four blanks begin a block of code
    expected = re.sub(r"\s", "", printable(name))
    paragraph = MARKDOWN.render(escaped)
    assert (paragraph.count("<"), read_text(paragraph)) == (2, expected)
    table = MARKDOWN.render(f"| a | b |\n| - | - |\n| {escaped} | 1 |\n")
    assert read_text(table) == f"ab{expected}1"
    heading = MARKDOWN.render(f"# a {escaped} b\n")
    assert (heading.count("<"), read_text(heading)) == (2, f"a{expected}b")


# --- spreadsheets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\uff1d1"])
def test_spreadsheets_compute_no_name(text: str) -> None:
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["lr=0.1", "-", "-0.5", "+1e-05", ""])
def test_ordinary_names_stay_the_same_in_spreadsheets(text: str) -> None:
    assert escape_formula(text) == text
