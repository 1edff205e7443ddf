"""Damaged data sets: each is read, or refused with a UserError."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.cleaning import label_issues
from pipeline.cleaning.checks import clean_images
from pipeline.cleaning.importers import find_images
from pipeline.cleaning.report import build_datasets, build_report, write_quarantine, write_report
from pipeline.data.datasets import load_splits, load_test_split
from pipeline.errors import UserError
from support.damaged_datasets import DAMAGES

CASES = 65  # of each kind


def train_and_test(folder: Path) -> None:
    load_splits(str(folder), Path("unused"))
    load_test_split(str(folder), Path("unused"))


def prepare(folder: Path) -> None:
    source = find_images(folder)
    cleaned = clean_images(source.images, drop_label_issues=False, progress=False)
    output = folder.with_name("output")
    output.mkdir()
    write_report(output, build_report(cleaned, source, *build_datasets(cleaned, "output")))
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
