"""Names that want to be more than names: what the scripts show of them in a terminal, a CI job, Markdown and CSV."""

import csv
import re
import subprocess
import sys
from html import unescape
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mlflow import MlflowClient
from PIL import Image

import compare
import evaluate
import lineage
import predict
import prepare_data
import promote
import pytorch_demo
from pipeline.data.datasets import load_splits
from pipeline.text import printable
from support.pipelines import build_once, copy_stores
from support.scripts import ROOT, Result, call_main, run_script
from support.workflows import find_commands

# Of a class: it is also the name of a folder, so that it has no slash.
NAMES = (
    "\x1b]0;owned\x07\x1b[2Jcat",
    "::error::forged",
    "x\r::error::forged\n::error::forged",
    "##[error]forged",
    "<img src=x.png>",
    "![x](x.png)",
    "\n\n# forged\n\n- one",
    "| a | b |",
    '=HYPERLINK("x")',
    "\u202egnp.exe $\\frac$ 七",
)
REASON = "![x](https://x.example/a.png)\n\n# forged\n\x1b[2J<img src=https://x.example/a.png>"
CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
SCRIPTS = ("prepare_data", "pytorch_demo", "evaluate", "promote", "predict", "compare", "lineage", "history")
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])  # it lets HTML through


def write_pictures(folder: Path) -> None:
    """Write the digits as <class>/<number>.png."""
    splits = load_splits("digits", Path())
    for split in splits:
        for index, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            file = folder / NAMES[label] / f"{len(split)}-{index}\x1b[2J\n::error::forged.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(file)
    (folder / NAMES[0] / "\n# forged ![x](x.png).png").write_text("no picture")
    (folder / "\n# forged <img src=x.png>.txt").write_text("ignored")


def run_scripts(folder: Path) -> dict[str, Result]:
    """Run every script on images and classes with such names; return the results by script."""
    raw = folder / "raw"
    write_pictures(raw)
    results = {"prepare_data": call_main(prepare_data.main, raw, "--output", "own", folder=folder)}
    train = ("--dataset", "own", "--epochs", 1, "--limit", 200)
    results["pytorch_demo"] = call_main(pytorch_demo.main, *train, folder=folder)
    run_id = results["pytorch_demo"].json["run_id"]
    MlflowClient(f"sqlite:///{folder}/mlflow.db").update_run(run_id, name=NAMES[2])  # by another program
    run = ("--run-id", run_id)
    other = ("--seed", 1, "--run-name", NAMES[8], "--no-register")
    call_main(pytorch_demo.main, *train, *other, folder=folder)
    results["evaluate"] = call_main(evaluate.main, *run, "--log-mlflow", folder=folder)
    gate = ("--min-accuracy", 0, "--reason", REASON)
    with patch.dict("os.environ", GITHUB_ACTOR=NAMES[5]):
        results["promote"] = call_main(promote.main, *run, *gate, folder=folder)
    pictures = sorted((raw / NAMES[1]).iterdir())[:2]
    results["predict"] = call_main(predict.main, *pictures, "--save", "answers", folder=folder)
    results["compare"] = call_main(compare.main, "--csv", "c.csv", "--plot", "c.png", folder=folder)
    results["lineage"] = call_main(lineage.main, folder=folder)
    results["history"] = call_main(promote.main, "--history", folder=folder)
    return results


