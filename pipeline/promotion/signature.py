"""Signatures of models: ``promote.py`` signs what the gate let through, and who loads a version verifies it.

A signature is a Sigstore bundle over all files of the model's folder, as OpenSSF's model-signing writes it:
https://github.com/sigstore/model-transparency. The package is an extra, imported if a model is signed or verified.
"""

import base64
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents import DamagedError, parse_json
from pipeline.errors import UserError
from pipeline.promotion.effects import SIGNATURE_TAG
from pipeline.promotion.report_run import SIGNATURE_FILE
from pipeline.promotion.signature_policy import SignaturePolicy, read_signature_policy
from pipeline.redact import redact
from pipeline.tracking import artifacts, loading, registry
from pipeline.tracking.loading import OpenModel, StoredModel
from pipeline.tracking.registry import ModelReference

if TYPE_CHECKING:
    from model_signing import hashing

    from pipeline.promotion.candidate_decision import CandidateDecision

RUN_ID = re.compile("[0-9a-f]{32}")
MAX_SIGNATURE_SIZE = 100_000  # bytes; a signature has some 3 kB with a key, some 10 kB without
PASSWORD_VARIABLE = "SIGNING_KEY_PASSWORD"  # noqa: S105 - the name of the variable
TOKEN_VARIABLES = ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GITHUB_WORKFLOW_REF")
HASH_MISMATCH = re.compile(r"Hash mismatch for \\?'(.+?)\\?':")
MAX_MESSAGE_LENGTH = 300  # characters
ADVICE = "choose another version, or promote it again with --signing-key or --sign-keyless"


class InvalidSignatureError(UserError):
    """A signature is damaged, by somebody else, or over other files."""


class UnverifiableError(UserError):
    """No signature can be verified here: the package, the public key or Sigstore's trust root is missing."""


@dataclass(frozen=True)
class Signer:
    """What signs: a private key, or the identity of this GitHub Actions job.

    Attributes
    ----------
    key_file : PEM file with a private EC key; None for the identity of the job.
    password : of the file, if it is encrypted.
    """

    key_file: Path | None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Signature:
    """A signature and who signed. An unsigned model has None and an empty text."""

    bundle: bytes | None
    signer: str


UNSIGNED = Signature(None, "")


@dataclass(frozen=True)
class VerifiedModel:
    """A loaded model, and who signed it; empty if nobody did, or if ``gates.toml`` names nobody who may sign."""

    stored: StoredModel
    signer: str


# --- sign ------------------------------------------------------------------------------------------------------------


def sign_candidate(decision: "CandidateDecision", signer: Signer | None) -> Signature:
    """Return the signature of the model that the decision lets through; `UNSIGNED` if it was refused.

    Raises
    ------
    UserError
        Signing fails, ``gates.toml`` requires a signature and there is no signer, or it would refuse this one.
    """
    if not decision.verdict.passed:
        return UNSIGNED
    policy = read_signature_policy()
    if signer is None:
        if policy.require_signature:
            raise UserError("gates.toml requires a signature; add --signing-key FILE or --sign-keyless")
        return UNSIGNED
    name, version = decision.model_name, decision.candidate.version
    with loading.open_model(registry.reference_version(name, version)) as opened:
        if opened.sha256 != decision.candidate.model_sha256:
            raise UserError(
                f"{name} version {version} has changed since it was judged (SHA-256 {opened.sha256}, judged: "
                f"{decision.candidate.model_sha256}), so it is not signed; run promote.py again"
            )
        bundle = sign_folder(opened.folder, signer)
        try:
            return Signature(bundle, _check_own_signature(opened.folder, bundle, signer, policy))
        except InvalidSignatureError as error:
            raise UserError(f"this signature would be refused: {error}; sign as gates.toml says") from None


def sign_folder(folder: Path, signer: Signer) -> bytes:
    """Return the signature over all files in ``folder``, a Sigstore bundle in JSON.

    Raises
    ------
    UserError
        The key cannot be used, or Sigstore or GitHub does not answer.
    """
    _check_package()
    from model_signing import signing

    problem = f"cannot sign with {signer.key_file or 'the identity of this job'}"
    with tempfile.TemporaryDirectory() as directory, _explain_failure(UserError, problem):
        config = signing.Config().set_hashing_config(_hash_every_file())
        if signer.key_file:
            password = signer.password.encode() if signer.password else None
            # its annotation says str, but the function that it calls takes bytes
            config.use_elliptic_key_signer(private_key=signer.key_file, password=password)  # type: ignore[arg-type]
        else:
            config.use_sigstore_signer(identity_token=_request_token())
        file = Path(directory, SIGNATURE_FILE)
        config.sign(folder, file)
        return file.read_bytes()


