import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from pipeline import cli
from pipeline.errors import UserError
from support.scripts import ROOT
from support.workflows import find_commands

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
HEAVY = {"torch", "mlflow", "numpy", "sklearn", "matplotlib", "pandas", "scipy", "torchvision", "PIL", "gradio"}
SLEEPER = """
import sys, time
from concurrent.futures.process import BrokenProcessPool
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


def raise_in_script(error: BaseException) -> int:
    """Return the exit code of a script that raises the exception."""

    @cli.entry_point
    def main(argv: Sequence[str]) -> int:
        raise error

    return main([])


def test_bug_is_a_traceback_and_code_70(capsys: pytest.CaptureFixture[str]) -> None:
    assert raise_in_script(ZeroDivisionError("it is zero")) == 70
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("Traceback (most recent call last):\n")
    assert stderr.endswith("\nZeroDivisionError: it is zero\n")


@pytest.mark.parametrize("error", [RecursionError(), BrokenPipeError(), ModuleNotFoundError(name="pipeline.x")])
def test_other_exceptions_are_bugs_too(error: Exception) -> None:
    assert raise_in_script(error) == 70


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "there is not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "there is not enough memory"),
        (BrokenProcessPool("A process ..."), "a worker process was killed"),
        (ModuleNotFoundError(name="torch.nn"), "the package torch is not installed; run: pip install"),
    ],
)
def test_what_the_machine_lacks_is_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert raise_in_script(error) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(f"error: {line}")


@pytest.mark.parametrize("script", ["pytorch_demo.py --dataset digits", "promote.py --run-id 8f1c", "compare.py"])
def test_missing_packages_are_no_refusal(script: str, tmp_path: Path) -> None:
    name, *options = script.split()
    command = [sys.executable, "-S", str(ROOT / name), *options]  # -S: without the installed packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not installed; run: pip install" in done.stderr


@pytest.mark.parametrize("argument", ["x\udcff", "x\0y"])
def test_arguments_that_nothing_can_keep_are_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.entry_point(len)([argument]) == 2
    assert capsys.readouterr().err.startswith("error: the argument 'x")


def test_numbers_have_an_upper_end() -> None:
    for text in ("1" + "0" * 400, "9" * 5000, "1000000001"):
        with pytest.raises(argparse.ArgumentTypeError, match="at most 1000000000"):
            cli.bounded_number(int, 1)(text)


@pytest.mark.parametrize("text", ["", " ", "x" * 5001])
def test_empty_and_endless_texts_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        cli.text(text)


@pytest.mark.parametrize("text", ["", "x" * 256, "a/" * 2048, "é" * 128])
def test_paths_that_cannot_exist_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        cli.path(text)


def test_untyped_options_are_texts(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.Parser("a script")
    parser.add_argument_group("names").add_argument("--name")
    with pytest.raises(SystemExit):
        parser.parse_args(["--name", ""])
    assert capsys.readouterr().err.startswith("error: argument --name: it is empty")


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


def test_a_name_in_the_log_begins_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    @cli.entry_point
    def main(argv: Sequence[str]) -> int:
        cli.log("run a\n::error::forged")
        logging.getLogger("pipeline.example").info("run %s", "\x1b[2J\rforged")
        raise UserError("no run \x1b[2J")

    assert main([]) == 2
    lines = ["run a\\n::error::forged", "run \\x1b[2J\\rforged", "error: no run \\x1b[2J"]
    assert capsys.readouterr().err.splitlines() == lines


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


PRINTER = r"""
import sys
from pipeline import cli

@cli.entry_point
def main(argv):
    cli.log("log \u4e03 \udcff")
    cli.print_text("text \u4e03 \udcff\n\x1b[2J::error::x\n ::error::x")
    cli.print_json({"name": "##[error]\u4e03", "other": "###vso[x]"})
    return cli.OK

sys.exit(main())
"""


def run_printer(folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PRINTER]
    all_env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, cwd=folder, env=all_env, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_every_terminal_can_show_every_name(tmp_path: Path, env: dict[str, str]) -> None:
    done = run_printer(tmp_path, **env)
    assert done.stderr in ("log 七 \\udcff\n", "log \\u4e03 \\udcff\n")
    first, second, third, result = done.stdout.splitlines()
    assert first in (r"text 七 \udcff", r"text \u4e03 \udcff")
    assert (second, third) == (r"\x1b[2J::error::x", r" :\:error::x")
    assert json.loads(result) == {"name": "##[error]七", "other": "###vso[x]"}


def test_json_is_no_workflow_command(tmp_path: Path) -> None:
    result = run_printer(tmp_path).stdout.splitlines()[-1]
    assert find_commands('{"name": "##[error]x"}') == ["error"]
    assert find_commands(result) == []


LIBRARY = """
import sys
from pipeline import cli

@cli.entry_point
def main(argv):
    print("::error::of a library", file=sys.stderr)
    raise SystemExit(int(argv[0]))

code = main(sys.argv[1:])
print("::notice::of the next program", file=sys.stderr)
"""


@pytest.mark.parametrize("code", ["0", "2"])
def test_workflow_commands_are_stopped_until_the_end(tmp_path: Path, code: str) -> None:
    command = [sys.executable, "-c", LIBRARY, code]
    env = os.environ | {"PYTHONPATH": str(ROOT), "GITHUB_ACTIONS": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "::error::of a library" in done.stderr
    assert find_commands(done.stderr) == ["notice"]
    assert done.stdout == ""


def test_word_that_resumes_commands_is_never_the_same(tmp_path: Path) -> None:
    first, second = [run_printer(tmp_path, GITHUB_ACTIONS="true").stderr.splitlines()[0] for _ in range(2)]
    assert first != second


# --- options --------------------------------------------------------------------------------------------------------


def test_given_options_are_those_of_the_command_line() -> None:
    parser = cli.Parser("a script")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--augment", nargs="+")
    parser.add_argument("--quick", action="store_true")
    assert parser.parse_given(["--epochs", "3"]) == {"epochs": 3}
    assert parser.parse_given(["--augment", "a", "b", "--quick"]) == {"augment": ["a", "b"], "quick": True}
    assert parser.parse_given([]) == {}
