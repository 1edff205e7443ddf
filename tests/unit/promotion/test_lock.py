import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest
from mlflow import MlflowClient

from pipeline.context import describe_process, host_name, user_name
from pipeline.errors import UserError
from pipeline.promotion import lock as lock_module
from pipeline.promotion.lock import (
    CHOOSING,
    Ticket,
    draw_ticket,
    promotion_lock,
    read_holder,
    read_tickets,
    remove_ticket,
    wait_for_turn,
    write_ticket,
)
from pipeline.promotion.tag_values import warn_unreadable
from pipeline.tracking import runs, tags
from pipeline.tracking.store import StoreError
from support.promotions import NAME, create_foreign_lock, describe_dead_process

ADA = "ada on laptop (process 4242, since 2026-11-17T12:00:00.000+00:00)"


@pytest.fixture(autouse=True)
def model(store: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a registered model; short pauses."""
    MlflowClient().create_registered_model(NAME)
    monkeypatch.setattr(lock_module, "POLL_INTERVAL", 0.01)
    warn_unreadable.cache_clear()


def hold_lock(wait_seconds: float = 60) -> None:
    with promotion_lock(NAME, wait_seconds):
        pass


# --- hold and release -----------------------------------------------------------------------------------------------


def test_lock_names_its_process() -> None:
    with promotion_lock(NAME) as lock:
        ticket = read_holder(NAME)
    assert ticket == lock.ticket
    assert (ticket.user, ticket.host, ticket.process) == (user_name(), host_name(), describe_process())
    assert ticket.number == 1


def test_every_lock_has_another_nonce() -> None:
    with promotion_lock(NAME) as first:
        pass
    with promotion_lock(NAME) as second:
        pass
    assert first.ticket.nonce != second.ticket.nonce


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_lock_is_released_after_an_exception(error: BaseException) -> None:
    with pytest.raises(type(error)), promotion_lock(NAME):
        raise error
    assert read_tickets(NAME) == []


@pytest.mark.parametrize("writes", [1, 2])
def test_interrupt_after_a_write_releases_it(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    pending = [None] * writes

    def interrupt(model_name: str, ticket: Ticket) -> None:
        write_ticket(model_name, ticket)
        pending.pop()
        if not pending:
            raise KeyboardInterrupt

    monkeypatch.setattr(lock_module, "write_ticket", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hold_lock()
    assert read_tickets(NAME) == []


def test_models_are_locked_one_by_one() -> None:
    MlflowClient().create_registered_model("another")
    with promotion_lock(NAME), promotion_lock("another", wait_seconds=0):
        assert read_holder(NAME) != read_holder("another")


def test_failed_release_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the server is gone")

    with promotion_lock(NAME):
        monkeypatch.setattr(tags, "delete_model_tag", fail)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "could not be removed" in record.message


# --- wait -----------------------------------------------------------------------------------------------------------


def test_processes_hold_it_one_after_the_other() -> None:
    inside: list[int] = []
    crowds: list[int] = []

    def enter(number: int) -> None:
        with promotion_lock(NAME):
            inside.append(number)
            time.sleep(0.02)
            crowds.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(enter, range(5)))
    assert crowds == [1] * 5


def test_process_that_comes_later_has_a_higher_number() -> None:
    create_foreign_lock(number=7)
    with draw_ticket(NAME) as lock:
        assert lock.ticket.number == 8


def test_process_that_comes_later_is_not_waited_for() -> None:
    with promotion_lock(NAME) as lock:
        create_foreign_lock(number=2)
        wait_for_turn(lock, 0)


def test_process_that_chooses_is_waited_for() -> None:
    ticket = create_foreign_lock(number=CHOOSING)
    with pytest.raises(UserError, match=r"ada on laptop .* still decides"):
        hold_lock(wait_seconds=0)
    choice = threading.Timer(0.2, write_ticket, (NAME, replace(ticket, number=5)))
    choice.start()
    with promotion_lock(NAME):
        choice.join()  # it had chosen before this process went on


def test_nonce_decides_between_equal_numbers() -> None:
    with draw_ticket(NAME) as lock:
        first = replace(lock.ticket, nonce="0" * 32)
        last = replace(lock.ticket, nonce="f" * 32)
        write_ticket(NAME, last)
        wait_for_turn(lock, 0)
        write_ticket(NAME, first)
        with pytest.raises(UserError, match="still decides"):
            wait_for_turn(lock, 0)


def test_wait_prints_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ticket = create_foreign_lock()
    removal = threading.Timer(0.5, remove_ticket, (NAME, ticket))  # after many looks
    removal.start()
    with promotion_lock(NAME):
        removal.join()
    assert caplog.messages == [f"waiting for {ADA}, who decides about digits-classifier"]


def test_next_holder_is_one_more_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ada, bob = create_foreign_lock(number=1), create_foreign_lock(number=2, user="bob")
    looks = read_in_turn([[ada, bob], [ada, bob], [bob], [bob], [bob], []])
    monkeypatch.setattr(lock_module, "read_tickets", lambda name: [*next(looks), *own_tickets(name)])
    hold_lock()
    assert [message.partition(" on ")[0] for message in caplog.messages] == ["waiting for ada", "waiting for bob"]


def read_in_turn(looks: list[list[Ticket]]) -> Iterator[list[Ticket]]:
    yield looks[0]  # while it chooses its number
    yield from looks


def own_tickets(model_name: str) -> list[Ticket]:
    return [ticket for ticket in read_tickets(model_name) if ticket.user == user_name()]


@pytest.mark.parametrize("limit", [0, 0.1])
def test_wait_ends_at_the_limit(limit: float) -> None:
    create_foreign_lock()
    with pytest.raises(UserError) as error:
        hold_lock(limit)
    text = str(error.value)
    assert text.startswith(f"{ADA} still decides about")
    assert f"after {limit:g} seconds" in text
    assert 'python promote.py --unlock --model-name digits-classifier --reason "..."' in text


def test_limit_leaves_the_ticket_of_the_other() -> None:
    ticket = create_foreign_lock()
    with pytest.raises(UserError):
        hold_lock(0)
    assert read_tickets(NAME) == [ticket]


def test_ticket_removed_while_it_waits_is_noticed() -> None:
    create_foreign_lock()
    with draw_ticket(NAME) as lock:
        remove_ticket(NAME, lock.ticket)
        with pytest.raises(UserError, match="was removed"):
            wait_for_turn(lock, 60)


# --- dead processes -------------------------------------------------------------------------------------------------


def test_ticket_of_a_dead_process_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    create_foreign_lock(process=describe_dead_process())
    with promotion_lock(NAME, wait_seconds=0) as lock:
        assert read_tickets(NAME) == [lock.ticket]
    (message,) = caplog.messages
    assert "has ended; its lock of digits-classifier is removed" in message


def test_process_that_died_while_it_chose_is_removed() -> None:
    create_foreign_lock(process=describe_dead_process(), number=CHOOSING)
    hold_lock(0)


def test_open_runs_of_a_dead_process_end_killed() -> None:
    ticket = create_foreign_lock(process=describe_dead_process())
    experiment_id = runs.get_or_create_experiment("reports")
    tags.set_model_tag(NAME, "promotions.experiment_id", experiment_id)
    left = runs.create_run(experiment_id, {"decision.nonce": ticket.nonce})
    other = runs.create_run(experiment_id, {"decision.nonce": "0" * 32})
    hold_lock(0)
    assert runs.get_run(left).info.status == "KILLED"
    assert runs.get_run(other).info.status == "RUNNING"


def test_runs_that_may_not_be_ended_block_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        error = StoreError("Permission denied")
        error.error_code = "PERMISSION_DENIED"
        raise error

    ticket = create_foreign_lock(process=describe_dead_process())
    experiment_id = runs.get_or_create_experiment("reports")
    tags.set_model_tag(NAME, "promotions.experiment_id", experiment_id)
    runs.create_run(experiment_id, {"decision.nonce": ticket.nonce})
    monkeypatch.setattr(runs, "end_run", refuse)
    hold_lock(0)
    assert "stays as it is: your account may not do this" in caplog.text


# --- still held? ----------------------------------------------------------------------------------------------------


def test_lock_that_is_held_passes_the_check() -> None:
    with promotion_lock(NAME) as lock:
        lock.check_held()


def test_removed_lock_is_noticed() -> None:
    with promotion_lock(NAME) as lock:
        remove_ticket(NAME, lock.ticket)
        with pytest.raises(UserError, match="was removed while this decision was made, so nothing has moved"):
            lock.check_held()


def test_release_leaves_the_lock_of_another_process() -> None:
    with promotion_lock(NAME) as lock:
        remove_ticket(NAME, lock.ticket)
        ticket = create_foreign_lock()
        with pytest.raises(UserError, match=r"run promote\.py again"):
            lock.check_held()
    assert read_tickets(NAME) == [ticket]


# --- what others write ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["", "garbage", "{}", "[]", "null", "[" * 5000, "x" * 6000, '{"number": 1e999}', '{"number": -1}'],
    ids=lambda value: value[:12],
)
def test_unreadable_ticket_blocks_nobody(caplog: pytest.LogCaptureFixture, value: str) -> None:
    tag = f"promoting.{'a' * 32}"
    MlflowClient().set_registered_model_tag(NAME, tag, value)
    hold_lock(0)
    (message,) = caplog.messages  # one for many looks
    assert message.startswith(f"the tag '{tag}' of digits-classifier is not readable")
    assert "\n" not in message


@pytest.mark.parametrize(
    "changes",
    [{"nonce": "b" * 32}, {"user": "a\x1b[31m"}, {"host": "two\nlines"}, {"number": 10**9 + 1}, {"process": "x" * 251}],
    ids=str,
)
def test_ticket_with_bad_fields_blocks_nobody(caplog: pytest.LogCaptureFixture, changes: dict[str, object]) -> None:
    ticket = create_foreign_lock()
    forged = replace(ticket, **changes)  # type: ignore[arg-type]
    remove_ticket(NAME, ticket)
    MlflowClient().set_registered_model_tag(NAME, ticket.tag, json.dumps(asdict(forged)))
    hold_lock(0)
    assert len(caplog.messages) == 1


def test_highest_possible_number_opens_no_gap() -> None:
    """Others would skip a ticket with a higher number."""
    ticket = create_foreign_lock(number=10**9)
    with pytest.raises(UserError):
        hold_lock(0)
    remove_ticket(NAME, ticket)
    hold_lock(0)


def test_names_that_cannot_be_printed_are_written_readably(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "user_name", lambda: "a\x1bda\n" + "x" * 300 + "\udc80")
    with promotion_lock(NAME, 0) as lock:
        assert lock.ticket.user.startswith("a?da?xxx")
        assert len(lock.ticket.user) == 250
