from types import SimpleNamespace

import pytest
from mlflow.exceptions import RestException

from pipeline.errors import UserError
from pipeline.promotion import rollback as module
from pipeline.promotion.decisions import list_decisions
from pipeline.promotion.rollback import RollbackTarget, choose_target
from pipeline.promotion.signature import UnverifiableError
from pipeline.tracking.registry import ModelReference
from support.promotions import MODEL_SHA256, NAME
from support.stores import move_alias

pytestmark = pytest.mark.usefixtures("three_promotions")


@pytest.fixture(autouse=True)
def errors(monkeypatch: pytest.MonkeyPatch) -> dict[int, Exception]:
    """Return what loading a version raises: nothing at first."""
    raised: dict[int, Exception] = {}

    def load(reference: ModelReference) -> object:
        assert reference.version is not None
        if reference.version in raised:
            raise raised[reference.version]
        return SimpleNamespace(stored=SimpleNamespace(sha256=MODEL_SHA256))

    monkeypatch.setattr(module, "load_verified_model", load)
    return raised


def choose(number: int | None = None) -> tuple[int | None, int | None]:
    """Return the version that a rollback restores, and the one that is in Production."""
    target = choose_target(NAME, number)
    return target.decision.version, target.present


@pytest.mark.parametrize(("present", "restored"), [(3, 2), (2, 1), (4, 3), (None, 3)])
def test_rollback_starts_from_the_alias(present: int | None, restored: int) -> None:
    move_alias(present)
    assert choose() == (restored, present)


@pytest.mark.parametrize("present", [1, 4, None])
def test_named_version_is_restored_after_a_move_by_hand(present: int | None) -> None:
    move_alias(present)
    assert choose(3) == (3, present)
    assert "by hand" in choose_target(NAME, 3).notices[0]


@pytest.mark.parametrize("present", [2, 3])
def test_present_version_is_not_restored(present: int) -> None:
    move_alias(present)
    with pytest.raises(UserError, match=f"version {present} of {NAME} is in Production already, so there is nothing"):
        choose(present)


@pytest.mark.parametrize("number", [4, 9])
def test_version_that_was_never_decided_is_not_restored(number: int) -> None:
    with pytest.raises(UserError, match=rf"version {number} was not in Production by a decision.*--version {number}"):
        choose(number)


def test_first_version_by_hand_names_the_later_ones() -> None:
    move_alias(1)
    with pytest.raises(UserError, match=r"no earlier version than 1 .* --to restores one of these: 2, 3"):
        choose()


def test_lost_model_is_passed_over_and_named(errors: dict[int, Exception]) -> None:
    errors[2] = UserError("its files are gone")
    target: RollbackTarget = choose_target(NAME, None)
    assert target.decision.version == 1
    assert target.notices == ("passed over: version 2 (its files are gone)",)


def test_every_lost_model_is_named(errors: dict[int, Exception]) -> None:
    errors[2], errors[1] = UserError("gone"), FileNotFoundError(2, "broken")
    with pytest.raises(
        UserError, match=r"no earlier version can be restored: version 2 \(gone\), version 1 \(.*broken"
    ):
        choose()


def test_lost_model_that_is_named_is_an_error(errors: dict[int, Exception]) -> None:
    errors[2] = UserError("its files are gone")
    with pytest.raises(UserError, match=r"^its files are gone$"):
        choose(2)


@pytest.mark.parametrize(
    "error",
    [
        UnverifiableError("no trust root"),
        RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"}),
    ],
)
def test_what_stops_every_version_passes_none_over(errors: dict[int, Exception], error: Exception) -> None:
    errors[2] = error
    with pytest.raises(type(error)):
        choose()


def test_choice_decides_nothing() -> None:
    choose()
    assert len(list_decisions(NAME)) == 3
