"""Keeps secrets out of log lines, tags and files."""

import os
import re

SECRET_NAMES = re.compile("PASSWORD|TOKEN|SECRET|CREDENTIAL|API_KEY|ACCESS_KEY")
MIN_SECRET_LENGTH = 8  # characters; a shorter value would be replaced inside ordinary words
URL_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]*@")


def secret_values() -> dict[str, str]:
    """Return the environment variables whose names say that they hold a secret, if their value is long enough."""
    secrets = {}
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= MIN_SECRET_LENGTH:
            secrets[name] = value
    return secrets


def redact(text: str) -> str:
    """Return ``text`` without user and password in its URLs, and without the values of `secret_values`."""
    text = URL_CREDENTIALS.sub(r"\1", text)
    for value in secret_values().values():
        text = text.replace(value, "***")
    return text
