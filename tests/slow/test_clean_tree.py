"""A training after every documented command has a clean tree, and after a change of the code its patch alone.

The commands of training, evaluation, promotion, lineage and comparison are executed. Of all others, in README, docs and
workflows, the files and folders are created that they name.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.catalog import DATASET_NAMES
from pipeline.provenance.source import describe_code
from support.git import run_git
from support.scripts import ROOT, run_script
from support.stores import open_store

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / ".github" / "workflows").glob("*.yml")]
COMMAND = re.compile(r"^(?:exec |\w+=\$?\(?)*(?:\S* )?(?:python|make|mlflow|openssl|curl|git|pip|mkdir)\b")
REDIRECT = re.compile(r"(?<=\s)>>? (?P<path>\w[\w./-]*)$")
FOLDER_OPTIONS = ("--output", "--save", "--dst-path", "--output-dir", "--data-dir", "--checkpoint-dir")
FILE_NAME = re.compile(r"(?:[\w-]+/)*[\w*-]*\.[a-z][a-z0-9]{1,5}|[\w-]+/")
FOLDER_NAME = re.compile(r"[a-z_]+")
TRAINING = ("--dataset", "digits", "--epochs", 1)


def iterate_commands() -> Iterator[str]:
    """Yield the lines of code in the documents and workflows, without comments."""
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if document.suffix == ".yml" or line.startswith("    "):
                yield re.sub(r"(^|\s)# .*", "", line).strip().removeprefix("run: ").strip()
        yield from re.findall(r"`([^`\n]+)`", text)


def read_words(command: str) -> list[str]:
    """Return the words of a command as a shell splits them; none if it goes on in the next line."""
    try:
        return shlex.split(command.rstrip(")").partition(" && ")[0])
    except ValueError:
        return []


def find_outputs() -> dict[str, str]:
    """Return what the documented commands name and the project lacks: path -> "file" or "folder"."""
    outputs = {}
    for command in iterate_commands():
        redirect = REDIRECT.search(command)
        if redirect:
            outputs[redirect["path"]] = "file"
        if not COMMAND.match(command):
            continue
        words = read_words(command)
        for before, word in zip(["", *words], words, strict=False):
            is_folder = before in (*FOLDER_OPTIONS, "<code.remote>") or before in ("prepare_data.py", "--dataset")
            if is_folder and FOLDER_NAME.fullmatch(word):
                outputs[word] = "folder"
            name = word.rpartition("=")[2]
            if FILE_NAME.fullmatch(name):
                outputs[name.replace("*", "one")] = "folder" if name.endswith("/") else "file"
    present = {name for name in outputs if (ROOT / name).exists() or name in (*DATASET_NAMES, "mlflow.db")}
    return {name: kind for name, kind in outputs.items() if name not in present}


@pytest.fixture
def used_checkout(checkout: Path) -> Path:
    """Return a clone of the project in which every documented command has left its output."""
    for path, kind in find_outputs().items():
        target = checkout / path
        if kind == "file":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("a line\n")
        else:  # names that are code elsewhere
            for name in ("cleaning_report.md", "requirements.txt", "conda.yaml", "train/a.py", "a.png"):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_text("a line\n")
    return checkout


def read_run(checkout: Path, run_id: str) -> dict[str, str]:
    """Return the tags of a run in the store of the checkout."""
    tags: dict[str, str] = open_store(checkout).get_run(run_id).data.tags
    return tags


def run(checkout: Path, script: str, *arguments: object) -> str:
    """Run a script of the checkout in it, as documented; return the id in its result."""
    result = run_script(checkout, script, *arguments, root=checkout)
    assert result.code == 0, result.stderr
    return str(result.json.get("run_id")) if result.stdout.startswith("{") else ""


def test_documented_outputs_are_found() -> None:
    expected = {"train.json", "evaluate.json", "promote.json", "lineage.json", "request.json", "compare.png"}
    expected |= {"photos", "dataset_cleaned", "predictions", "restored", "downloaded"}
    expected |= {"photo.png", "monday.tar", "signing.pub", "model.sig"}
    assert expected <= set(find_outputs())


def test_documented_commands_leave_a_clean_tree(used_checkout: Path) -> None:
    first = run(used_checkout, "pytorch_demo.py", "--dataset", "digits", "--keep-checkpoints")
    run(used_checkout, "evaluate.py", "--run-id", first, "--log-mlflow")
    run(used_checkout, "promote.py", "--run-id", first)
    run(used_checkout, "lineage.py", "--prov", "lineage.json", "--json")
    run(used_checkout, "compare.py", "--plot", "compare.png", "--csv", "compare.csv")
    for name in ("mlflow.db", "mlruns", "checkpoints", "evaluation", "compare.csv", "lineage.json", "compare.png"):
        assert (used_checkout / name).exists()

    tags = read_run(used_checkout, run(used_checkout, "pytorch_demo.py", *TRAINING))
    assert (tags["code.dirty"], tags["code.patch"]) == ("false", "not needed")


def test_change_of_one_line_is_recorded_alone(used_checkout: Path, tmp_path: Path) -> None:
    file = used_checkout / "pipeline" / "training" / "loop.py"
    changed = file.read_text() + "# changed\n"
    file.write_text(changed)
    run_id = run(used_checkout, "pytorch_demo.py", *TRAINING)
    tags = read_run(used_checkout, run_id)
    assert (tags["code.dirty"], tags["code.patch"]) == ("true", "complete")

    patch = open_store(used_checkout).download_artifacts(run_id, "provenance/source.patch", str(tmp_path))
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "--quiet", tags["code.remote"], str(clone))
    run_git(clone, "apply", patch)
    assert run_git(clone, "diff", "--numstat") == "1\t0\tpipeline/training/loop.py"
    assert (clone / "pipeline" / "training" / "loop.py").read_text() == changed


@pytest.mark.parametrize("name", ["photos/a.py", "dataset_cleaned/cleaning_report.md", "checkpoints/1/model.txt"])
def test_tree_without_the_ignore_list_is_dirty(name: str, checkout: Path) -> None:
    (checkout / name).parent.mkdir(parents=True)
    (checkout / name).write_text("a line\n")
    assert describe_code(checkout).tags["dirty"] == "false"
    shutil.move(checkout / name, checkout / "pipeline")
    assert describe_code(checkout).tags["dirty"] == "true"
