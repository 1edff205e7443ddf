"""One decision about a model at a time, on all machines that use the store.

The lock is Lamport's bakery algorithm (1974, A New Solution of Dijkstra's Concurrent Programming Problem,
Communications of the ACM 17(8):453, https://doi.org/10.1145/361082.361093). A process draws a ticket: it sets a tag of
the registered model, ``promoting.<nonce>``, with the number 0, which says that it is choosing; it reads all tickets;
then it sets the highest number plus one. It waits until no other ticket is choosing or has a smaller number; the nonce
decides between equal numbers. At the end it removes its ticket.

Why only one process has the lock: each ticket is written by its own process only, and MLflow sets a tag in one
transaction, so a read that begins after a write sees it. Suppose that A and B both have the lock, and A comes before B.
B's last read saw no ticket of A, neither choosing nor numbered, so it began before A was choosing. B had its number by
then. A read the tickets after it was choosing, so it saw B's number and chose a higher one: A comes after B, a
contradiction. (The store must read from the database that it writes to, not from a replica that is behind.) A request
that arrives late can only bring an old ticket back, for which the others wait.

Only accounts that may edit the model can write tickets, and each of them can remove any ticket.
"""

import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, TypeAdapter

from pipeline.context import describe_process, host_name, is_process_gone, user_name, utc_now
from pipeline.errors import UserError
from pipeline.promotion.report_run import end_open_runs
from pipeline.promotion.tag_values import (
    MAX_NUMBER,
    Line,
    Nonce,
    format_line,
    format_tag,
    parse_tag,
    warn_unreadable,
)
from pipeline.tracking import tags
from pipeline.tracking.store import StoreError, limit_requests

logger = logging.getLogger(__name__)

DEFAULT_WAIT = 300.0  # seconds
POLL_INTERVAL = 0.25  # seconds, for the first one that waits
LONGEST_POLL_INTERVAL = 2.0  # seconds, for those that are far behind
CLEANUP_TIMEOUT = 5  # seconds, of a request after an exception
TICKET_PREFIX = "promoting."
TICKET_TAG = re.compile(rf"{re.escape(TICKET_PREFIX)}(?P<nonce>.+)")
CHOOSING = 0  # the number of a ticket whose process has not chosen one yet


@dataclass(frozen=True, order=True)
class Ticket:
    """The place of a process in the line for a model.

    Attributes
    ----------
    number : the lowest one has the lock; `CHOOSING` is lower than all.
    nonce : a random text, which tells this ticket from every other one.
    user, host : the account and the machine.
    process : see `pipeline.context.describe_process`.
    time : when it was drawn, ISO 8601.
    """

    number: Annotated[int, Field(ge=CHOOSING, le=MAX_NUMBER)]
    nonce: Nonce
    user: Line
    host: Line
    process: Line
    time: Line

    @property
    def tag(self) -> str:
        """The name of its tag."""
        return f"{TICKET_PREFIX}{self.nonce}"

    def __str__(self) -> str:
        pid, _, _ = self.process.partition(" ")
        return f"{self.user} on {self.host} (process {pid or 'unknown'}, since {self.time or 'unknown'})"


_TICKET = TypeAdapter(Ticket)


@dataclass(frozen=True)
class PromotionLock:
    """The lock of a model, for the process that drew the ticket."""

    model_name: str
    ticket: Ticket

    def check_held(self) -> None:
        """Check that the ticket still exists.

        Raises
        ------
        UserError
            It was removed, as ``promote.py --unlock`` does; another process may have the lock by now.
        """
        _check_still_there(self, read_tickets(self.model_name))


# --- tickets --------------------------------------------------------------------------------------------------------


def read_tickets(model_name: str) -> list[Ticket]:
    """Return the tickets for a model, the one that has the lock first; what is not readable is skipped."""
    tickets = []
    for tag, value in tags.read_model_tags(model_name).items():
        match = TICKET_TAG.fullmatch(tag)
        if not match:
            continue
        try:
            ticket = parse_tag(_TICKET, value)
            if ticket.nonce != match["nonce"]:
                raise ValueError("it is the ticket of another name")
        except ValueError as error:
            warn_unreadable(model_name, tag, str(error))
        else:
            tickets.append(ticket)
    return sorted(tickets)


