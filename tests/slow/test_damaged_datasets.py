"""Damaged data sets: each is read, or refused with a UserError."""

import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.cleaning import label_issues
from pipeline.cleaning.checks import clean_images
from pipeline.cleaning.form_choice import FormOptions, choose_form
from pipeline.cleaning.importers import find_images
from pipeline.cleaning.report import build_dataset, build_report, write_quarantine, write_report
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.data.prepared import choose_splits, read_prepared_splits, save_splits
from pipeline.errors import UserError
from support.damaged_datasets import DAMAGES

CASES = 65  # of each kind


def train_and_test(folder: Path) -> None:
    load_splits(str(folder), Path("unused"))
    load_test_split(str(folder), Path("unused"))


def prepare(folder: Path) -> None:
    source = find_images(folder)
    choice = choose_form(source.images, FormOptions())
    output = folder.with_name("output")
    output.mkdir()
    with tempfile.TemporaryFile() as scratch:
        cleaned = clean_images(source.images, choice.form, scratch, drop_label_issues=False, progress=False)
        indices = choose_splits(cleaned.labels, cleaned.is_test, len(cleaned.classes))
        save_splits(output, build_dataset(cleaned, "output"), indices)
        splits = read_prepared_splits(str(output))
        write_report(output, build_report(cleaned, source, choice.reason, splits))
        write_quarantine(output, cleaned)


@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_set_is_read_or_refused(
    damage: Callable[[Path, random.Random], None], seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])
    folder = tmp_path / "own"
    damage(folder, random.Random(seed))
    for read in (train_and_test, prepare):
        with suppress(UserError):
            read(folder)