def _request_token() -> str:
    """Return GitHub's token for this job. Without one, the library would open a browser."""
    from sigstore import oidc

    absent = [name for name in TOKEN_VARIABLES if not os.environ.get(name)]
    token = None if absent else oidc.detect_credential()
    if not token:
        raise UserError(
            "--sign-keyless works in a GitHub Actions job that has the permission 'id-token: write'; "
            "elsewhere use --signing-key FILE"
        )
    return token


def _check_own_signature(folder: Path, bundle: bytes, signer: Signer, policy: SignaturePolicy) -> str:
    """Verify what was just signed, as whoever loads the model will; return who signed."""
    if policy.names_signer:
        return verify_folder(folder, bundle, policy)
    if signer.key_file:
        return _name_key(_read_hint(_parse_bundle(bundle)))
    identity = f"https://github.com/{os.environ['GITHUB_WORKFLOW_REF']}"
    return verify_folder(folder, bundle, SignaturePolicy(signing_identity=identity))


# --- verify ----------------------------------------------------------------------------------------------------------


def load_verified_model(reference: ModelReference) -> VerifiedModel:
    """Return the model, loaded, and who signed it.

    Raises
    ------
    UserError
        As `pipeline.tracking.loading.open_model` does; or ``gates.toml`` requires a signature and there is none; or it
        names who may sign, and the signature is not valid.
    """
    policy = read_signature_policy()
    with loading.open_model(reference) as opened:
        signer = _verify_model(opened, policy)
        return VerifiedModel(opened.load(), signer)


def verify_version(name: str, version: int) -> str:
    """Return who signed the version, without loading it; raise what `load_verified_model` raises."""
    policy = read_signature_policy()
    with loading.open_model(registry.reference_version(name, version)) as opened:
        return _verify_model(opened, policy)


def _verify_model(opened: OpenModel, policy: SignaturePolicy) -> str:
    if not policy.names_signer:
        return ""
    reference = opened.reference
    if reference.name is None or reference.version is None:
        if policy.require_signature:
            raise UserError(
                f"{reference.uri} is no version of a registered model, so nobody signed it, and gates.toml requires a "
                "signature; choose a version"
            )
        return ""
    subject = f"{reference.name} version {reference.version}"
    run_id = registry.get_version(reference.name, reference.version).tags.get(SIGNATURE_TAG)
    if not run_id:
        if policy.require_signature:
            raise UserError(f"{subject} is not signed, and gates.toml requires a signature; {ADVICE}")
        return ""
    try:
        return verify_folder(opened.folder, _read_signature(run_id), policy)
    except InvalidSignatureError as error:
        raise UserError(f"{subject} is refused: {error}; {ADVICE}") from None


def _read_signature(run_id: str) -> bytes:
    if not RUN_ID.fullmatch(run_id):
        raise InvalidSignatureError(f"its tag {SIGNATURE_TAG} names no run")
    try:
        return artifacts.read_artifact(run_id, SIGNATURE_FILE, MAX_SIGNATURE_SIZE)
    except UserError as error:
        raise InvalidSignatureError(f"its signature is not readable: {error}") from None


def verify_folder(folder: Path, bundle: bytes, policy: SignaturePolicy) -> str:
    """Return who signed the files in ``folder``: ``key SHA-256 ab12...``, or an identity.

    A signature with a key is verified without a network. For one without, Sigstore's trust root is fetched.

    Raises
    ------
    InvalidSignatureError
        The signature is damaged, by none whom the policy names, or over other files than all of the folder.
    UnverifiableError
        The public key cannot be read, Sigstore's trust root cannot be fetched, or the package is not installed.
    """
    _check_package()
    from model_signing import verifying

    content = _parse_bundle(bundle)
    config = verifying.Config().set_hashing_config(_hash_every_file())
    if "publicKey" in content["verificationMaterial"]:
        signer = _use_key(config, content, policy)
    else:
        signer = _use_identity(config, policy)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, SIGNATURE_FILE)
        file.write_text(json.dumps(content))  # as it was read here: others may read a damaged text otherwise
        with _explain_failure(InvalidSignatureError, "its signature does not fit its files or is damaged"):
            config.verify(folder, file)
    _check_coverage(folder, content)
    return signer


