"""JSON in tags, which every account that may edit the model can write: it is read strictly, or skipped."""

import logging
from functools import lru_cache
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from pipeline.documents import parse_record
from pipeline.tracking.tags import MAX_TAG_LENGTH

logger = logging.getLogger(__name__)

MAX_NUMBER = 10**9
MAX_LINE_LENGTH = 250  # characters
T = TypeVar("T")

# Types of the fields.
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
NO_CONTROL_CHARACTERS = r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$"
Line = Annotated[str, Field(max_length=MAX_LINE_LENGTH, pattern=NO_CONTROL_CHARACTERS)]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def parse_tag(adapter: TypeAdapter[T], text: str) -> T:
    """Return what the tag says.

    Raises
    ------
    ValueError
        It is no such JSON; the message is one line.
    """
    if not text:
        raise ValueError("empty")
    if len(text) > MAX_TAG_LENGTH:
        raise ValueError(f"{len(text):,} characters")
    return parse_record(adapter, text)


def format_tag(adapter: TypeAdapter[T], value: T) -> str:
    """Return the value of the tag."""
    return adapter.dump_json(value).decode()


def format_line(text: str) -> str:
    """Return the text as a `Line`: what cannot be printed becomes a question mark, what is too long is cut."""
    characters = [character if character.isprintable() else "?" for character in text[:MAX_LINE_LENGTH]]
    return "".join(characters)


@lru_cache(maxsize=1000)  # a process that reads the tag again does not repeat the warning
def warn_unreadable(owner: str, tag: str, problem: str) -> None:
    """Warn that a tag of ``owner``, a model or a version, is skipped."""
    logger.warning("the tag %r of %s is not readable (%s), so it is skipped", tag, owner, problem)
