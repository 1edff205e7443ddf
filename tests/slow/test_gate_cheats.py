"""Every known way to talk the gate into a model, tried on a real store: it is refused, or said loudly.

Version 1 is good and in Production. What follows is worse, and somebody wants it there.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

import evaluate
import promote
import pytorch_demo
from pipeline.data.datasets import load_splits
from pipeline.data.forms import MNIST_FORM
from pipeline.data.splits import Dataset
from pipeline.promotion import policy
from pipeline.tracking import artifacts, models, registry, runs
from pipeline.training.models import build_model
from support.pipelines import build_once, copy_stores
from support.prepared import save_dataset
from support.scripts import Result, call_main
from support.stores import move_alias, read_aliases

NAME = "own-classifier"
GOOD, WEAK, TINY, LEAKY, FEWER, MISNAMED = range(6)  # the runs, in their order


@dataclass(frozen=True)
class Shop:
    """A copy of the store and of the data sets.

    Attributes
    ----------
    folder : of all of it.
    run_ids : of the trainings; see `build_shop`.
    evaluated : the result of evaluate.py for each.
    """

    folder: Path
    run_ids: list[str]
    evaluated: list[Result]

    def promote(self, run: int, *options: object) -> Result:
        """Try to promote the model of a run."""
        return call_main(promote.main, "--run-id", self.run_ids[run], *options)

    def find_record(self, run: int) -> Path:
        """Return the recorded evaluation of a run."""
        (file,) = self.folder.glob(f"mlruns/*/{self.run_ids[run]}/artifacts/evaluation/evaluation.json")
        return file

    def edit_record(self, run: int, **changes: Any) -> None:
        """Change values of the record of a run."""
        file = self.find_record(run)
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def save_datasets() -> None:
    """Write data sets of digits into the current directory, all but one called "own"."""
    splits = load_splits("digits", Path())
    train = replace(
        splits.train,
        images=torch.cat([splits.train.images, splits.validation.images]),
        labels=torch.cat([splits.train.labels, splits.validation.labels]),
    )
    test = splits.test
    save_dataset(Path("own"), train, test)
    save_dataset(Path("tiny/own"), train, test.subset(slice(2)))
    save_dataset(Path("leaky/own"), train, train.subset(slice(360)))
    save_dataset(Path("fewer/own"), drop_last_class(train), drop_last_class(test))
    save_dataset(Path("photos/mnist"), train, test)


def drop_last_class(dataset: Dataset) -> Dataset:
    """Return the data set without its class 9."""
    return replace(dataset.subset(dataset.labels < 9), classes=dataset.classes[:9])


def build_shop(folder: Path) -> tuple[list[str], list[Result]]:
    """Train and evaluate on every data set, and promote the first model."""
    run_ids: list[str] = []
    evaluated = []
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    trainings = (("own", 15), ("own", 3), ("tiny/own", 3), ("leaky/own", 3), ("fewer/own", 15), ("photos/mnist", 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_datasets()
    for dataset, epochs in trainings:
        trained = call_main(pytorch_demo.main, "--dataset", dataset, "--epochs", epochs, folder=folder)
        run_ids.append(trained.json["run_id"])
        evaluated.append(call_main(evaluate.main, "--run-id", run_ids[-1], "--log-mlflow", folder=folder))
        if len(run_ids) == 1:
            promoted = call_main(promote.main, "--run-id", run_ids[0], "--min-accuracy", 0.9, folder=folder)
            assert promoted.json["decision"] == "promoted", promoted
    return run_ids, evaluated


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Return a copy of the test's own, whose store is that of this process."""
    source, (run_ids, evaluated) = build_once(tmp_path_factory, "gate_cheats", build_shop)
    folder = copy_stores(source, tmp_path_factory.mktemp("shop"))
    uri = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    return Shop(folder, run_ids, evaluated)


def read_failed(result: Result) -> set[str]:
    """Return the checks that failed of a refusal."""
    assert (result.code, result.json["decision"]) == (1, "refused"), result
    assert read_aliases(NAME)["champion"] == 1
    return {check["name"] for check in result.json["checks"] if not check["passed"]}


# --- a weak model, and rules that are missing -----------------------------------------------------------------------


def test_floor_alone_does_not_let_a_worse_model_pass(shop: Shop) -> None:
    refused = shop.promote(WEAK, "--min-accuracy", 0.5)
    assert read_failed(refused) == {"regression"}
    assert "significantly worse" in refused.stderr


def test_chance_does_not_pass_without_a_table(shop: Shop) -> None:
    accuracy = shop.evaluated[WEAK].json["test_accuracy"]
    refused = shop.promote(WEAK, "--min-accuracy", accuracy)
    assert read_failed(refused) == {"min_accuracy_lower_end", "regression"}


# --- other test sets ------------------------------------------------------------------------------------------------


def read_digest(shop: Shop, run: int) -> str:
    return str(json.loads(shop.find_record(run).read_text())["dataset_digest"])[:12]


