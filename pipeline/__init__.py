"""What the scripts in the root share: one small room for each job."""

import re


class UserError(Exception):
    """Something the caller can put right: the text says what is wrong, where, and what to do.

    The scripts print it as one line, ``error: ...``, and exit with code 2. Every other exception is a bug of ours and
    keeps its traceback.
    """


def without_credentials(text: str) -> str:
    """Return ``text`` with user and password taken out of every URL in it."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)
