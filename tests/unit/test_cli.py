import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import UserError
from support.scripts import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
HEAVY = {"torch", "mlflow", "numpy", "sklearn", "matplotlib", "pandas", "scipy", "torchvision", "PIL", "gradio"}
SLEEPER = """
import sys, time
from pathlib import Path
from pipeline import cli
from pipeline.files import atomic_directory

@cli.entry_point
def main(argv):
    with atomic_directory(Path("out")):
        print("ready", flush=True)
        time.sleep(60)

sys.exit(main())
"""


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "ten", ""])
def test_counts_below_one_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number of at least 1"):
        cli.bounded_number(int, 1)(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_exclusive_bound_refuses_the_bound(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a number above 0"):
        cli.bounded_number(float, 0, exclusive=True)(text)


def test_numbers_above_the_maximum_are_refused() -> None:
    assert cli.bounded_number(float, 0, 1)("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="at most 1"):
        cli.bounded_number(float, 0, 1)("98")


def test_user_error_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    @cli.entry_point
    def main(argv: Sequence[str]) -> int:
        raise UserError("two\nlines; do this")

    assert main([]) == 2
    assert capsys.readouterr() == ("", "error: two lines; do this\n")


def test_bug_keeps_its_traceback() -> None:
    @cli.entry_point
    def main(argv: Sequence[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


def test_options_default_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "a", "b"])
    count_options = cli.entry_point(len)
    assert (count_options(), count_options(["a"])) == (2, 1)


def test_package_log_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    @cli.entry_point
    def main(argv: Sequence[str]) -> int:
        logging.getLogger("pipeline.example").info("measuring")
        logging.getLogger("pipeline.example").warning("this is old")
        return 0

    main([])
    assert capsys.readouterr() == ("", "measuring\nwarning: this is old\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_script_cleans_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SLEEPER]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == "stopped\n"
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script: str, tmp_path: Path) -> None:
    for option, code in (("--help", 0), ("--no-such-option", 2)):
        command = [sys.executable, "-X", "importtime", str(ROOT / script), option]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code
        lines = [line for line in done.stderr.splitlines() if "import time:" in line]
        modules = {line.rpartition("|")[2].strip() for line in lines}
        assert "argparse" in modules
        assert not modules & HEAVY


# --- streams --------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pipeline import cli

@cli.entry_point
def main(argv):
    cli.log("a line")
    with open("file", "w") as file:
        print("its number:", file.fileno(), file=file)
    cli.print_json({"a": 1})
    return cli.OK

sys.exit(main())
"""


def run_writer(folder: Path, redirection: str) -> "subprocess.CompletedProcess[str]":
    script = f"\"{sys.executable}\" -c '{WRITER}' {redirection}"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(exit)"], ids=["closed", "full", "broken pipe"])
def test_unwritable_stderr_changes_no_result(tmp_path: Path, redirection: str) -> None:
    done = run_writer(tmp_path, redirection)
    assert (done.returncode, done.stdout) == (0, '{"a": 1}\n')


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    run_writer(tmp_path, "<&- >&- 2>&-")
    assert (tmp_path / "file").read_text() == "its number: 3\n"


@pytest.mark.parametrize("redirection", [">/dev/full", "> >(exit)"], ids=["full", "broken pipe"])
def test_unwritable_stdout_is_one_line_and_code_2(tmp_path: Path, redirection: str) -> None:
    done = run_writer(tmp_path, f"{redirection}; exit $?")
    assert done.returncode == 2
    assert "error: everything is done, but the result cannot be written to stdout" in done.stderr
    assert "Traceback" not in done.stderr


# --- options --------------------------------------------------------------------------------------------------------


def test_given_options_are_those_of_the_command_line() -> None:
    parser = cli.Parser("a script")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--augment", nargs="+")
    parser.add_argument("--quick", action="store_true")
    assert parser.parse_given(["--epochs", "3"]) == {"epochs": 3}
    assert parser.parse_given(["--augment", "a", "b", "--quick"]) == {"augment": ["a", "b"], "quick": True}
    assert parser.parse_given([]) == {}