def test_other_test_set_is_refused(shop: Shop) -> None:
    error = shop.promote(TINY, "--min-accuracy", 0).error
    assert read_digest(shop, TINY) in error
    assert read_digest(shop, GOOD) in error
    assert "--new-test-set --reason" in error


def test_small_test_set_is_refused(shop: Shop) -> None:
    refused = shop.promote(TINY, "--min-accuracy", 0, "--new-test-set", "--reason", "newer photos")
    assert read_failed(refused) == {"min_test_images"}
    assert "warning: new test set: tiny/own" in refused.stderr
    assert "version 1, in Production, is evaluated anew: its record is of other data" in refused.stderr


def test_test_images_that_were_trained_on_are_counted(shop: Shop) -> None:
    assert "warning: 360 of 360 test images are also training images" in shop.evaluated[LEAKY].stderr
    refused = shop.promote(LEAKY, "--min-accuracy", 0, "--new-test-set", "--reason", "newer photos")
    assert "max_test_overlap" in read_failed(refused)
    assert "360 of 360 test images are training images" in refused.stderr


def test_unknown_training_images_are_refused(shop: Shop) -> None:
    (file,) = shop.folder.glob(f"mlruns/*/{shop.run_ids[WEAK]}/artifacts/provenance/train_digests.npy")
    file.unlink()
    evaluated = call_main(evaluate.main, "--run-id", shop.run_ids[WEAK], "--log-mlflow")
    assert "does not record which images it trained on" in evaluated.stderr
    assert "max_test_overlap" in read_failed(shop.promote(WEAK, "--min-accuracy", 0))


def test_directory_named_mnist_cannot_use_its_table(shop: Shop) -> None:
    assert "photos/mnist has the name of the data set mnist" in shop.promote(MISNAMED).error


def test_table_chosen_by_a_path_is_said(shop: Shop) -> None:
    MlflowClient().delete_model_version(NAME, "1")
    promoted = shop.promote(WEAK, "--min-accuracy", 0.5)
    assert "no table [own], by the last part of own; pin its test set there with test_digest" in promoted.stderr


# --- the alias, moved by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [None, WEAK + 1])
def test_worse_model_is_compared_after_a_move_by_hand(shop: Shop, number: int | None) -> None:
    move_alias(number, NAME)
    refused = shop.promote(WEAK, "--min-accuracy", 0)
    assert (refused.code, refused.json["champion"]["version"]) == (1, 1)
    assert "regression" in {check["name"] for check in refused.json["checks"] if not check["passed"]}
    assert "; the candidate is compared with version 1" in refused.json["notices"][0]


# --- other classes --------------------------------------------------------------------------------------------------


def test_exchanged_class_names_are_refused_by_evaluate(shop: Shop) -> None:
    file = Path("own/classes.json")
    file.write_text(json.dumps(["0", "7", *"23456", "1", "8", "9"]))
    error = call_main(evaluate.main, "--run-id", shop.run_ids[WEAK]).error
    assert "its label 1 means '1', not '7'" in error


def test_exchanged_class_names_are_refused_by_the_gate(shop: Shop) -> None:
    file = shop.find_record(WEAK)
    record = json.loads(file.read_text())
    names = {"0": "1", "1": "0"}
    record["classes"] = {names.get(name, name): scores for name, scores in record["classes"].items()}
    for confusion in record["confusions"]:
        for key in ("label", "prediction"):
            confusion[key] = names.get(confusion[key], confusion[key])
    predictions = file.with_name("predictions.csv")
    header, _, rows = predictions.read_text().partition("\n")
    predictions.write_text(f"{header.replace(',0,1,', ',1,0,')}\n{rows}")
    record["predictions_sha256"] = hashlib.sha256(predictions.read_bytes()).hexdigest()
    file.write_text(json.dumps(record))
    assert "has other classes than the model: its label 0 means '1', not '0'" in shop.promote(WEAK).error


def test_equal_class_names_are_refused(shop: Shop) -> None:
    Path("own/classes.json").write_text(json.dumps([*"012345678", "8 "]))
    assert "two classes are called '8' and '8 '" in call_main(pytorch_demo.main, "--dataset", "own").error


def test_fewer_classes_are_compared_on_common_images(shop: Shop) -> None:
    result = shop.promote(FEWER, "--min-accuracy", 0.5, "--new-test-set", "--reason", "no nines any more")
    images = shop.evaluated[FEWER].json["samples"]
    assert result.json["comparison"]["left_out"] == ["9"]
    assert result.json["comparison"]["images"] == images
    assert f"compared on the {images} of {images} test images whose class both know; left out: '9'" in result.stderr


# --- runs and records that say what is not true ---------------------------------------------------------------------


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_incomplete_training_is_refused(shop: Shop, status: str) -> None:
    MlflowClient().set_terminated(shop.run_ids[WEAK], status)
    assert f"is not complete: it is {status}; " in shop.promote(WEAK, "--min-accuracy", 0.5).error


def test_altered_parameters_are_refused(shop: Shop) -> None:
    shop.edit_record(WEAK, parameters=1)
    assert "says 1 parameters, the model has " in shop.promote(WEAK).error


