from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.promotion.policy import POLICY_FILE
from pipeline.promotion.signature_policy import (
    GITHUB_ISSUER,
    SignaturePolicy,
    parse_signature_policy,
    read_signature_policy,
)

FILE = Path("/project/gates.toml")
TABLES = "\n[mnist]\nmin_accuracy = 0.98\n"


def test_repository_requires_no_signature() -> None:
    policy = read_signature_policy()
    assert (policy.require_signature, policy.names_signer) == (False, False)


@pytest.mark.parametrize("key", SignaturePolicy.model_fields)
def test_each_key_is_explained(key: str) -> None:
    assert key in str(SignaturePolicy.__doc__)
    assert f"#   {key} " in POLICY_FILE.read_text()


def test_key_file_is_relative_to_the_policy() -> None:
    policy = parse_signature_policy("signing_public_key = 'keys/a.pub'" + TABLES, FILE)
    assert policy.signing_public_key == "/project/keys/a.pub"
    assert policy.names_signer


def test_identity_is_one_of_github() -> None:
    policy = parse_signature_policy("require_signature = true\nsigning_identity = 'https://x'" + TABLES, FILE)
    assert (policy.require_signature, policy.signing_identity) == (True, "https://x")
    assert policy.signing_issuer == GITHUB_ISSUER


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("require_signature = true", "requires signatures but does not say whose; add signing_public_key or"),
        ("require_signature = 'yes'", "require_signature = 'yes' should be a valid boolean"),
        ("require_signature = 1", "require_signature = 1 should be a valid boolean"),
        ("signing_public_key = ''", "signing_public_key = '' String should have at least 1 character"),
        ("signing_public_key = ['a']", "signing_public_key = .'a'. should be a valid string"),
        (
            "require_signatures = true",
            "no key 'require_signatures' outside the tables; the keys are require_signature,",
        ),
        ("signing_issuer = 'https://x'", "has a signing_issuer but no signing_identity"),
        ("[require_signature]", r"has require_signature in the table \[require_signature\]; move it"),
        ("[mnist]\nrequire_signature = true", r"has require_signature in the table \[mnist\]; move it above the first"),
        ("require_signature = ", "gates.toml is not TOML: .*; correct it"),
        ("a = " + "[" * 5000, "gates.toml is not TOML: .*; correct it"),
    ],
)
def test_bad_policy_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_signature_policy(text, FILE)
