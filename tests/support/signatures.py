"""Keys to sign models with, made for a test."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pipeline.promotion import policy
from support.scripts import ROOT


@dataclass(frozen=True)
class KeyPair:
    """The PEM files of a private and a public key."""

    private: Path
    public: Path


def create_key_pair(folder: Path, name: str, password: str = "", curve: ec.EllipticCurve | None = None) -> KeyPair:
    """Write ``<name>.key`` and ``<name>.pub``."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    encryption: KeySerializationEncryption = NoEncryption()
    if password:
        encryption = BestAvailableEncryption(password.encode())
    pair = KeyPair(folder / f"{name}.key", folder / f"{name}.pub")
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair


def write_policy(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    """Let ``file`` be gates.toml: the repository's tables, with ``text`` above them."""
    repository = (ROOT / "gates.toml").read_text()
    tables = repository[repository.index("\n[") :]
    file.write_text(text + tables)
    monkeypatch.setattr(policy, "POLICY_FILE", file)


def change_bundle(bundle: bytes, path: str, value: Any) -> bytes:
    """Return the bundle with another value at ``path``, such as ``dsseEnvelope.payload``."""
    content = json.loads(bundle)
    *parents, key = path.split(".")
    part = content
    for parent in parents:
        part = part[parent]
    part[key] = value
    return json.dumps(content).encode()
