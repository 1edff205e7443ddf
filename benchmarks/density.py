"""Count lines of code, and tokens a line, by file: a thermometer of how dense the code is to read.

    python benchmarks/density.py                                  this project: scripts, pipeline, tests
    python benchmarks/density.py pipeline ../other/src            each folder with a total of its own

Docstrings and comments do not count. The idea is that of tinygrad's sz.py
(https://github.com/tinygrad/tinygrad/blob/master/sz.py).
"""

import ast
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LAYOUT_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Since Python 3.12 an f-string is many tokens; before, it is one. Here it is one.
FSTRING_START = getattr(tokenize, "FSTRING_START", None)
FSTRING_END = getattr(tokenize, "FSTRING_END", None)


class Size(NamedTuple):
    """Lines with code, and the tokens on them."""

    lines: int
    tokens: int

    def __str__(self) -> str:
        density = self.tokens / self.lines if self.lines else 0.0
        return f"{self.lines:6,} lines {density:5.1f} tokens a line"


def measure_file(path: Path) -> Size:
    """Return the size of a Python file."""
    docstring_lines = find_docstring_lines(path)
    lines: set[int] = set()
    tokens = 0
    for token in code_tokens(path):
        if token.type == tokenize.STRING and token.start[0] in docstring_lines:
            continue
        tokens += 1
        lines.update(range(token.start[0], token.end[0] + 1))
    return Size(len(lines), tokens)


def code_tokens(path: Path) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens of a file that a reader reads; of an f-string only its start and its end, as one token."""
    depth = 0
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == FSTRING_END:
                depth -= 1
            elif token.type == FSTRING_START:
                depth += 1
                if depth == 1:
                    yield token
            elif depth == 0 and token.type not in LAYOUT_TOKENS:
                yield token


def find_docstring_lines(path: Path) -> set[int]:
    """Return the lines on which a docstring starts."""
    lines = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines.add(node.body[0].lineno)
    return lines


def print_group(name: str, files: Sequence[Path], folder: Path) -> None:
    """Print the size of each file, the densest first, and the total."""
    sizes = {file: measure_file(file) for file in files}
    densest_first = sorted(sizes, key=lambda file: sizes[file].tokens / max(sizes[file].lines, 1), reverse=True)
    for file in densest_first:
        print(f"{file.relative_to(folder)!s:44} {sizes[file]}")
    total = Size(sum(size.lines for size in sizes.values()), sum(size.tokens for size in sizes.values()))
    print(f"{name + ', total':44} {total}\n")


def main(argv: Sequence[str]) -> None:
    """Print the groups."""
    if argv:
        for name in argv:
            print_group(name, sorted(Path(name).rglob("*.py")), Path(name))
        return
    print_group("scripts", sorted(ROOT.glob("*.py")), ROOT)
    for name in ("pipeline", "tests"):
        print_group(name, sorted((ROOT / name).rglob("*.py")), ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
