import logging
import threading
import time
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from pipeline.tracking import outages
from pipeline.tracking.outages import Patience, StoreAway, create_once, describe_failure, is_outage
from pipeline.tracking.store import get_client
from support.outages import FailingRequest, lock_database


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(outages, "CREATION_PAUSES", (0.01, 0.01))


def refuse() -> MlflowException:
    """Return what a missing permission raises."""
    return MlflowException("no", PERMISSION_DENIED)


# --- patience -------------------------------------------------------------------------------------------------------


def test_request_is_repeated_until_the_store_answers() -> None:
    request = FailingRequest(ConnectionError(), ConnectionError())
    assert Patience(5).call(request) == "done"
    assert request.count == 3


def test_refusal_is_not_repeated() -> None:
    request = FailingRequest(refuse())
    with pytest.raises(MlflowException, match="no"):
        Patience(5).call(request)
    assert request.count == 1


def test_patience_ends() -> None:
    request = FailingRequest(*[ConnectionError("refused")] * 1000)
    with pytest.raises(StoreAway, match="it did not work for 0 seconds: the store does not answer") as caught:
        Patience(0.1).call(request)
    assert caught.value.seconds >= 0.1
    assert caught.value.reason == "the store does not answer (refused)"
    assert 1 < request.count < 20


def test_patience_is_for_all_requests_together() -> None:
    patience = Patience(0.1)
    with pytest.raises(StoreAway):
        patience.call(FailingRequest(*[ConnectionError()] * 1000))
    request = FailingRequest(ConnectionError())
    with pytest.raises(StoreAway):
        patience.call(request)
    assert request.count == 1


def test_time_of_a_slow_success_is_not_lost() -> None:
    patience = Patience(0.2)

    def succeed_slowly() -> None:
        time.sleep(0.3)

    patience.call(succeed_slowly)
    assert patience.call(FailingRequest(ConnectionError())) == "done"


def test_no_patience_means_one_request() -> None:
    request = FailingRequest(ConnectionError())
    with pytest.raises(StoreAway):
        Patience(0).call(request)
    assert request.count == 1


def test_outage_is_one_warning_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Patience(5).call(FailingRequest(*[ConnectionError("refused")] * 3))
    expected = ["the store does not answer (refused); waits for up to 5 seconds", "the store answers again"]
    assert [record.getMessage() for record in caplog.records] == expected
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_database_that_is_unlocked_again_is_awaited(store: Path) -> None:
    get_client().search_experiments()
    locked = lock_database(store)
    locked.__enter__()
    timer = threading.Timer(0.2, locked.__exit__, (None, None, None))
    timer.start()
    assert len(Patience(20).call(get_client().search_experiments)) == 1
    timer.join()


def test_end_of_patience_is_an_outage() -> None:
    away = StoreAway(300, "the store answers HTTP 503")
    assert is_outage(away)
    assert describe_failure(away) == "it did not work for 5 minutes: the store answers HTTP 503"


# --- create once ----------------------------------------------------------------------------------------------------


def test_creation_whose_answer_is_lost_is_found() -> None:
    create = FailingRequest(ConnectionError())
    assert create_once(create, lambda: "found") == "found"
    assert create.count == 1


def test_creation_that_did_not_arrive_is_sent_again() -> None:
    create = FailingRequest(ConnectionError(), ConnectionError())
    assert create_once(create, lambda: None) == "done"
    assert create.count == 3


def test_refused_creation_is_raised() -> None:
    create = FailingRequest(refuse())
    with pytest.raises(MlflowException, match="no"):
        create_once(create, lambda: "found")


def test_creation_is_given_up() -> None:
    create = FailingRequest(*[ConnectionError()] * 1000)
    with pytest.raises(ConnectionError):
        create_once(create, lambda: None)
    assert create.count == 3
