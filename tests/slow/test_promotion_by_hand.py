"""A person moves the alias on a server, with MLflow's client; promote.py goes on from there."""

from collections.abc import Iterator

import mlflow
import pytest

import promote
from support.pipelines import PipelineRun
from support.promotions import NAME, check_agreement
from support.scripts import Result, call_main
from support.servers import run_mlflow_server
from support.stores import move_alias, register_once_more


@pytest.fixture
def promoted_twice(digits_pipeline: PipelineRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipelineRun]:
    """Return a store, behind a server that is the current store: 1 and 2 were promoted, 3 was not decided about."""
    with run_mlflow_server(digits_pipeline.folder) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.chdir(digits_pipeline.folder)
        mlflow.set_tracking_uri(address)
        for _ in range(2):
            register_once_more(digits_pipeline.model_uri, digits_pipeline.run_id)
        assert run_promote("--model-name", NAME, "--version", 2).code == 0
        yield digits_pipeline


def run_promote(*options: object) -> Result:
    return call_main(promote.main, *options)


def read_rows() -> list[tuple[int | None, str]]:
    rows = run_promote("--history", "--json").json["history"]
    return [(row["version"], row["decision"]) for row in rows]


def test_moves_by_hand_are_seen_and_undone(promoted_twice: PipelineRun) -> None:
    move_alias(3)
    assert read_rows()[-1] == (3, "moved by hand")
    assert run_promote("--rollback", "--to", 2, "--reason", "x").json["previous_version"] == 3
    check_agreement(2)
    move_alias(1)
    refused = run_promote("--rollback", "--to", 1, "--reason", "x")
    assert (refused.code, "is in Production already" in refused.stderr) == (2, True)
    move_alias(None)
    promoted = run_promote("--model-name", NAME, "--version", 3)
    assert (promoted.json["previous_version"], promoted.json["champion"]["version"]) == (None, 2)
    assert promoted.json["comparison"]["p"] == 1
    assert read_rows() == [
        (1, "promoted"),
        (2, "promoted"),
        (3, "moved by hand"),
        (2, "rolled back"),
        (None, "removed by hand"),
        (3, "promoted"),
    ]
    check_agreement(3)
