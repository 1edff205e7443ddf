"""What the tests of the evidence share."""

import pytest

from pipeline.promotion import decisions
from pipeline.tracking import loading
from support.evidence import FakeModels


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
    monkeypatch.setattr(decisions, "find_decision_in_force", lambda _: None)
