"""README, CONTRIBUTING and docs/: the commands, paths, imports and doctests in them are those of the code."""

import doctest
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prov.model import ProvDocument

from pipeline.data.catalog import CLASSES_FILE
from support.scripts import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [path.stem for path in ROOT.glob("*.py")]
INLINE_CODE = re.compile(r"`([^`]+)`")
# `python promote.py ...`, also in a pipe, in $(...), or as what an image runs
SCRIPT_CALL = re.compile(r"(?:python|pytorch-demo) ((?:benchmarks/)?\w+)\.py\b(.*)")
MAKE_CALL = re.compile(r"^make( .*|$)")
OPTION_OF_SCRIPT = re.compile(r"^(\w+)\.py (--[\w-]+)$")
PATH = re.compile(r"^(?:pipeline|tests|deploy|benchmarks|docs|\.github)/(?!\.env$)[\w./-]*$")
PLACEHOLDER = re.compile(r"<[A-Z_a-z]+>")
SHELL_OPERATORS = ("(", ")", "|", ">", "<", ";", "&", "&&", "||", ">>")


def read_code(document: Path) -> list[str]:
    """Return the lines of the code blocks, with continued lines joined and without comments, and the inline code."""
    blocks, prose = [], []
    is_fenced = False
    for line in document.read_text().splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            blocks.append(line)
        else:
            prose.append(line)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    code = [re.sub(r"(^|\s)# .*", "", line).strip() for line in lines]
    return code + INLINE_CODE.findall("\n".join(prose))


def split_arguments(text: str) -> list[str]:
    """Return the words of a command up to the next operator of the shell, with values for placeholders."""
    lexer = shlex.shlex(PLACEHOLDER.sub("0123456789abcdef0123456789abcdef", text), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if word in SHELL_OPERATORS:
            break
        words.append(word)
    return words


def find_script_calls(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield script and arguments of each call of a script of this project."""
    for line in read_code(document):
        for script, arguments in SCRIPT_CALL.findall(line):
            if (ROOT / f"{script}.py").exists():
                yield script, split_arguments(arguments)


def find_make_targets(document: Path) -> Iterator[str]:
    """Yield each target that make is called with."""
    for line in read_code(document):
        for arguments in MAKE_CALL.findall(line):
            yield from (word for word in split_arguments(arguments) if "=" not in word)


def list_documents(find: str) -> list[Path]:
    """Return the documents in which the function of this name finds something."""
    return [document for document in DOCUMENTS if any(globals()[find](document))]


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files that documented commands read, as far as a check of options looks at them."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset_cleaned").mkdir()
    (tmp_path / "dataset_cleaned" / CLASSES_FILE).write_text("[]")
    lineage = ProvDocument()  # as lineage.py --prov writes one
    lineage.add_namespace("demo", "https://example.com/")
    lineage.entity("demo:model")
    lineage.serialize("lineage.json")


def parse(script: str, arguments: list[str]) -> None:
    """Parse the arguments as the script does; fail with its message."""
    module = importlib.import_module(script.removeprefix("benchmarks/"))
    if hasattr(module, "parse_options"):
        module.parse_options(arguments)


@pytest.mark.parametrize("document", list_documents("find_script_calls"), ids=lambda path: path.stem)
def test_documented_commands_parse(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for script, arguments in find_script_calls(document):
        try:
            parse(script, arguments)
        except SystemExit:
            pytest.fail(f"{document.name}: {script}.py {shlex.join(arguments)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_documents_show_every_script(script: str) -> None:
    shown = {name for document in DOCUMENTS for name, _ in find_script_calls(document)}
    assert script in shown or f"make {script}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", list_documents("find_make_targets"), ids=lambda path: path.stem)
def test_documented_make_targets_exist(document: Path) -> None:
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(find_make_targets(document)) <= set(targets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_documented_options_and_paths_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in INLINE_CODE.findall(document.read_text()):
        if PATH.match(code):
            assert (ROOT / code).exists(), code
        option = OPTION_OF_SCRIPT.match(code)
        if option:
            with pytest.raises(SystemExit):
                parse(option[1], ["--help"])
            assert re.search(rf"{option[2]}\b", capsys.readouterr().out), code


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_documented_imports_exist(document: Path) -> None:
    for line in read_code(document):
        statement = re.match(r"from (pipeline[\w.]*) import (.+)", line)
        if statement:
            module = importlib.import_module(statement[1])
            for name in statement[2].split(", "):
                assert hasattr(module, name), line


@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if ">>> " in document.read_text()], ids=lambda path: path.stem
)
def test_documented_sessions_give_their_output(document: Path) -> None:
    result = doctest.testfile(str(document), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
