from pathlib import Path

import pytest

from pipeline.promotion import present as module
from pipeline.promotion.decisions import list_decisions
from pipeline.promotion.present import Present, read_history, read_present
from pipeline.tracking import registry, tags
from support.promotions import NAME, decide, register_version
from support.stores import delete_version_but_not_its_alias, move_alias

pytestmark = pytest.mark.usefixtures("three_promotions")
DIGEST = "d" * 64  # of the test set of every decision here


def read(candidate: int = 4) -> tuple[Present, int | None]:
    """Return what is in Production, and which version the candidate is compared with."""
    present = read_present(NAME, candidate)
    return present, int(present.reference.version) if present.reference else None


def test_decided_version_is_compared_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "list_decisions", None)  # nobody asks for it
    present, reference = read()
    assert (present.version, reference, present.notices, present.requires_reason) == (3, 3, (), None)
    assert (present.pinned_digest, present.standing) == (DIGEST, "in Production")


def test_decided_version_is_known_after_a_refusal() -> None:
    decide(4, passes=False)
    present, reference = read()
    assert (present.version, reference, present.notices) == (3, 3, ())


def test_removed_alias_does_not_skip_the_comparison() -> None:
    move_alias(None)
    present, reference = read()
    assert (present.version, reference, present.pinned_digest) == (None, 3, DIGEST)
    assert present.standing == "last in Production by a decision"
    (notice,) = present.notices
    assert notice.startswith("nothing is in Production: the alias champion was removed by hand")
    assert notice.endswith("; the candidate is compared with version 3")
    assert present.requires_reason is None


def test_deleted_champion_does_not_skip_the_comparison(store: Path) -> None:
    delete_version_but_not_its_alias(store, 3)
    present, reference = read()
    assert (present.version, reference, present.pinned_digest) == (None, 2, DIGEST)


def test_earlier_version_by_hand_is_compared_and_named() -> None:
    move_alias(1)
    present, reference = read()
    assert (present.version, reference, present.requires_reason) == (1, 1, None)
    assert present.notices == (
        "version 1 is in Production because somebody moved the alias champion by hand; as far as the decisions show, "
        "it was version 3 before",
    )


def test_undecided_version_by_hand_requires_a_reason() -> None:
    register_version()
    move_alias(4)
    present, reference = read(candidate=5)
    assert (present.version, reference, present.pinned_digest) == (4, 4, DIGEST)
    assert "version 4 was put in Production by hand" in str(present.requires_reason)
    assert f"python promote.py --model-name {NAME} --version 4" in str(present.requires_reason)


def test_undecided_version_is_not_compared_with_itself() -> None:
    move_alias(4)
    present, reference = read(candidate=4)
    assert (present.version, reference, present.requires_reason) == (4, 3, None)


def test_version_by_hand_that_passed_is_decided() -> None:
    move_alias(4)
    assert decide(4).kind == "unchanged"
    present, reference = read(candidate=1)
    assert (present.version, reference, present.notices, present.requires_reason) == (4, 4, (), None)


def test_person_who_decides_alone_is_named() -> None:
    for version in (1, 2, 3):
        for decision in list_decisions(NAME):
            if decision.version == version:
                tags.delete_version_tag(NAME, version, decision.tag)
    present, reference = read()
    assert (present.version, reference, present.decision, present.requires_reason) == (3, 3, None, None)
    assert "somebody moved the alias champion by hand" in present.notices[0]


def test_history_is_read_again_if_the_alias_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[object] = []

    def decide_meanwhile(name: str) -> list[object]:
        decisions = list_decisions(name)
        if not decided:
            decided.append(decide(4))
        return list(decisions)

    monkeypatch.setattr(module, "list_decisions", decide_meanwhile)
    assert [(period.version, period.is_by_hand) for period in read_history(NAME)][-1] == (4, False)
    assert registry.alias_version(NAME) == 4
