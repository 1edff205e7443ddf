"""Sign a folder and verify it, with keys that are made here."""

import base64
import json
import socket
import sys
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.promotion.signature import (
    MAX_SIGNATURE_SIZE,
    InvalidSignatureError,
    Signer,
    compute_fingerprint,
    sign_folder,
    verify_folder,
)
from pipeline.promotion.signature_policy import SignaturePolicy
from support.signatures import KeyPair, change_bundle, create_key_pair


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no connection be made."""

    def refuse(*_: object) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that looks like a model."""
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "model.pt2").write_bytes(b"weights")
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return create_key_pair(tmp_path, "signing")


@pytest.fixture
def bundle(folder: Path, keys: KeyPair) -> bytes:
    return sign_folder(folder, Signer(keys.private))


@pytest.fixture
def policy(keys: KeyPair) -> SignaturePolicy:
    return SignaturePolicy(require_signature=True, signing_public_key=str(keys.public))


def refuse(folder: Path, bundle: bytes, policy: SignaturePolicy) -> str:
    """Return why the signature is refused: one line."""
    with pytest.raises(InvalidSignatureError) as caught:
        verify_folder(folder, bundle, policy)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- sign ------------------------------------------------------------------------------------------------------------


def test_signature_says_which_key(
    folder: Path, keys: KeyPair, bundle: bytes, policy: SignaturePolicy, capfd: pytest.CaptureFixture[str]
) -> None:
    fingerprint = compute_fingerprint(keys.public)
    assert verify_folder(folder, bundle, policy) == f"key SHA-256 {fingerprint[:12]}..."
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_longer_keys_sign(folder: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    keys = create_key_pair(tmp_path, "long", curve=curve)
    bundle = sign_folder(folder, Signer(keys.private))
    policy = SignaturePolicy(signing_public_key=str(keys.public))
    assert verify_folder(folder, bundle, policy).startswith("key SHA-256 ")


def test_encrypted_key_needs_its_password(folder: Path, tmp_path: Path) -> None:
    keys = create_key_pair(tmp_path, "encrypted", password="correct horse")
    assert sign_folder(folder, Signer(keys.private, "correct horse"))
    for password in (None, "another one"):
        with pytest.raises(UserError, match=r"cannot sign with .*encrypted\.key"):
            sign_folder(folder, Signer(keys.private, password))


def test_password_is_not_shown() -> None:
    assert "horse" not in repr(Signer(Path("a.key"), "correct horse"))


def test_signing_changes_no_file(folder: Path, bundle: bytes) -> None:
    assert sorted(path.name for path in folder.rglob("*")) == ["MLmodel", "data", "model.pt2"]


@pytest.mark.parametrize(
    "content", [None, b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_unusable_key_is_named(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "bad.key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot sign with .*bad\.key"):
        sign_folder(folder, Signer(file))


@pytest.mark.parametrize("name", ["rsa", "another curve"])
def test_key_of_another_kind_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    if name == "rsa":
        key: Any = rsa.generate_private_key(65537, 2048)
    else:
        key = ec.generate_private_key(ec.SECP256K1())
    file = tmp_path / "other.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UserError, match=r"cannot sign with .*other\.key"):
        sign_folder(folder, Signer(file))


def test_keyless_needs_a_job_of_github(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="works in a GitHub Actions job that has the permission 'id-token: write'"):
        sign_folder(folder, Signer(None))


def test_failure_of_github_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKFLOW_REF", "ada/demo/.github/workflows/x.yml@refs/heads/main")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/token")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "a secret text")
    with pytest.raises(UserError, match="cannot sign with the identity of this job") as caught:
        sign_folder(folder, Signer(None))
    assert "a secret text" not in str(caught.value)


# --- refuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLmodel", "data/model.pt2"])
def test_changed_byte_is_refused(folder: Path, bundle: bytes, policy: SignaturePolicy, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[3] ^= 1
    (folder / name).write_bytes(content)
    reason = f"another file than was signed: {name}"
    assert refuse(folder, bundle, policy) == f"its signature does not fit its files or is damaged ({reason})"


@pytest.mark.parametrize("name", ["data/code.py", ".gitignore", ".github/x"])
def test_added_file_is_refused(folder: Path, bundle: bytes, policy: SignaturePolicy, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("new")
    assert name in refuse(folder, bundle, policy)


def test_several_changed_files_are_named(folder: Path, bundle: bytes, policy: SignaturePolicy) -> None:
    for name in ("MLmodel", "data/model.pt2"):
        (folder / name).write_text("changed")
    assert "another file than was signed: MLmodel, data/model.pt2" in refuse(folder, bundle, policy)


def test_missing_file_is_refused(folder: Path, bundle: bytes, policy: SignaturePolicy) -> None:
    (folder / "MLmodel").unlink()
    assert "Missing files" in refuse(folder, bundle, policy)


def test_signature_that_leaves_out_files_is_refused(folder: Path, keys: KeyPair, policy: SignaturePolicy) -> None:
    """The owner of the key has signed, but not all: whatever is left out could be exchanged later."""
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["MLmodel"])
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private)
    config.set_hashing_config(hashing).sign(folder, folder.parent / "part.sig")
    bundle = (folder.parent / "part.sig").read_bytes()
    assert refuse(folder, bundle, policy) == "its signature leaves out MLmodel"


def test_signature_of_the_command_line_is_accepted(folder: Path, keys: KeyPair, policy: SignaturePolicy) -> None:
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private)
    config.sign(folder, folder.parent / "model.sig")
    assert verify_folder(folder, (folder.parent / "model.sig").read_bytes(), policy)