def read_holder(model_name: str) -> Ticket | None:
    """Return the ticket that others wait for, or None. One whose process is known to be gone holds up nobody here."""
    tickets = read_tickets(model_name)
    not_gone = [ticket for ticket in tickets if not is_process_gone(ticket.process)]
    return next(iter([*not_gone, *tickets]), None)


def write_ticket(model_name: str, ticket: Ticket) -> None:
    """Write the ticket on the model."""
    tags.set_model_tag(model_name, ticket.tag, format_tag(_TICKET, ticket))


def remove_ticket(model_name: str, ticket: Ticket) -> None:
    """Remove the ticket of a process that is gone, and end the runs that it left open."""
    end_open_runs(model_name, ticket.nonce)
    tags.delete_model_tag(model_name, ticket.tag)


@contextmanager
def draw_ticket(model_name: str) -> Iterator[PromotionLock]:
    """Have a ticket inside the ``with`` block, without waiting for its turn."""
    user, host, process = (format_line(text) for text in (user_name(), host_name(), describe_process()))
    ticket = Ticket(CHOOSING, uuid.uuid4().hex, user, host, process, utc_now())
    try:
        write_ticket(model_name, ticket)
        numbers = [other.number for other in read_tickets(model_name)]
        ticket = replace(ticket, number=max(numbers, default=CHOOSING) + 1)
        write_ticket(model_name, ticket)
        yield PromotionLock(model_name, ticket)
    except BaseException:  # also if a signal arrives between two lines
        with suppress(StoreError), limit_requests(retries=2, timeout=CLEANUP_TIMEOUT):  # the store may be what failed
            tags.delete_model_tag(model_name, ticket.tag)
        raise
    try:
        tags.delete_model_tag(model_name, ticket.tag)
    except StoreError:
        logger.warning(
            "the lock of %s could not be removed; the next promote.py on this machine removes it", model_name
        )


# --- wait -----------------------------------------------------------------------------------------------------------


@contextmanager
def promotion_lock(model_name: str, wait_seconds: float = DEFAULT_WAIT) -> Iterator[PromotionLock]:
    """Hold the lock of a model inside the ``with`` block.

    While another process has it, this one waits, and logs once for whom. If that process has died on this machine, its
    ticket is removed.

    Raises
    ------
    UserError
        Another process still has the lock after ``wait_seconds``.
    """
    with draw_ticket(model_name) as lock:
        wait_for_turn(lock, wait_seconds)
        yield lock


def wait_for_turn(lock: PromotionLock, wait_seconds: float) -> None:
    """Return when no other process has the lock or comes first.

    Raises
    ------
    UserError
        One still has it after ``wait_seconds``; or the own ticket was removed.
    """
    deadline = time.monotonic() + wait_seconds
    previous = None
    announced = set()
    while True:
        tickets = read_tickets(lock.model_name)
        _check_still_there(lock, tickets)
        ahead = [ticket for ticket in tickets if ticket < lock.ticket]
        if not ahead:
            return
        dead = [ticket for ticket in ahead if is_process_gone(ticket.process)]
        for ticket in dead:
            logger.info("%s has ended; its lock of %s is removed", ticket, lock.model_name)
            remove_ticket(lock.model_name, ticket)
        if dead:
            continue
        holder = ahead[0]
        if time.monotonic() >= deadline:
            raise UserError(_describe_timeout(lock.model_name, holder, wait_seconds))
        if holder == previous and holder not in announced:  # not for one that is done at the second look
            logger.info("waiting for %s, who decides about %s", holder, lock.model_name)
            announced.add(holder)
        previous = holder
        pause = min(POLL_INTERVAL * len(ahead), LONGEST_POLL_INTERVAL, deadline - time.monotonic())
        time.sleep(max(0, pause))


def _check_still_there(lock: PromotionLock, tickets: list[Ticket]) -> None:
    """Check that the own ticket is one of those that others see."""
    if lock.ticket.nonce not in [ticket.nonce for ticket in tickets]:
        raise UserError(
            f"the lock of {lock.model_name} was removed while this decision was made, so nothing has moved; "
            "run promote.py again"
        )


def _describe_timeout(model_name: str, holder: Ticket, wait_seconds: float) -> str:
    return (
        f"{holder} still decides about {model_name} after {wait_seconds:g} seconds; wait longer with --wait, or if "
        f'that process is gone, run: python promote.py --unlock --model-name {model_name} --reason "..."'
    )
