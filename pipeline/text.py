"""Text from outside (names of files, classes, runs, parameters), made harmless for the place where it is shown."""

import re
import unicodedata

# What means something inside a Markdown text. A colon can begin an emoji, which may be a remote image; "://" and "www."
# make a link, and so does "@name" on GitHub. An underscore inside a word means nothing.
MARKDOWN_SYNTAX = re.compile(
    r"[\\`*\[\]|~<>&$] | (?<![^\W_])_ | _(?![^\W_]) | :(?=//) | :(?=[\w+-]*[a-z][\w+-]*:) | (?<=www)\. | (?<!\S)@",
    re.IGNORECASE | re.VERBOSE,
)
MARKDOWN_BLOCK_START = re.compile(r"\s*(?:[-+=#]|[0-9]+[.)](?=\s|$))")
HTML_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "$": "&#36;", "@": "&#64;"}
FULL_WIDTH_STARTS = ("\uff1d", "\uff0b", "\uff0d", "\uff20")  # of = + - @
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", *FULL_WIDTH_STARTS)
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?", re.IGNORECASE)
# A command inside a line: "##[error]" of GitHub Actions, "##vso[" of Azure Pipelines, "##teamcity[".
CI_COMMAND = re.compile(r"(?P<start>##\w*)\[")


def printable(text: str) -> str:
    r"""Return ``text`` in one line that a terminal or a log shows as it is.

    Control characters, line separators, and characters that are invisible or change the direction of writing become
    their Python escapes: the character that begins a terminal's commands becomes ``\x1b``.
    """
    return "".join(char if _is_visible(char) else char.encode("unicode_escape").decode() for char in text)


def format_log_line(text: str) -> str:
    """Return ``text`` in one line that neither a terminal nor the log of a CI job takes for a command.

    How GitHub's runner finds commands: https://github.com/actions/runner, ActionCommand.cs.
    """
    line = CI_COMMAND.sub(r"\g<start>\[", printable(text))
    if line.lstrip().startswith("::"):
        line = line.replace("::", r":\:", 1)
    return line


def escape_markdown(text: str) -> str:
    """Return ``text`` in one line that Markdown shows as it is: as text, in a table's cell, list or heading.

    The backslash escapes are those of CommonMark 0.31.2, section 2.4 (https://spec.commonmark.org/0.31.2/). Characters
    that Showdown, which MLflow's UI uses, does not escape so are written as HTML entities.
    """
    line = printable(text)
    start = MARKDOWN_BLOCK_START.match(line)
    escaped = MARKDOWN_SYNTAX.sub(_escape_syntax, line)
    if not start:
        return escaped
    position = start.end() - 1  # nothing before it was escaped
    return f"{escaped[:position]}\\{escaped[position:]}"


def escape_formula(text: str) -> str:
    """Return ``text`` for a cell of a CSV file that a spreadsheet program shows and does not compute.

    What could begin a formula gets an apostrophe in front, see https://owasp.org/www-community/attacks/CSV_Injection.
    A number, or a dash alone, is none.
    """
    is_formula = text.startswith(FORMULA_STARTS) and len(text) > 1 and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def _escape_syntax(match: "re.Match[str]") -> str:
    return HTML_ENTITIES.get(match[0], f"\\{match[0]}")


def _is_visible(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