def rescale(table: pd.DataFrame) -> pd.DataFrame:
    table.iloc[:, 2:] /= 2
    return table


def exceed(table: pd.DataFrame) -> pd.DataFrame:
    table.iloc[:, 2:] *= 2
    return table


@pytest.mark.parametrize(
    ("edit", "message"), [(rescale, "sum to 0.5, not to 1"), (exceed, "a probability is outside 0 to 1")]
)
def test_impossible_probabilities_are_refused(
    shop: Shop, edit: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    file = shop.find_record(WEAK).with_name("predictions.csv")
    edit(pd.read_csv(file, index_col=0)).to_csv(file)
    shop.edit_record(WEAK, predictions_sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert message in shop.promote(WEAK).error


def test_model_of_another_run_is_refused(shop: Shop) -> None:
    client = MlflowClient()
    source = models.find_model_uri(shop.run_ids[WEAK])
    version = client.create_model_version(NAME, source, shop.run_ids[GOOD], model_id=source.removeprefix("models:/"))
    error = call_main(promote.main, "--model-name", NAME, "--version", version.version, "--min-accuracy", 0.5).error
    assert shop.run_ids[GOOD] in error


# --- the opposite: an honest model is judged ------------------------------------------------------------------------


def test_honest_bad_model_is_judged(shop: Shop) -> None:
    splits = load_splits("own", Path())
    model = build_model("mlp", 10, splits.train.images).eval()
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= 1e6  # logits far beyond what a probability can show
    with runs.start_run("pytorch-demo", None) as run_id:
        runs.log_params(run_id, {"dataset": "own", "test_digest": splits.test.digest})
        models.save_model(model, splits.test.images[:2].float(), splits.test.classes, MNIST_FORM, Path("bad"))
        uri = models.log_model(run_id, Path("bad")).uri
    MlflowClient().create_model_version(NAME, uri, run_id, model_id=uri.removeprefix("models:/"))
    evaluated = call_main(evaluate.main, "--run-id", run_id, "--log-mlflow")
    assert evaluated.json["test_loss"] > 300
    assert {"min_accuracy", "regression"} <= read_failed(
        call_main(promote.main, "--run-id", run_id, "--min-accuracy", 0.5)
    )


# --- a broken champion ----------------------------------------------------------------------------------------------


@pytest.fixture
def lax_shop(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    """Return a copy in which the policy allows a worse model."""
    file = tmp_path / "gates.toml"
    file.write_text("[own]\nmin_accuracy = 0.1\nalpha = 1e-300\n")
    monkeypatch.setattr(policy, "POLICY_FILE", file)
    return shop


def find_model_folder(shop: Shop) -> Path:
    model_id = models.find_model_uri(shop.run_ids[GOOD]).removeprefix("models:/")
    (folder,) = shop.folder.glob(f"mlruns/*/models/{model_id}/artifacts")
    return folder


def delete_files(shop: Shop) -> None:
    shutil.rmtree(find_model_folder(shop))


def exchange_byte(shop: Shop) -> None:
    file = find_model_folder(shop) / "data" / "model.pt2"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [delete_files, exchange_byte])
def test_champion_that_does_not_load_requires_a_reason(lax_shop: Shop, harm: Callable[[Shop], None]) -> None:
    harm(lax_shop)
    error = lax_shop.promote(WEAK).error
    assert "version 1, in Production, cannot be loaded (" in error
    assert "say with --reason why it may be replaced all the same" in error
    promoted = lax_shop.promote(WEAK, "--reason", "version 1 is broken")
    assert (promoted.json["decision"], promoted.json["comparison"]) == ("promoted", None)
    assert "warning: version 1, in Production, cannot be loaded (" in promoted.stderr
    assert "so the candidate is not compared with it" in promoted.json["notices"][0]


def delete_run(shop: Shop) -> None:
    runs.delete_run(shop.run_ids[GOOD])


def delete_record(shop: Shop) -> None:
    shop.find_record(GOOD).unlink()


def damage_predictions(shop: Shop) -> None:
    shop.find_record(GOOD).with_name("predictions.csv").write_text("index\n")


@pytest.mark.parametrize("harm", [delete_run, delete_record, damage_predictions])
def test_champion_without_evidence_is_evaluated_anew(lax_shop: Shop, harm: Callable[[Shop], None]) -> None:
    before = lax_shop.promote(WEAK, "--dry-run").json["comparison"]
    harm(lax_shop)
    result = lax_shop.promote(WEAK)
    assert "warning: version 1, in Production, is evaluated anew: " in result.stderr
    assert (result.json["decision"], result.json["comparison"]) == ("promoted", before)
    assert registry.alias_version(NAME) == 2


def test_training_logs_the_digests_of_its_images(shop: Shop, tmp_path: Path) -> None:
    file = artifacts.download_artifact(shop.run_ids[GOOD], "provenance/train_digests.npy", tmp_path)
    assert len(np.load(file, allow_pickle=False)) == 1437
