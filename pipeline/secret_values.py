"""The secrets of this process: values of variables in the environment and in the .env files, in all their forms."""

import base64
import html
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

from pipeline.secret_patterns import QUERY_SECRET
from pipeline.text import escape_markdown

ROOT = Path(__file__).parent.parent
ENV_FILES = (ROOT / ".env", ROOT / "deploy" / ".env")
SECRET_ANYWHERE = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|CREDENTIAL|APIKEY|API_KEY|ACCESS_KEY|PRIVATE_KEY"
)
SECRET_ENDS = re.compile(
    r"(?:^|[_.-])(?:PWD|PASS|PAT|AUTH|KEY|KEYS|DSN|SAS|COOKIE|JWT|SIGNATURE|CONNECTION_STRING)$|PWD$"
)
NOT_SECRET = re.compile(r"^(?:OLD)?PWD$|_(?:FILE|PATH|DIR|SOCK|USERNAME|USER|NAME|TTL|EXPIRES?|EXPIRATION)$")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://")
MIN_LENGTH = 4  # characters; a shorter value cannot be told from an ordinary word
MIN_DIGITS = 8  # of a value of digits alone: a shorter one is a number like any other
MIN_SUBSTRING = 8  # characters; a shorter value is replaced only where it stands alone, not inside a word
MIN_WORD_SUBSTRING = 16  # the same for a value of letters alone, or of digits alone
MIN_BASE64 = 6  # characters; what base64 makes of a shorter value could be a part of anything
# Values that everybody knows are no secret, and the pipeline itself writes these words.
PUBLIC_WORDS = frozenset(
    (
        *("accuracy", "admin", "checkpoint", "checkpoints", "cifar10", "classifier", "default", "demo", "digits"),
        *("emnist-balanced", "emnist-letters", "epochs", "error", "evaluation", "experiment", "false", "fashion"),
        *("fashion-mnist", "file", "finished", "http", "https", "kmnist", "local", "localhost", "lock", "loss", "main"),
        *("mlflow", "mlruns", "mnist", "model", "models", "mysql", "none", "null", "password", "postgres"),
        *("postgresql", "production", "python", "pytorch", "pytorch-demo", "pytorch_demo", "root", "sqlite"),
        *("staging", "store", "test", "token", "train", "training", "true", "user", "validation", "version", "warning"),
    )
)


def secret_values() -> dict[str, str]:
    """Return the secrets of the environment and of the files `ENV_FILES`, by the name of the variable.

    A variable holds a secret if its name says so, such as ``MYSQL_PWD`` or ``GITHUB_PAT``, in any case. Of a variable
    that holds an address, the secret is the password in it. Values that are too short, or are known words, are left
    out: see `MIN_LENGTH` and `PUBLIC_WORDS`.
    """
    stamps = []
    for file in ENV_FILES:
        try:
            stat = file.stat()
            stamps.append((str(file), stat.st_mtime_ns, stat.st_size))
        except OSError:
            continue
    return dict(_find_secrets(tuple(sorted(os.environ.items())), tuple(stamps)))


@lru_cache(maxsize=4)
def compile_values(values: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return an expression that finds each of the values, in all its forms; None if there is no value.

    The longest form comes first: a value may begin with another one.
    """
    anywhere: set[str] = set()
    alone: set[str] = set()
    for value in values:
        is_word = value.isalnum() and (value.isalpha() or value.isdigit())
        is_short = len(value) < (MIN_WORD_SUBSTRING if is_word else MIN_SUBSTRING)
        (alone if is_short else anywhere).update(_iterate_forms(value))
        if len(value) >= MIN_BASE64:
            anywhere.update(_iterate_base64(value.encode(errors="surrogateescape")))
    forms = sorted(anywhere | alone, key=lambda form: (-len(form), form))
    if not forms:
        return None
    parts = [re.escape(form) if form in anywhere else rf"(?<!\w){re.escape(form)}(?!\w)" for form in forms]
    return re.compile("|".join(parts))


@lru_cache(maxsize=4)
def _find_secrets(
    environment: tuple[tuple[str, str], ...], stamps: tuple[tuple[str, int, int], ...]
) -> Mapping[str, str]:
    secrets: dict[str, str] = {}
    variables = list(environment)
    for file, _, _ in stamps:
        variables += _read_env_file(Path(file))
    for name, value in variables:
        for secret in _find_in_variable(name, value):
            if _is_distinct(secret) and secret not in secrets.values():
                key = name
                while key in secrets:
                    key += "'"
                secrets[key] = secret
    return secrets


def _read_env_file(file: Path) -> list[tuple[str, str]]:
    from dotenv import dotenv_values

    try:
        return [(name, value) for name, value in dotenv_values(file).items() if value]
    except (OSError, ValueError):  # not readable for us, so not readable for the pipeline
        return []


def _find_in_variable(name: str, value: str) -> Iterator[str]:
    """Yield the secrets in the variable: its value if its name says so, and the passwords of addresses."""
    upper = name.upper()
    has_name = SECRET_ANYWHERE.search(upper) or SECRET_ENDS.search(upper)
    is_path = value.startswith("/") and os.path.lexists(value)
    if has_name and not NOT_SECRET.search(upper) and not is_path:
        yield value
        yield value.strip()
    if not ADDRESS.match(value) and not upper.endswith(("_URI", "_URL")):
        return
    location = value.partition("://")[2] or value
    user, colon, password = location.rpartition("@")[0].partition(":")
    if colon:
        yield from _with_decoded(password)
    elif "/" not in user:
        yield from _with_decoded(user)
    for match in QUERY_SECRET.finditer(value):
        yield from _with_decoded(match["secret"])


def _with_decoded(text: str) -> Iterator[str]:
    yield text
    yield unquote(text)


def _is_distinct(value: str) -> bool:
    """Return whether the value can be told from the words and numbers of ordinary text."""
    if value.isdigit():
        return len(value) >= MIN_DIGITS
    return len(value) >= MIN_LENGTH and value.lower() not in PUBLIC_WORDS


def _iterate_forms(value: str) -> Iterator[str]:
    """Yield the value as texts of other formats hold it: addresses, JSON, shell, HTML, base64, one line of several."""
    yield value
    for encoded in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield encoded
        yield re.sub("%..", lambda match: match[0].lower(), encoded)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield value.encode("unicode_escape").decode()
    yield shlex.quote(value).removeprefix("'").removesuffix("'")
    yield html.escape(value)
    yield escape_markdown(value)
    yield " ".join(value.split())
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= MIN_SUBSTRING)


def _iterate_base64(content: bytes) -> Iterator[str]:
    """Yield what base64 makes of the bytes, also as the end of something longer, such as ``user:password``."""
    for offset in range(3):
        padded = base64.b64encode(b"\0" * offset + content).decode()
        start = (0, 2, 3)[offset]  # characters that depend on what stands before
        remainder = (offset + len(content)) % 3
        end = len(padded) - (0, 3, 2)[remainder]  # and on what comes after
        part = padded[start:end]
        yield part
        yield part.replace("+", "-").replace("/", "_")
