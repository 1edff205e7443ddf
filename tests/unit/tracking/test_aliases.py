from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tracking import registry
from pipeline.tracking.aliases import require_alias
from support.stores import MODEL_NAME, delete_version_but_not_its_alias, register_version

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def champion_deleted(store: Path) -> None:
    """Let the alias champion point to version 1, which is deleted."""
    register_version()
    registry.set_alias(MODEL_NAME, "champion", 1)
    delete_version_but_not_its_alias(store, 1)


def test_alias_of_a_deleted_version_counts_as_unset(champion_deleted: None, caplog: pytest.LogCaptureFixture) -> None:
    assert registry.alias_version(MODEL_NAME) is None
    assert registry.get_champion(MODEL_NAME) is None
    assert caplog.messages == [
        "the alias champion of 'digits-classifier' points to version 1, which was deleted, so it counts as not set"
    ]


def test_deleted_version_is_named_in_one_line(champion_deleted: None, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"^nothing there: the alias .* version 1, which was deleted; choose another$"):
        require_alias(MODEL_NAME, "champion", "nothing there", "choose another")
    assert caplog.messages == []


def test_alias_of_a_deleted_version_can_be_moved(champion_deleted: None) -> None:
    register_version()
    registry.set_alias(MODEL_NAME, "champion", 2)
    registry.sync_stages(MODEL_NAME)
    assert registry.alias_version(MODEL_NAME) == 2


def test_missing_alias_has_no_version() -> None:
    register_version()
    assert registry.alias_version(MODEL_NAME) is None
    with pytest.raises(UserError, match=r"^nothing there; choose another$"):
        require_alias(MODEL_NAME, "champion", "nothing there", "choose another")


def test_alias_of_an_unknown_model_is_an_error() -> None:
    with pytest.raises(UserError, match="there is no registered model 'nobody'"):
        registry.alias_version("nobody")
