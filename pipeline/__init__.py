"""What the scripts in the root share: one small room for each job."""

import os
import re


class UserError(Exception):
    """Something the caller can put right: the text says what is wrong, where, and what to do.

    The scripts print it as one line, ``error: ...``, and exit with code 2. Every other exception is a bug of ours and
    keeps its traceback.
    """


def secrets() -> dict[str, str]:
    """Return the environment variables whose names say that they hold a secret, where they hold enough to be one."""
    named = re.compile("PASSWORD|TOKEN|SECRET|CREDENTIAL|API_KEY|ACCESS_KEY")
    return {name: value for name, value in os.environ.items() if named.search(name) and len(value) >= 8}


def without_credentials(text: str) -> str:
    """Return ``text`` without user and password in its URLs, and without the values of `secrets`."""
    text = re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)
    for value in secrets().values():
        text = text.replace(value, "***")
    return text
