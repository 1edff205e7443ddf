import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pipeline.signals import SIGNALS, Stopped, defer_signals, raise_on_signals
from support.scripts import ROOT

SCRIPT = """
import sys, time
from pipeline.signals import {manager}

with {manager}() as request:
    print("ready", flush=True)
    {body}
print("the end", flush=True)
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_raises_with_its_number(number: signal.Signals) -> None:
    with pytest.raises(Stopped) as stop, raise_on_signals():
        signal.raise_signal(number)
    assert stop.value.number == number


@pytest.mark.parametrize("number", SIGNALS)
def test_deferred_signal_raises_when_asked(number: signal.Signals) -> None:
    with defer_signals() as request:
        request.raise_if_made()
        signal.raise_signal(number)
        assert request.is_made()
        with pytest.raises(Stopped) as stop:
            request.raise_if_made()
    assert stop.value.number == number


def test_handlers_are_those_of_before_at_the_end() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with raise_on_signals(), defer_signals():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with raise_on_signals(), defer_signals() as request:
        signal.raise_signal(signal.SIGHUP)
        assert not request.is_made()


def start(manager: str, body: str) -> "subprocess.Popen[str]":
    code = SCRIPT.format(manager=manager, body=body)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_second_signal_stops_at_once() -> None:
    process = start("defer_signals", "time.sleep(60)\n    time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.communicate()


def test_closing_terminal_may_send_sighup_twice() -> None:
    body = "while not request.is_made(): time.sleep(0.01)\n    time.sleep(0.5); print('saved', flush=True)"
    process = start("defer_signals", body)
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    stdout, _ = process.communicate(timeout=10)
    assert stdout == "saved\nthe end\n"
