"""Which names a store can keep, and the folder of experiments on a server that has folders.

Some stores take more than others. The lengths are those of MLflow's columns on MySQL and PostgreSQL; SQLite does not
check them.
"""

import os
import uuid
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.redact import redact
from pipeline.text import printable

MAX_SHOWN_LENGTH = 60  # characters of a name in a message
MAX_LISTED = 10  # names in a message
# The reports about a model are in an experiment that is named after it; see pipeline.promotion.report_run.
LONGEST_ENDING = len(f"-promotions-{uuid.UUID(int=0).hex}")


@dataclass(frozen=True)
class NameRule:
    """What a name has to be.

    Attributes
    ----------
    kind : what it names.
    max_length : in characters.
    forbidden : characters that mean something else where the name is used.
    """

    kind: str
    max_length: int
    forbidden: str = ""


EXPERIMENT = NameRule("an experiment", 256)
RUN = NameRule("a run", 250)
# In an address, models:/<name>/<version>, these characters end the name, or begin another thing. In a search, ' does.
MODEL = NameRule("a registered model", EXPERIMENT.max_length - LONGEST_ENDING, "/:@%'?#")


def check_name(name: str, rule: NameRule) -> str:
    """Return ``name``.

    Raises
    ------
    UserError
        It is too long, it has a blank at an end, or a character that is invisible or forbidden; the text says which.
    """
    if len(name) > rule.max_length:
        raise _refusal(name, rule, f"it has {len(name)} characters", f"use at most {rule.max_length}")
    for index, character in enumerate(name, start=1):
        if character in rule.forbidden:
            forbidden = " ".join(rule.forbidden)
            raise _refusal(name, rule, f"its character {index} is {character!r}", f"leave out {forbidden}")
        if printable(character) != character:
            raise _refusal(name, rule, f"its character {index} is {character!a}", "use visible characters")
    if name != name.strip():
        raise _refusal(name, rule, "it has a blank at an end", "leave it out")
    if not name:
        raise _refusal(name, rule, "it is empty", "choose one")
    return name


def _refusal(name: str, rule: NameRule, problem: str, advice: str) -> UserError:
    return UserError(f"{shorten_name(name)} cannot name {rule.kind}: {problem}; {advice}")


def locate_experiment(name: str) -> str:
    """Return the name of the experiment in its folder, the variable EXPERIMENT_DIR. A path stays as it is.

    On Databricks an experiment is named by a path, such as ``/Shared/pytorch-demo``.

    Raises
    ------
    UserError
        EXPERIMENT_DIR is no absolute path.
    """
    folder = os.environ.get("EXPERIMENT_DIR", "")
    if not folder or name.startswith("/"):
        return name
    if not folder.startswith("/"):
        raise UserError(f"the variable EXPERIMENT_DIR is {shorten_name(folder)}; give it a path such as /Shared")
    return f"{folder.rstrip('/')}/{name}"


def explain_relative_name(name: str) -> UserError:
    """Return the error for an experiment that the store refuses because its name is no path."""
    return UserError(
        f"this store takes only absolute paths for names of experiments, and {shorten_name(name)} is none; set "
        "EXPERIMENT_DIR to a folder such as /Shared in the environment or in .env"
    )


def shorten_name(name: str) -> str:
    """Return the name in quotes for a message; of a long one only the beginning."""
    text = redact(name)  # first: a secret that is cut is not recognised
    return repr(text) if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]!r}..."


def format_names(names: list[str]) -> str:
    """Return the names for a message; of a long list only the beginning, and how many others there are."""
    listed = ", ".join(name if len(name) <= MAX_SHOWN_LENGTH else shorten_name(name) for name in names[:MAX_LISTED])
    others = len(names) - MAX_LISTED
    return f"{listed} and {others:,} others" if others > 0 else listed


def check_is_exact(kind: str, wanted: str, stored: str) -> None:
    """Check that the store answered with what was asked for.

    Many databases compare names without case, accents and blanks at the end. MLflow then mixes up two things: its
    server answers HTTP 500, or writes to the other one.

    Raises
    ------
    UserError
        It answered with another one.
    """
    if stored != wanted:
        raise UserError(
            f"the store has the {kind} {shorten_name(stored)}, and its database takes {shorten_name(wanted)} for the "
            "same name; use the name that exists, or one that differs in more than case, accents and blanks"
        )