Project = tuple[Path, dict[str, Result]]


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a copy of a folder in which every script has run, and the results."""
    source, results = build_once(tmp_path_factory, "hostile_names", run_scripts)
    return copy_stores(source, tmp_path_factory.mktemp("own")), results


# --- terminal and CI log --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_terminal_gets_no_control_character(project: Project, script: str) -> None:
    result = project[1][script]
    assert result.code == 0, result.stderr
    assert not CONTROL_CHARACTER.search(result.stdout + result.stderr)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_line_is_a_workflow_command(project: Project, script: str) -> None:
    result = project[1][script]
    assert find_commands(result.stdout) == []
    assert find_commands(result.stderr) == []


def test_workflow_commands_are_stopped_for_the_script(project: Project) -> None:
    result = run_script(project[0], "compare.py", env={"GITHUB_ACTIONS": "true"})
    first, *_, last = result.stderr.splitlines()
    word = first.removeprefix("::stop-commands::")
    assert len(word) == 32
    assert last == f"::{word}::"


def test_json_has_the_names_as_they_are(project: Project) -> None:
    names = [image["class_name"] for image in project[1]["predict"].json["images"]]
    assert set(names) <= set(NAMES)


def test_option_is_repeated_as_text(tmp_path: Path) -> None:
    result = call_main(compare.main, "\x1b[2J", "x\n::error::forged", folder=tmp_path)
    assert result.error.startswith(r"error: unrecognized arguments: \x1b[2J x\n::error::forged")


# --- Markdown -------------------------------------------------------------------------------------------------------


def read_markdown(project: Project) -> dict[str, str]:
    """Return every Markdown that the scripts wrote or logged, by its name."""
    folder, results = project
    promoted = results["promote"].json
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    note = client.get_run(promoted["decision_run_id"]).data.tags["mlflow.note.content"]
    description = client.get_model_version(promoted["model_name"], promoted["version"]).description
    command = [sys.executable, str(ROOT / ".github" / "summary.py")]
    for script in ("pytorch_demo", "evaluate", "promote"):
        command.append(f"{script}.json")
        (folder / command[-1]).write_text(results[script].stdout)
    summary = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return {
        "cleaning report": (folder / "own" / "cleaning_report.md").read_text(),
        "checklist": (folder / results["evaluate"].json["output_dir"] / "checklist.md").read_text(),
        "verdict": note,
        "description": description,
        "summary": summary,
    }


def find_forgeries(text: str) -> list[str]:
    """Return what the Markdown has that only a name can have brought: pictures, HTML, links, headings."""
    tokens: list[Token] = []
    for token in MARKDOWN.parse(text):
        tokens += [token, *(token.children or [])]
    found = [token.type for token in tokens if token.type in ("image", "html_block", "link_open")]
    found += [token.content for token in tokens if token.type == "html_inline" and token.content != "<br>"]
    for token, following in pairwise(tokens):
        if token.type == "heading_open" and following.content.startswith("forged"):
            found.append(following.content)
    return found


def test_forgeries_are_found() -> None:
    assert find_forgeries("![x](x.png)\n\n# forged\n\n<b>x</b>\n") == ["image", "<b>", "</b>", "forged"]


@pytest.mark.parametrize("name", ["cleaning report", "checklist", "verdict", "summary"])
def test_markdown_shows_names_as_text(project: Project, name: str) -> None:
    assert find_forgeries(read_markdown(project)[name]) == []


def test_description_of_a_version_shows_the_reason_as_text(project: Project) -> None:
    text = read_markdown(project)["description"]
    assert find_forgeries(text) == ["link_open"]  # to the decision
    assert "![x](x.png)" in "".join(token.content for token in MARKDOWN.parseInline(text)[0].children or [])


@pytest.mark.parametrize("name", ["cleaning report", "summary"])
def test_every_class_has_one_row(project: Project, name: str) -> None:
    html = MARKDOWN.render(read_markdown(project)[name])
    cells = re.findall(r"<tr>\n<td>(?:<strong>)?(.*?)(?:</strong>)?</td>", html)
    expected = [printable(label).strip() for label in sorted(NAMES)]
    assert [unescape(cell) for cell in cells][-len(NAMES) :] == expected


# --- CSV ------------------------------------------------------------------------------------------------------------


def test_spreadsheet_computes_no_cell(project: Project) -> None:
    with (project[0] / "c.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3
    cells = [cell for row in rows for cell in row]
    assert '\'=HYPERLINK("x")' in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@", "\t"))]
    assert not CONTROL_CHARACTER.search("".join(cells))
