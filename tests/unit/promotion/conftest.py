"""What the tests of the evidence share."""

import os
import shutil
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import mlflow
import pytest

from pipeline.promotion.present import Present
from pipeline.tracking import loading
from support.evidence import FakeModels
from support.pipelines import build_once, copy_stores
from support.promotions import decide, register_version


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> FakeModels:
    """Let every version have a model."""
    fake = FakeModels()
    monkeypatch.setattr(loading, "read_model", fake.read_model)
    monkeypatch.setattr(loading, "load_model", fake.load_model)
    return fake


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no decision name a test set."""
    monkeypatch.setattr(Present, "pinned_digest", None)


@pytest.fixture
def three_promotions(store: Path, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the current store, with versions 1 to 4, of which 1, 2 and 3 were promoted in turn."""

    def build(folder: Path) -> None:
        shutil.copy(empty_store, folder / "mlflow.db")
        uri = f"sqlite:///{folder}/mlflow.db"
        with chdir(folder), patch.dict(os.environ, MLFLOW_TRACKING_URI=uri):
            mlflow.set_tracking_uri(uri)
            for _ in range(4):
                register_version()
            for version in (1, 2, 3):
                decide(version)

    source, _ = build_once(tmp_path_factory, "three_promotions", build)
    copy_stores(source, store)
    mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
    return store
