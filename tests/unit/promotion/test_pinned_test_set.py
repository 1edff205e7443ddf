from pathlib import Path
from typing import Any

import pytest

from pipeline.data import datasets
from pipeline.errors import UserError
from pipeline.promotion.candidate_decision import CandidateDecision
from pipeline.promotion.evidence import evaluate_candidate
from pipeline.promotion.present import Present
from pipeline.tracking import registry
from support.evidence import build_test_split, register_evaluated_version
from support.promotions import NAME, decide, evaluate_pets

OTHER = "b" * 64
DIGEST = build_test_split(evaluate_pets(9, 10)).digest  # of ten pets
NEW_DIGEST = build_test_split(evaluate_pets(9, 12)).digest  # of twelve
RULES = "min_accuracy = 0.5\nconfidence = 'off'\nmin_test_images = 'off'\n"
POLICY_TEXT = f"[pets]\n{RULES}"

pytestmark = pytest.mark.usefixtures("store", "models")


@pytest.fixture(autouse=True)
def pins(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Return the digest that the decision in force about each version names: none at first."""
    digests: dict[int, str] = {}

    def find_digest(present: Present) -> str | None:
        return digests.get(present.decision.version or 0) if present.decision else None

    monkeypatch.setattr(Present, "pinned_digest", property(find_digest))
    return digests


def judge(version: int, policy_text: str = POLICY_TEXT, *, new_test_set: bool = False) -> CandidateDecision:
    return evaluate_candidate(
        registry.get_version(NAME, version),
        policy_text,
        min_accuracy=None,
        data_dir=Path("nowhere"),
        new_test_set=new_test_set,
    )


def promote_champion(store: Path, pins: dict[int, str], digest: str = DIGEST) -> int:
    """Put a version with ten test images in Production; the decision names this digest."""
    champion = register_evaluated_version(store, correct=10)
    decide(champion)
    pins[champion] = digest
    return champion


# --- which test set counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"dataset": "birds"}, {"dataset_digest": "0" * 64}])
def test_record_of_other_images_than_the_run_is_refused(store: Path, change: dict[str, Any]) -> None:
    version = register_evaluated_version(store, **change)
    with pytest.raises(UserError, match=r"was made on \w+ \(.*\), the run's test set is pets .*run: python evaluate"):
        judge(version, f"[pets]\n{RULES}\n[birds]\n{RULES}")


def test_data_of_ones_own_may_have_moved(store: Path) -> None:
    assert judge(register_evaluated_version(store, dataset="/elsewhere/pets")).dataset == "/elsewhere/pets"


def test_policy_pins_the_test_set(store: Path) -> None:
    version = register_evaluated_version(store)
    assert judge(version, f"{POLICY_TEXT}test_digest = '{DIGEST}'\n").kind == "promoted"
    with pytest.raises(
        UserError, match=rf"{DIGEST[:12]}\.\.\.\), and gates\.toml, table \[pets\], demands bbbbbbbbbbbb"
    ):
        judge(version, f"{POLICY_TEXT}test_digest = '{OTHER}'\n", new_test_set=True)


def test_other_test_set_than_the_champions_is_refused(store: Path, pins: dict[int, str]) -> None:
    promote_champion(store, pins)
    candidate = register_evaluated_version(store, images=12)
    with pytest.raises(UserError, match=rf"{NEW_DIGEST[:12]}.*{DIGEST[:12]}.*--new-test-set --reason"):
        judge(candidate)


def test_same_test_set_as_the_champions_passes(store: Path, pins: dict[int, str]) -> None:
    promote_champion(store, pins)
    decision = judge(register_evaluated_version(store, correct=10))
    assert (decision.kind, decision.notices) == ("promoted", ())


def test_pinned_test_set_may_be_older_than_the_run(store: Path, pins: dict[int, str]) -> None:
    candidate = register_evaluated_version(store, correct=10, run_digest=OTHER)
    with pytest.raises(UserError, match="the run's test set is pets"):
        judge(candidate)
    promote_champion(store, pins)
    assert judge(candidate).kind == "promoted"


# --- what is said ---------------------------------------------------------------------------------------------------


def test_champion_is_scored_on_a_new_test_set(
    store: Path, pins: dict[int, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: build_test_split(evaluate_pets(9, 12)))
    promote_champion(store, pins)
    decision = judge(register_evaluated_version(store, images=12), new_test_set=True)
    assert decision.notices[0].startswith(f"new test set: pets ({NEW_DIGEST[:12]}...); until now it was another one")
    assert decision.notices[0] in caplog.messages
    assert decision.as_dict()["notices"] == list(decision.notices)
    assert decision.champion is not None
    assert decision.champion.source == "evaluated anew: its record is of other data"
    assert len(decision.champion.require_evaluation().labels) == 12


def test_champion_is_scored_also_if_no_rule_compares(
    store: Path, pins: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: build_test_split(evaluate_pets(9, 12)))
    promote_champion(store, pins)
    decision = judge(
        register_evaluated_version(store, images=12), f"{POLICY_TEXT}regression = 'off'\n", new_test_set=True
    )
    assert decision.verdict.comparison is not None


def test_needless_option_is_said(store: Path, pins: dict[int, str]) -> None:
    promote_champion(store, pins)
    decision = judge(register_evaluated_version(store), new_test_set=True)
    assert decision.notices[0].startswith("--new-test-set has no effect")


@pytest.mark.parametrize(
    ("policy_text", "sentence"),
    [
        (POLICY_TEXT, "the table [pets] of gates.toml was chosen by the last part of /data/pets; pin its test set"),
        ("", "gates.toml has no table [pets], by the last part of /data/pets; pin its test set"),
    ],
)
def test_table_chosen_by_a_path_is_said(store: Path, policy_text: str, sentence: str) -> None:
    version = registry.get_version(NAME, register_evaluated_version(store, dataset="/data/pets"))
    (notice,) = evaluate_candidate(version, policy_text, min_accuracy=0.5, data_dir=store).notices
    assert notice == f'{sentence} there with test_digest = "{DIGEST}"'


def test_pinned_table_is_not_said(store: Path) -> None:
    assert judge(register_evaluated_version(store), f"{POLICY_TEXT}test_digest = '{DIGEST}'\n").notices == ()
