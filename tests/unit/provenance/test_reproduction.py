import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.provenance.record import compute_weights_sha256
from pipeline.provenance.reproduction import (
    Original,
    check_data_digests,
    compare_with_original,
    config_from_run,
    load_original,
    warn_about_changed_code,
)
from pipeline.provenance.source import CodeState
from pipeline.tracking import loading, models, runs
from pipeline.tracking.runs import Run
from support.lineages import CONFIG, PARAMS, RUN_ID, TAGS, build_run

ORIGINAL = Original(build_run(), CONFIG)


# --- load ------------------------------------------------------------------------------------------------------------


def test_original_is_loaded_with_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_run()
    monkeypatch.setattr(runs, "get_run", lambda run_id: run)
    assert load_original(RUN_ID) == Original(run, CONFIG)


def test_configuration_ignores_parameters_of_old_runs() -> None:
    params = PARAMS | {"betas": "(0.9, 0.999)", "register": "True", "run_name": "base"}
    assert config_from_run(build_run(params)) == CONFIG


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_unfinished_run_is_refused(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "get_run", lambda run_id: build_run(status=status))
    with pytest.raises(UserError, match=f"run 8f1c is {status}, so there is nothing to compare with"):
        load_original(RUN_ID)


@pytest.mark.parametrize("missing", ["lr", "device", "train_digest"])
def test_missing_parameter_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {name: value for name, value in PARAMS.items() if name != missing}
    monkeypatch.setattr(runs, "get_run", lambda run_id: build_run(params))
    with pytest.raises(UserError, match=f"run 8f1c.* lack.* {missing}; choose a run"):
        load_original(RUN_ID)


# --- check -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recorded", "expected"), [("2", 2), ("none", None), ("0", None), ("1000000", None)])
def test_impossible_number_of_threads_is_not_believed(recorded: str, expected: int | None) -> None:
    run = build_run(tags=TAGS | {"environment.threads": recorded})
    assert Original(run, CONFIG).threads == expected


def test_equal_data_are_accepted() -> None:
    digests = {"train_digest": PARAMS["train_digest"], "test_digest": PARAMS["test_digest"]}
    check_data_digests(RUN_ID, ORIGINAL.digests, digests)


def test_other_data_are_named() -> None:
    with pytest.raises(UserError, match=r"the data are not those of run 8f1c \(train_digest f00d"):
        check_data_digests(RUN_ID, ORIGINAL.digests, {"train_digest": "f00d"})


def test_equal_code_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_about_changed_code(ORIGINAL.run, CodeState({"commit": "c0ffee", "dirty": "false", "branch": "other"}, b""))
    assert not caplog.records


@pytest.mark.parametrize(
    "tags",
    [{"commit": "decaf", "dirty": "false"}, {"commit": "c0ffee", "dirty": "true", "patch_sha256": "1"}],
    ids=["commit", "patch"],
)
def test_changed_code_gives_a_warning(tags: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    warn_about_changed_code(ORIGINAL.run, CodeState(tags, b""))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "this is not the code of run 8f1c: commit c0ffee"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"code.patch_sha256": "5f0c"}, "its artifact provenance/source.patch"),
        ({"code.patch": "left out: a.py:1 looks like a private key"}, "of which there is no patch"),
    ],
)
def test_warning_names_the_patch_of_the_original(
    tags: dict[str, str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = build_run(tags=TAGS | {"code.dirty": "true"} | tags)
    warn_about_changed_code(run, CodeState({"commit": "c0ffee", "dirty": "false"}, b""))
    assert caplog.messages[0].endswith(f"commit c0ffee, with changes ({expected})")


# --- compare ---------------------------------------------------------------------------------------------------------


def build_network(*, nested: bool, seed: int = 0) -> nn.Module:
    """Return thirteen layers: flat, as in runs before the networks were nested, or nested."""
    torch.manual_seed(seed)
    layers = [nn.BatchNorm1d(4) if index % 2 else nn.Linear(4, 4) for index in range(13)]
    if nested:
        return nn.Sequential(layers[0], nn.Sequential(*layers[1:-1]), layers[-1])
    return nn.Sequential(*layers)


def compare_networks(monkeypatch: pytest.MonkeyPatch, original: nn.Module, new: nn.Module) -> dict[str, object]:
    """Return what `compare_with_original` says; the stored state has another order, as in an exported model."""
    stored = SimpleNamespace(module=SimpleNamespace(state_dict=lambda: dict(reversed(original.state_dict().items()))))
    monkeypatch.setattr(models, "find_model_uri", lambda run_id: "models:/m-1")
    monkeypatch.setattr(loading, "load_model", lambda uri: stored)
    return compare_with_original(build_result(original), build_result(new), new.state_dict())


def build_result(network: nn.Module) -> Run:
    return build_run(tags=TAGS | {"result.weights_sha256": compute_weights_sha256(network.state_dict())})


def test_equal_hashes_need_no_model() -> None:
    network = build_network(nested=True)
    result = compare_with_original(build_result(network), build_result(network), network.state_dict())
    assert result == {"reproduces": RUN_ID, "identical": True}


def test_renamed_weights_are_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    result = compare_networks(monkeypatch, build_network(nested=False), build_network(nested=True))
    assert result == {"reproduces": RUN_ID, "identical": True}


@pytest.mark.parametrize("nested", [False, True])
def test_largest_difference_is_named(*, nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    new = build_network(nested=True)
    new.get_parameter("1.9.weight").data[0, 0] += 0.5
    new.get_parameter("2.bias").data[1] += 0.25
    result = compare_networks(monkeypatch, build_network(nested=nested), new)
    assert result["identical"] is False
    assert result["weight"] == "1.9.weight"
    assert result["largest_difference"] == pytest.approx(0.5)


def test_other_shapes_have_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    result = compare_networks(monkeypatch, nn.Linear(4, 3), nn.Linear(4, 4))
    assert (result["weight"], result["largest_difference"]) == ("other shapes", None)


def compare_runs(monkeypatch: pytest.MonkeyPatch, original: Run, new: Run) -> dict[str, object]:
    """Return what `compare_with_original` says of two runs whose weights differ."""
    module = nn.Linear(1, 1)
    monkeypatch.setattr(models, "find_model_uri", lambda run_id: "models:/m-1")
    monkeypatch.setattr(loading, "load_model", lambda uri: SimpleNamespace(module=module))
    return compare_with_original(original, new, {"weight": module.weight + 1, "bias": module.bias})


def test_metrics_that_differ_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"test_loss": 0.1, "test_accuracy": 0.9, "training_seconds": 1.0, "evaluation_loss": 0.1}
    after = {"test_loss": 0.2, "test_accuracy": 0.9, "training_seconds": 2.0}
    new_tags = TAGS | {"result.weights_sha256": "6" * 64}
    result = compare_runs(monkeypatch, build_run(metrics=before), build_run(tags=new_tags, metrics=after))
    assert result["metrics"] == {"test_loss": [0.1, 0.2]}


def test_circumstances_that_differ_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    new_tags = TAGS | {"result.weights_sha256": "6" * 64, "environment.threads": "64", "code.patch_sha256": "7"}
    new_tags["invocation.host"] = "server"
    result = compare_runs(monkeypatch, build_run(), build_run(tags=new_tags))
    assert result["circumstances"] == {"code.patch_sha256": [None, "7"], "environment.threads": ["2", "64"]}
