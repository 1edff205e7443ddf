"""The one exception that means "the caller can fix this"."""


class UserError(Exception):
    """Something that the caller can fix: the text says what is wrong, where, and what to do.

    The scripts print it as one line, ``error: ...``, and exit with code 2. Every other exception is a bug of ours and
    keeps its traceback.
    """
