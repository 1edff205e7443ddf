"""Signed promotions, end to end on a small store: train, evaluate, promote with a key; who loads the model verifies."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from PIL import Image

import predict
import promote
from pipeline.data.datasets import load_test_split
from pipeline.errors import UserError
from pipeline.production.page import describe_model
from pipeline.production.service import ModelService
from pipeline.promotion.effects import SIGNATURE_TAG
from pipeline.promotion.signature import Signer, compute_fingerprint, sign_folder
from pipeline.tracking import registry
from support.pipelines import PipelineRun
from support.promotions import NAME, list_kinds
from support.scripts import Result, call_main
from support.signatures import KeyPair, create_key_pair, write_policy
from support.stores import read_aliases, register_once_more


@dataclass
class Signing:
    """The store in which version 1 is in Production, unsigned, and version 2 waits; and two keys."""

    folder: Path
    keys: KeyPair
    others: KeyPair
    picture: Path
    set_policy: Callable[[str], None]

    @property
    def signer(self) -> str:
        return f"key SHA-256 {compute_fingerprint(self.keys.public)[:12]}..."

    @property
    def other_signer(self) -> str:
        return f"key SHA-256 {compute_fingerprint(self.others.public)[:12]}..."

    def require_signature(self) -> None:
        self.set_policy("require_signature = true\nsigning_public_key = 'signing.pub'\n")

    def promote(self, version: int, *options: object) -> Result:
        return call_main(promote.main, "--model-name", NAME, "--version", version, *options)

    def promote_signed(self, version: int = 2) -> Result:
        return self.promote(version, "--signing-key", self.keys.private)

    def predict(self, *options: object) -> Result:
        return call_main(predict.main, self.picture, *options)


@pytest.fixture
def signing(digits_pipeline: PipelineRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signing:
    uri = f"sqlite:///{digits_pipeline.folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(digits_pipeline.folder)
    mlflow.set_tracking_uri(uri)
    register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
    picture = tmp_path / "digit.png"
    Image.fromarray(load_test_split("digits", Path()).images[0, 0].numpy()).save(picture)
    return Signing(
        folder=digits_pipeline.folder,
        keys=create_key_pair(tmp_path, "signing"),
        others=create_key_pair(tmp_path, "others"),
        picture=picture,
        set_policy=lambda text: write_policy(monkeypatch, tmp_path / "gates.toml", text),
    )


def find_signature(folder: Path) -> Path:
    """Return the only signature in the store."""
    (file,) = folder.rglob("model.sig")
    return file


# --- promote, then load ---------------------------------------------------------------------------------------------


def test_predict_says_who_signed(signing: Signing) -> None:
    signing.require_signature()
    promoted = signing.promote_signed()
    assert (promoted.code, promoted.json["signer"]) == (0, signing.signer)
    assert f"{NAME} version 2: signed by {signing.signer}" in promoted.stderr
    answer = signing.predict()
    assert (answer.code, answer.json["signer"], answer.json["model_version"]) == (0, signing.signer, 2)
    assert answer.json["model_sha256"] == promoted.json["candidate"]["model_sha256"]
    assert answer.stderr.splitlines()[0] == f"signed by {signing.signer}"


def test_unsigned_model_is_loaded_unless_required(signing: Signing) -> None:
    assert signing.predict().json["signer"] == ""
    signing.set_policy("signing_public_key = 'signing.pub'\n")
    answer = signing.predict()
    assert (answer.code, answer.json["signer"]) == (0, "")
    assert "signed by" not in answer.stderr


def test_signature_is_not_claimed_without_a_key_to_check(signing: Signing) -> None:
    signing.promote_signed()
    answer = signing.predict()
    assert answer.json["signer"] == ""
    assert "signed by" not in answer.stderr


def test_model_in_production_can_be_signed_later(signing: Signing) -> None:
    signing.require_signature()
    signed = signing.promote_signed(1)
    assert (signed.json["decision"], signed.json["signer"]) == ("unchanged", signing.signer)
    assert signing.predict().json["signer"] == signing.signer


def test_password_comes_from_the_environment(signing: Signing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted = create_key_pair(tmp_path, "encrypted", password="correct horse")
    assert "cannot sign with" in signing.promote(2, "--signing-key", encrypted.private).error
    monkeypatch.setenv("SIGNING_KEY_PASSWORD", "correct horse")
    assert signing.promote(2, "--signing-key", encrypted.private).code == 0


# --- refuse to sign --------------------------------------------------------------------------------------------------


def check_nothing_moved() -> None:
    assert read_aliases()["champion"] == 1
    assert list_kinds() == ["promoted"]
    assert SIGNATURE_TAG not in registry.get_version(NAME, 2).tags


def test_nothing_moves_if_signing_fails(signing: Signing) -> None:
    assert "cannot sign with absent.key (No such file" in signing.promote(2, "--signing-key", "absent.key").error
    check_nothing_moved()


def test_required_signature_is_asked_for(signing: Signing) -> None:
    signing.require_signature()
    assert "requires a signature; add --signing-key FILE or --sign-keyless" in signing.promote(2).error
    check_nothing_moved()


def test_key_that_would_be_refused_is_not_used(signing: Signing) -> None:
    signing.require_signature()
    error = signing.promote(2, "--signing-key", signing.others.private).error
    assert f"it is signed by {signing.other_signer}, and gates.toml names {signing.signer}" in error
    check_nothing_moved()


def test_keyless_signing_needs_github(signing: Signing) -> None:
    assert "works in a GitHub Actions job" in signing.promote(2, "--sign-keyless").error
    check_nothing_moved()


def test_missing_package_stops_a_signed_promotion(signing: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    assert "run: pip install -r requirements-signing.txt" in signing.promote_signed().error
    check_nothing_moved()


def test_refused_model_is_not_signed(signing: Signing) -> None:
    refused = signing.promote(2, "--signing-key", signing.keys.private, "--min-accuracy", 0.9999)
    assert (refused.code, refused.json["signer"]) == (1, "")
    assert list(signing.folder.rglob("model.sig")) == []


def test_dry_run_signs_nothing(signing: Signing) -> None:
    dry = signing.promote(2, "--signing-key", signing.keys.private, "--dry-run")
    assert (dry.code, dry.json["signer"]) == (0, "")
    check_nothing_moved()


# --- refuse to load --------------------------------------------------------------------------------------------------


def test_unsigned_model_is_refused(signing: Signing) -> None:
    signing.require_signature()
    error = signing.predict().error
    assert f"{NAME} version 1 is not signed, and gates.toml requires a signature; choose another" in error


def test_model_signed_by_another_key_is_refused(signing: Signing) -> None:
    signing.promote(2, "--signing-key", signing.others.private)
    signing.require_signature()
    error = signing.predict().error
    assert f"{NAME} version 2 is refused: it is signed by {signing.other_signer}" in error
    assert f"gates.toml names {signing.signer}" in error


def test_wrong_signature_is_refused_even_if_not_required(signing: Signing) -> None:
    signing.promote(2, "--signing-key", signing.others.private)
    signing.set_policy("signing_public_key = 'signing.pub'\n")
    assert f"{NAME} version 2 is refused: it is signed by" in signing.predict().error


def test_damaged_signature_is_refused(signing: Signing) -> None:
    signing.require_signature()
    signing.promote_signed()
    find_signature(signing.folder).write_text("{")
    assert f"{NAME} version 2 is refused: its signature is damaged" in signing.predict().error


def test_oversized_signature_is_refused(signing: Signing) -> None:
    signing.require_signature()
    signing.promote_signed()
    find_signature(signing.folder).write_bytes(b" " * 100_001)
    assert "model.sig of run" in signing.predict().error
    assert "has more than 100,000 bytes" in signing.predict().error


@pytest.mark.parametrize("run_id", ["0" * 32, "../../x", "\x1b[2J"])
def test_tag_that_names_no_run_is_refused(signing: Signing, run_id: str) -> None:
    signing.require_signature()
    MlflowClient().set_model_version_tag(NAME, "1", SIGNATURE_TAG, run_id)
    error = signing.predict().error
    assert f"{NAME} version 1 is refused: its " in error
    assert "\x1b" not in error


def test_signature_of_a_deleted_report_is_valid(signing: Signing) -> None:
    signing.require_signature()
    report = MlflowClient().get_run(signing.promote_signed().json["decision_run_id"])
    MlflowClient().delete_experiment(report.info.experiment_id)
    assert signing.predict().json["signer"] == signing.signer


def test_missing_signature_file_is_refused(signing: Signing) -> None:
    signing.require_signature()
    signing.promote_signed()
    find_signature(signing.folder).unlink()
    assert "has no file model.sig" in signing.predict().error


def test_signature_of_another_model_is_refused(signing: Signing, tmp_path: Path) -> None:
    signing.require_signature()
    signing.promote_signed()
    other = tmp_path / "other"
    other.mkdir()
    (other / "MLmodel").write_text("another model")
    find_signature(signing.folder).write_bytes(sign_folder(other, Signer(signing.keys.private)))
    assert "version 2 is refused: its signature does not fit its files" in signing.predict().error


def test_model_without_a_version_is_refused(signing: Signing, digits_pipeline: PipelineRun) -> None:
    signing.require_signature()
    error = signing.predict("--model-uri", digits_pipeline.model_uri).error
    assert f"{digits_pipeline.model_uri} is no version of a registered model" in error


def test_package_is_named_if_a_signature_needs_it(signing: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.promote_signed()
    monkeypatch.setitem(sys.modules, "model_signing", None)
    assert signing.predict().code == 0
    signing.require_signature()
    assert "run: pip install -r requirements-signing.txt" in signing.predict().error


# --- history, rollback, page -----------------------------------------------------------------------------------------


def test_history_says_who_signed(signing: Signing) -> None:
    signing.promote_signed()
    rows = call_main(promote.main, "--history", "--json").json["history"]
    assert [row["signer"] for row in rows] == ["", signing.signer]
    table = call_main(promote.main, "--history").stdout.splitlines()
    assert table[1].split()[-1] == "signer"
    assert table[-2].endswith("nobody")
    assert table[-1].endswith(signing.signer)


def test_history_warns_of_an_unsigned_champion(signing: Signing) -> None:
    signing.require_signature()
    history = call_main(promote.main, "--history")
    assert history.code == 0
    assert f"warning: what is in Production now would not be loaded: {NAME} version 1 is not signed" in history.stderr
    signing.promote_signed()
    assert call_main(promote.main, "--history").stderr == ""


def test_rollback_to_an_unsigned_version_is_refused(signing: Signing) -> None:
    signing.promote_signed()
    signing.require_signature()
    assert f"{NAME} version 1 is not signed" in call_main(promote.main, "--rollback", "--reason", "x").error
    assert read_aliases()["champion"] == 2


def test_rollback_to_a_signed_version_works(signing: Signing) -> None:
    signing.require_signature()
    signing.promote_signed(1)
    signing.promote_signed(2)
    assert call_main(promote.main, "--rollback", "--reason", "x").json["version"] == 1
    assert signing.predict().json["signer"] == signing.signer


def test_page_does_not_start_with_an_unsigned_model(signing: Signing) -> None:
    signing.require_signature()
    with pytest.raises(UserError, match="version 1 is not signed"):
        ModelService(None)


def test_page_keeps_the_signed_model(signing: Signing) -> None:
    signing.require_signature()
    signing.promote_signed(1)
    service = ModelService(None)
    assert describe_model(service, NAME) == (f"**{NAME}**, version 1, in Production, signed by {signing.signer}", "")
    registry.set_alias(NAME, registry.CHAMPION, 2)
    service.refresh(NAME)
    title, problem = describe_model(service, NAME)
    assert title == f"**{NAME}**, version 1, in Production, signed by {signing.signer}"
    assert f"{NAME} version 2 is not signed" in problem
    assert service.get(NAME).version == 1
