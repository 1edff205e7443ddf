"""Everything hostile at once, as a CI job meets it: names, links, bombs, secrets, and damaged records of one project.

Each kind has tests of its own: test_hostile_names, test_hostile_files and test_outputs in tests/scripts;
test_hostile_options, test_hostile_environment, test_damaged_records, test_damaged_store, test_damaged_datasets,
test_hostile_models, test_mutated_archives, test_gate_cheats and test_secrets here.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets import load_splits
from support.bombs import picture_bomb
from support.pipelines import build_once, copy_stores
from support.scripts import Result, run_script
from support.workflows import find_commands

CLASSES = ("\x1b[2J::error::forged", "=1+1", "<img src=x>", "![x](x)", "a\n# forged", "5", "6", "7", "8", "9")
SECRET = "the password of the server"
KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----"
ENV = {"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "\x1b[31mroot\n::error::forged", "SERVER_PASSWORD": SECRET}
TRAINING = ("--dataset", "own", "--epochs", 2, "--limit", 400, "--run-name", f"::warning::x {SECRET}")


@dataclass(frozen=True)
class Project:
    """A directory in which every script has run, and what each of them did."""

    folder: Path
    run_id: str
    results: dict[str, Result]


def write_photos(folder: Path) -> None:
    """Write digits in classes of hostile names, a key, links, a pipe, and pictures that are too large."""
    images, labels = load_splits("digits", Path()).train.images, load_splits("digits", Path()).train.labels
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        file = folder / CLASSES[label] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image[0])).save(file)
    (folder.parent / "id_ed25519").write_text(KEY)
    (folder / "5" / "key.png").symlink_to(folder.parent / "id_ed25519")
    (folder / "5" / "up").symlink_to("..")
    (folder / "5" / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "5" / "pipe.png")
    (folder / "5" / "bomb.png").write_bytes(picture_bomb("PNG", 6000))
    (folder / "5" / "::error::forged\x1b[2J.png").write_text("no picture")


def run_project(folder: Path) -> tuple[str, dict[str, Result]]:
    """Run every script once, as a job of GitHub Actions; return the run's id and what each script did."""
    write_photos(folder / "photos")
    results: dict[str, Result] = {}

    def run(script: str, *options: object) -> Result:
        results[script] = run_script(folder, script, *options, env=ENV)
        return results[script]

    run("prepare_data.py", "photos", "--output", "own")
    run_id = run("pytorch_demo.py", *TRAINING).json["run_id"]
    run("evaluate.py", "--run-id", run_id, "--log-mlflow")
    run("promote.py", "--run-id", run_id, "--min-accuracy", 0, "--reason", f"\x1b[2J\n::error::x {SECRET}")
    run("compare.py", "--csv", "compare.csv")
    run("lineage.py", "--run-id", run_id, "--prov", "lineage.json")
    run("predict.py", *sorted((folder / "photos" / CLASSES[2]).iterdir())[:2])
    shutil.rmtree(folder / "photos")
    return run_id, results


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a copy of the project that a test may damage."""
    source, (run_id, results) = build_once(tmp_path_factory, "hostile_project", run_project)
    return Project(copy_stores(source, tmp_path_factory.mktemp("own")), run_id, results)


def test_every_script_does_its_work(project: Project) -> None:
    codes = {script: (result.code, result.stderr) for script, result in project.results.items() if result.code}
    assert codes == {}


def test_streams_have_no_command_and_no_secret(project: Project) -> None:
    for script, result in project.results.items():
        first, *lines, last = result.stderr.splitlines()
        assert first.startswith("::stop-commands::"), script
        assert last == f"::{first.removeprefix('::stop-commands::')}::", script
        text = result.stdout + "\n".join(lines)
        assert "\x1b" not in text, script
        assert find_commands(text) == [], script
        assert SECRET not in text, script


def test_files_have_no_key_and_no_secret(project: Project) -> None:
    contents = {path.name: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    assert [name for name, content in contents.items() if KEY.encode() in content] == ["id_ed25519"]
    assert [name for name, content in contents.items() if SECRET.encode() in content] == []
    assert b"***" in contents["mlflow.db"]


# --- one attempt more ------------------------------------------------------------------------------------------------


def damage_record(project: Project) -> tuple[object, ...]:
    for file in project.folder.rglob("evaluation.json"):
        file.write_text('{"accuracy": 1' + "0" * 400 + "}")
    return "promote.py", "--run-id", project.run_id


def nest_policy(project: Project) -> tuple[object, ...]:
    (project.folder / "gates.toml").write_text("x = " + "[" * 2000 + "]" * 2000)
    return "promote.py", "--run-id", project.run_id


def ask_about_a_bomb(project: Project) -> tuple[object, ...]:
    (project.folder / "bomb.png").write_bytes(picture_bomb("PNG", 6000))
    return "predict.py", "bomb.png"


def write_to_a_pipe(project: Project) -> tuple[object, ...]:
    os.mkfifo(project.folder / "pipe")
    return "compare.py", "--csv", "pipe"


def train_for_ever(_: Project) -> tuple[object, ...]:
    return "pytorch_demo.py", "--epochs", "9" * 5000


def name_a_secret(_: Project) -> tuple[object, ...]:
    return "pytorch_demo.py", "--dataset", "digits", "--experiment", SECRET


def exchange_classes(project: Project) -> tuple[object, ...]:
    (project.folder / "own" / "classes.json").write_text("[" * 100_000)
    return "pytorch_demo.py", "--dataset", "own"


def lose_the_data(project: Project) -> tuple[object, ...]:
    shutil.rmtree(project.folder / "own")
    (project.folder / "own").symlink_to("own")
    return "evaluate.py", "--run-id", project.run_id


ATTEMPTS: dict[Callable[[Project], tuple[object, ...]], str] = {
    damage_record: "evaluation.json",
    nest_policy: "gates.toml",
    ask_about_a_bomb: "6,000 x 6,000 pixels",
    write_to_a_pipe: "cannot write to pipe (it is a named pipe)",
    train_for_ever: "--epochs",
    name_a_secret: "--experiment holds a secret",
    exchange_classes: "classes.json",
    lose_the_data: "own",
}


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__)
def test_attempt_is_refused_in_one_line(project: Project, attempt: Callable[[Project], tuple[object, ...]]) -> None:
    script, *options = attempt(project)
    result = run_script(project.folder, str(script), *options, env={"SERVER_PASSWORD": SECRET})
    assert result.code == 2, result
    assert result.stderr.count("error: ") == 1, result.stderr
    assert ATTEMPTS[attempt] in result.stderr.splitlines()[-1]
    assert len(result.stderr.splitlines()[-1]) < 500
