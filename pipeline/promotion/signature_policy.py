"""Whether a model has to be signed, and by whom: the keys of ``gates.toml`` that stand above its tables."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.documents import DamagedError, parse_toml, shorten_repr
from pipeline.errors import UserError
from pipeline.files import read_text
from pipeline.promotion import policy

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"

Text = Annotated[str, Field(min_length=1)]


class SignaturePolicy(BaseModel):
    """Which signatures are accepted. If neither a key nor an identity is named, signatures are not checked.

    Attributes
    ----------
    require_signature : a version without a valid signature is not loaded.
    signing_public_key : PEM file with the public key of those who may sign.
    signing_identity : of the GitHub Actions workflow that may sign, as its certificate says.
    signing_issuer : who vouches for that identity; GitHub Actions if it is left out.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    require_signature: bool = False
    signing_public_key: Text | None = None
    signing_identity: Text | None = None
    signing_issuer: Text = GITHUB_ISSUER

    @property
    def names_signer(self) -> bool:
        """Whether there is a key or an identity to check signatures with."""
        return self.signing_public_key is not None or self.signing_identity is not None


def read_signature_policy() -> SignaturePolicy:
    """Return the policy in ``gates.toml``; see `parse_signature_policy`."""
    return parse_signature_policy(read_text(policy.POLICY_FILE), policy.POLICY_FILE)


def parse_signature_policy(text: str, file: Path) -> SignaturePolicy:
    """Return the policy in the text of ``file``; the path of the public key is relative to the file.

    Raises
    ------
    UserError
        The text is not TOML; a key is unknown, in a table, or has a bad value; or signatures are required and nobody is
        named who may sign.
    """
    try:
        content = parse_toml(text)
    except DamagedError as error:
        raise UserError(f"{file.name} is not TOML: {error}; correct it and run again") from None
    _check_tables(content, file.name)
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    try:
        result = SignaturePolicy(**values)
    except ValidationError as error:
        raise UserError(f"{file.name}: {_describe_problem(error)}") from None
    _check_combination(result, values, file.name)
    if result.signing_public_key is None:
        return result
    return result.model_copy(update={"signing_public_key": str(file.parent / result.signing_public_key)})


def _check_tables(content: dict[str, Any], origin: str) -> None:
    """Refuse a key that stands below the header of a table: it would belong to that table, and nobody would see it."""
    for name, table in content.items():
        if not isinstance(table, dict):
            continue
        for key in SignaturePolicy.model_fields:
            if key == name or key in table:
                raise UserError(f"{origin} has {key} in the table [{name}]; move it above the first table")


def _check_combination(result: SignaturePolicy, values: dict[str, Any], origin: str) -> None:
    if result.require_signature and not result.names_signer:
        raise UserError(
            f"{origin} requires signatures but does not say whose; add signing_public_key or signing_identity"
        )
    if "signing_issuer" in values and result.signing_identity is None:
        raise UserError(f"{origin} has a signing_issuer but no signing_identity for it; add signing_identity")


def _describe_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"][:1])
    if problem["type"] == "extra_forbidden":
        return f"there is no key {key!r} outside the tables; the keys are {', '.join(SignaturePolicy.model_fields)}"
    expected = problem["msg"].removeprefix("Input ")
    return f"{key} = {shorten_repr(problem['input'])} {expected}; correct it and run again"
