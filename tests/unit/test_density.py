"""benchmarks/density.py: what counts as a line and as a token."""

import sys
from pathlib import Path

import pytest

from support.scripts import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import density


@pytest.mark.parametrize(
    ("source", "lines", "tokens"),
    [
        ("x = 1\n", 1, 3),
        ('"""Docstring."""\n\n# comment\nx = 1  # comment\n', 1, 3),
        ('def f():\n    """Docstring\n\n    of lines."""\n    return 1\n', 2, 7),
        ('x = f"{a} and {b!r:>3}"\n', 1, 3),
        ('x = """a\nstring"""\n', 2, 3),
        ("", 0, 0),
    ],
    ids=["statement", "comments", "docstring", "f-string", "long string", "empty"],
)
def test_docstrings_and_comments_do_not_count(tmp_path: Path, source: str, lines: int, tokens: int) -> None:
    (tmp_path / "module.py").write_text(source)
    assert density.measure_file(tmp_path / "module.py") == (lines, tokens)


def test_each_folder_has_a_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain.py").write_text("x = 1\n")
    (tmp_path / "dense.py").write_text("x = [1, 2, 3]\ny = 2\n")
    density.main([str(tmp_path)])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[:2]] == ["dense.py", "plain.py"]
    assert rows[2].endswith("3 lines   5.0 tokens a line")
