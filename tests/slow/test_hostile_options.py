"""Hostile values for every option of every script: the script does its work, or prints one line and exits with 1 or 2.

The options are those that each parser has. Nothing is trained, scored or drawn: what is replaced raises an error.
"""

import argparse
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import mlflow
import pytest

from pipeline import cli
from support.mutations import HOSTILE_TEXTS, EnoughError, as_bug_of, is_harmless
from support.pipelines import PipelineRun
from support.scripts import call_main

# name -> the options of an honest call, and the number of cases
SCRIPTS: dict[str, tuple[tuple[str, ...], int]] = {
    "pytorch_demo": (("--dataset", "digits", "--limit", "20", "--epochs", "1"), 60),
    "evaluate": (("--run-id", "{run_id}"), 60),
    "promote": (("--run-id", "{run_id}", "--dry-run"), 70),
    "compare": ((), 100),
    "lineage": ((), 40),
    "predict": (("photo.png",), 60),
    "prepare_data": (("photos", "--output", "cleaned"), 100),
    "app": ((), 30),
}
REPLACED = (
    "pipeline.session.epochs.train",
    "pipeline.cleaning.checks.clean_images",
    "evaluate.score_model",
    "predict.ask_model",
    "app.serve_page",
)
PLACES = ("file.txt", "folder", "file.txt/x", "folder/new/deep", "dangling", "loop", "photos", "mlflow.db")


class CapturedError(Exception):
    """Carries the parser of a script."""


def read_actions(script: Any) -> list[argparse.Action]:
    """Return the options of a script, as its parser has them."""

    def capture(parser: cli.Parser, *_: object) -> None:
        raise CapturedError(parser)

    with patch.object(cli.Parser, "parse_args", capture), pytest.raises(CapturedError) as captured:
        script.parse_options([])
    parser: cli.Parser = captured.value.args[0]
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def choose_option(random: Random, actions: Sequence[argparse.Action]) -> list[str]:
    """Return an option with a hostile value, as it is typed."""
    action = random.choice(actions)
    if action.nargs == 0:
        return [random.choice(action.option_strings)]
    values = [*HOSTILE_TEXTS, *PLACES, *(action.choices or ())]
    count = random.choice((1, 2)) if action.nargs == "+" else 1
    chosen = random.choices(values, k=count)
    if not action.option_strings:
        return chosen
    name = random.choice(action.option_strings)
    return [f"{name}={chosen[0]}"] if random.random() < 0.5 else [name, *chosen]


@pytest.fixture
def folder(digits_pipeline: PipelineRun) -> Iterator[Path]:
    """Return the directory of a pipeline that ran, with pictures, and places that are no files."""
    from PIL import Image

    folder = digits_pipeline.folder
    (folder / "file.txt").write_text("text")
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    for name in ("photos/cat/1.png", "photos/dog/2.png", "photo.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28)).save(folder / name)
    with patch.dict(os.environ, GRADIO_ANALYTICS_ENABLED="False"):
        yield folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_options_are_one_line(name: str, folder: Path, digits_pipeline: PipelineRun) -> None:
    script = importlib.import_module(name)
    actions = read_actions(script)
    honest, count = SCRIPTS[name]
    base = [option.format(run_id=digits_pipeline.run_id) for option in honest]
    bugs = []
    accepted = 0
    for place in REPLACED:
        importlib.import_module(place.rpartition(".")[0])
    patches = [patch(place, side_effect=EnoughError("enough")) for place in REPLACED]
    for stop in patches:
        stop.start()
    try:
        for seed in range(count):
            random = Random(seed)
            arguments = list(base)
            for _ in range(random.choice((0, 1, 1, 1, 2, 3)) if seed else 0):  # the first case is an honest call
                option = choose_option(random, actions)
                arguments = [*option, *arguments] if random.random() < 0.3 else [*arguments, *option]
            case = f"{name} seed {seed}: {ascii(arguments)[:300]}"
            try:
                with as_bug_of(case):
                    result = call_main(script.main, *arguments, folder=folder)
            except AssertionError as error:
                bugs.append(str(error))
                continue
            accepted += result.code == 0 or "error: enough\n" in result.stderr
            if not is_harmless(result):
                bugs.append(f"{case}: {result.code} {result.stderr.strip().splitlines()[-1:]}")
            mlflow.end_run()
    finally:
        for stop in patches:
            stop.stop()
    print(f"{name}: {count} cases, {accepted} accepted, {len(bugs)} bugs")
    assert accepted
    assert not bugs, f"{len(bugs)} of {count} cases:\n" + "\n".join(bugs)