def _parse_bundle(bundle: bytes) -> dict[str, Any]:
    """Return the content of the bundle, of which it is known that it has verification material."""
    if len(bundle) > MAX_SIGNATURE_SIZE:
        raise InvalidSignatureError(f"its signature has more than {MAX_SIGNATURE_SIZE:,} bytes")
    try:
        content = parse_json(bundle)
    except DamagedError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("verificationMaterial"), dict):
        raise InvalidSignatureError("its signature is damaged: it is no Sigstore bundle")
    return content


def _use_key(config: Any, content: dict[str, Any], policy: SignaturePolicy) -> str:
    hint = _read_hint(content)
    if policy.signing_public_key is None:
        raise InvalidSignatureError(f"it is signed by {_name_key(hint)}, and gates.toml names no signing_public_key")
    problem = f"cannot use {policy.signing_public_key}, the signing_public_key of gates.toml"
    with _explain_failure(UnverifiableError, problem):
        expected = compute_fingerprint(Path(policy.signing_public_key))
        config.use_elliptic_key_verifier(public_key=policy.signing_public_key)
    if hint != expected:
        raise InvalidSignatureError(f"it is signed by {_name_key(hint)}, and gates.toml names {_name_key(expected)}")
    return _name_key(expected)


def _use_identity(config: Any, policy: SignaturePolicy) -> str:
    if policy.signing_identity is None:
        raise InvalidSignatureError("it is signed without a key, and gates.toml names no signing_identity")
    problem = "cannot get Sigstore's trust root, which verifies signatures without a key"
    with _explain_failure(UnverifiableError, problem):
        config.use_sigstore_verifier(identity=policy.signing_identity, oidc_issuer=policy.signing_issuer)
    return policy.signing_identity


def _read_hint(content: dict[str, Any]) -> str:
    """Return which key a bundle says that it is signed with; empty if it does not say it as model-signing does."""
    key = content["verificationMaterial"].get("publicKey")
    hint = key.get("hint") if isinstance(key, dict) else None
    return hint if isinstance(hint, str) and re.fullmatch(r"[0-9a-f]{64}", hint) else ""


def _name_key(fingerprint: str) -> str:
    return f"key SHA-256 {fingerprint[:12]}..." if fingerprint else "an unknown key"


def compute_fingerprint(public_key_file: Path) -> str:
    """Return the SHA-256 of a public key as PEM, in hexadecimal: ``openssl pkey -pubin -in FILE | sha256sum``."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    key = load_pem_public_key(public_key_file.read_bytes())
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _check_coverage(folder: Path, content: dict[str, Any]) -> None:
    """Check that every file is signed: a signature may say which files it leaves out. It has been verified before."""
    with _explain_failure(InvalidSignatureError, "its signature is of another kind"):
        statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"], validate=True))
        signed = {resource["name"] for resource in statement["predicate"]["resources"]}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if files - signed:
        raise InvalidSignatureError(f"its signature leaves out {', '.join(sorted(files - signed))}")


# --- the package -----------------------------------------------------------------------------------------------------


def _check_package() -> None:
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise UnverifiableError(
            f"signatures need packages that are not installed ({error}); run: pip install -r requirements-signing.txt"
        ) from None
    for name in ("sigstore", "tuf"):  # what they warn of is in the error
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _hash_every_file() -> "hashing.Config":
    """Return how files are hashed: by default, the library leaves out those of Git."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


@contextmanager
def _explain_failure(error_class: type[UserError], problem: str) -> Iterator[None]:
    """Turn what the library raises into one line: on a bundle that anybody may have written, that can be anything."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise error_class(f"{problem} ({_describe_error(error)})") from None


def _describe_error(error: Exception) -> str:
    text = redact(str(error.strerror if isinstance(error, OSError) else error))
    changed_files = HASH_MISMATCH.findall(text)  # the digests beside the names would fill lines
    if changed_files:
        return f"another file than was signed: {', '.join(changed_files)}"
    lines = text.splitlines()
    return lines[0][:MAX_MESSAGE_LENGTH] if lines else type(error).__name__
