import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline import UserError, cli


def test_files_appear_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "new" / "reports"
    with cli.whole(target) as folder:
        (folder / "a.txt").write_text("whole")
        assert not (target / "a.txt").exists()
    assert [(path.name, path.read_text()) for path in target.iterdir()] == [("a.txt", "whole")]


def test_after_an_exception_the_old_file_stays_and_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), cli.whole(tmp_path) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_directories_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), cli.whole(tmp_path / "a" / "b"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/reports"), cli.whole(tmp_path / "file" / "reports"):
        pass


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "ten", ""])
def test_whole_numbers_below_the_least_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number of at least 1"):
        cli.number(int, 1)(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_numbers_that_must_be_above_zero_are_refused_at_zero(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a number above 0"):
        cli.number(float, 0, above=True)(text)


def test_numbers_above_the_most_are_refused() -> None:
    assert cli.number(float, 0, 1)("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="at most 1"):
        cli.number(float, 0, 1)("98")


def test_an_error_of_the_user_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise UserError("two\nlines; do this")

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "error: two lines; do this\n")


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(main)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_script_cleans_up_and_says_so(tmp_path: Path, number: signal.Signals, code: int) -> None:
    program = (
        "import time; from pathlib import Path; from pipeline import cli\n"
        "def main():\n"
        "    with cli.whole(Path('out')) as folder:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "cli.run(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == "stopped\n"
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["pytorch_demo.py", "evaluate.py", "promote.py"])
def test_help_and_mistyped_options_import_nothing_heavy(script: str, tmp_path: Path) -> None:
    for arguments, code in ((["--help"], 0), (["--no-such-option"], 2)):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", str(ROOT / script), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
        assert "argparse" in imported
        assert not imported & {"torch", "mlflow", "numpy", "sklearn", "matplotlib", "pandas"}