def test_other_key_is_named(folder: Path, tmp_path: Path, policy: SignaturePolicy, keys: KeyPair) -> None:
    other = create_key_pair(tmp_path, "other")
    message = refuse(folder, sign_folder(folder, Signer(other.private)), policy)
    names = [f"key SHA-256 {compute_fingerprint(pair.public)[:12]}..." for pair in (other, keys)]
    assert message == f"it is signed by {names[0]}, and gates.toml names {names[1]}"


def test_other_key_with_a_false_name_is_refused(
    folder: Path, tmp_path: Path, policy: SignaturePolicy, keys: KeyPair
) -> None:
    bundle = sign_folder(folder, Signer(create_key_pair(tmp_path, "other").private))
    renamed = change_bundle(bundle, "verificationMaterial.publicKey.hint", compute_fingerprint(keys.public))
    assert "does not fit its files or is damaged (InvalidSignature)" in refuse(folder, renamed, policy)


def test_signature_of_another_model_is_refused(
    folder: Path, tmp_path: Path, keys: KeyPair, policy: SignaturePolicy
) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "MLmodel").write_text("second")
    message = refuse(folder, sign_folder(tmp_path / "second", Signer(keys.private)), policy)
    assert "does not fit its files" in message


@pytest.mark.parametrize("value", [None, "", 3, [], {}, "a" * 64])
def test_key_without_a_proper_name_is_refused(
    folder: Path, bundle: bytes, policy: SignaturePolicy, value: object, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = change_bundle(bundle, "verificationMaterial.publicKey.hint", value)
    assert "it is signed by" in refuse(folder, changed, policy)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"verificationMaterial": 3}', b"[" * 50_000, b'{"a": ' * 15_000],
    ids=["empty", "cut", "list", "null", "no text", "number", "nested lists", "nested objects"],
)
def test_damaged_bundle_is_refused(folder: Path, policy: SignaturePolicy, content: bytes) -> None:
    assert refuse(folder, content, policy) == "its signature is damaged: it is no Sigstore bundle"


def test_oversized_bundle_is_refused(folder: Path, bundle: bytes, policy: SignaturePolicy) -> None:
    assert refuse(folder, bundle + b" " * MAX_SIGNATURE_SIZE, policy) == "its signature has more than 100,000 bytes"


@pytest.mark.parametrize("path", ["dsseEnvelope", "dsseEnvelope.payload", "dsseEnvelope.signatures", "mediaType"])
@pytest.mark.parametrize("value", [None, "", "AAAA", 3, [], [{}], {}])
def test_bundle_with_another_value_is_refused(
    folder: Path, bundle: bytes, policy: SignaturePolicy, path: str, value: object
) -> None:
    refuse(folder, change_bundle(bundle, path, value), policy)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_changed_bundle_is_refused_or_equal(
    folder: Path, bundle: bytes, policy: SignaturePolicy, position: int, byte: int
) -> None:
    content = bytearray(bundle)
    content[position % len(content)] = byte
    try:
        signer = verify_folder(folder, bytes(content), policy)
    except InvalidSignatureError:
        return
    assert signer == verify_folder(folder, bundle, policy)


def test_payload_for_a_folder_outside_is_refused(folder: Path, bundle: bytes, policy: SignaturePolicy) -> None:
    payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["name"] = "../../etc/passwd"
    forged = base64.b64encode(json.dumps(payload).encode()).decode()
    refuse(folder, change_bundle(bundle, "dsseEnvelope.payload", forged), policy)


# --- without a key ---------------------------------------------------------------------------------------------------


def test_key_is_not_accepted_for_an_identity(folder: Path, bundle: bytes) -> None:
    message = refuse(folder, bundle, SignaturePolicy(signing_identity="https://github.com/ada/demo"))
    assert "and gates.toml names no signing_public_key" in message


def test_identity_is_not_accepted_for_a_key(folder: Path, bundle: bytes, policy: SignaturePolicy) -> None:
    keyless = change_bundle(bundle, "verificationMaterial", {"certificate": {"rawBytes": "AAAA"}})
    assert refuse(folder, keyless, policy) == "it is signed without a key, and gates.toml names no signing_identity"


def test_unreachable_sigstore_is_one_line(
    folder: Path, bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # no trust root of an earlier day
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keyless = change_bundle(bundle, "verificationMaterial", {"certificate": {"rawBytes": "AAAA"}})
    with pytest.raises(UserError, match="cannot get Sigstore's trust root") as caught:
        verify_folder(folder, keyless, SignaturePolicy(signing_identity="https://github.com/ada/demo"))
    assert not isinstance(caught.value, InvalidSignatureError)
    assert capfd.readouterr() == ("", "")


# --- what has to be there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"no key"])
def test_unusable_public_key_is_named(folder: Path, bundle: bytes, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "absent.pub"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot use .*absent\.pub, the signing_public_key of gates\.toml"):
        verify_folder(folder, bundle, SignaturePolicy(signing_public_key=str(file)))


def test_missing_package_is_named(
    folder: Path, bundle: bytes, policy: SignaturePolicy, keys: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for call in (lambda: verify_folder(folder, bundle, policy), lambda: sign_folder(folder, Signer(keys.private))):
        with pytest.raises(UserError, match=r"run: pip install -r requirements-signing\.txt"):
            call()
