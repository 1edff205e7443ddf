"""promote.py with real models that differ: a weak one, a better one, and one that was trained on 500 images."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from scipy.stats import binomtest

import evaluate
import lineage
import promote
import pytorch_demo
from pipeline.data import datasets
from pipeline.evaluation.metrics import Evaluation
from pipeline.promotion import policy
from pipeline.promotion.champion import gather_champion_evidence
from pipeline.tracking import registry
from support.evaluations import record_evaluation
from support.pipelines import PipelineRun, build_once, copy_stores
from support.promotions import NAME, check_agreement, list_kinds
from support.scripts import Result, call_main
from support.stores import register_once_more


@dataclass(frozen=True)
class Story:
    """A store in which version 1, weak, was promoted, then version 2, better.

    Attributes
    ----------
    folder : of the store.
    run_ids : that trained the versions.
    promoted : the results of promote.py.
    """

    folder: Path
    run_ids: tuple[str, str]
    promoted: tuple[Result, Result]

    def promote(self, *options: object) -> Result:
        """Call promote.py."""
        return call_main(promote.main, *options)

    def find_evaluation_file(self, version: int, name: str) -> Path:
        """Return a file of the recorded evaluation of a version."""
        run_id = self.run_ids[version - 1]
        (path,) = (self.folder / "mlruns").glob(f"*/{run_id}/artifacts/evaluation/{name}")
        return path


def build_story(folder: Path) -> tuple[tuple[str, ...], tuple[Result, ...]]:
    run_ids, promoted = [], []
    for epochs, options in ((6, ("--min-accuracy", 0.8, "--reason", "the first one")), (20, ())):
        trained = call_main(pytorch_demo.main, "--dataset", "digits", "--epochs", epochs, folder=folder)
        run_id = trained.json["run_id"]
        assert call_main(evaluate.main, "--run-id", run_id, "--log-mlflow", folder=folder).code == 0
        promoted.append(call_main(promote.main, "--run-id", run_id, *options, folder=folder))
        run_ids.append(run_id)
    return tuple(run_ids), tuple(promoted)


@pytest.fixture
def story(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Return the story in a directory of the test's own, whose store is that of this process."""
    source, (run_ids, promoted) = build_once(tmp_path_factory, "story", build_story)
    folder = copy_stores(source, tmp_path_factory.mktemp("story"))
    uri = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    return Story(folder, run_ids, promoted)


def restore_first_version() -> None:
    """Put version 1 in Production, as a person could."""
    MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    registry.sync_stages(NAME)


# --- the record -----------------------------------------------------------------------------------------------------


def test_better_model_replaces_the_first(story: Story) -> None:
    first, second = story.promoted
    assert (first.json["reason"], first.json["champion"]) == ("the first one", None)
    assert (second.json["decision"], second.json["previous_version"]) == ("promoted", 1)
    assert second.json["comparison"]["only_candidate"] > second.json["comparison"]["only_champion"]


def read_correct(story: Story, version: int) -> np.ndarray:
    table = pd.read_csv(story.find_evaluation_file(version, "predictions.csv"))
    return np.asarray(table.label == table.prediction)


def test_comparison_follows_from_both_predictions(story: Story) -> None:
    candidate, champion = read_correct(story, 2), read_correct(story, 1)
    only_candidate = int((candidate & ~champion).sum())
    only_champion = int((champion & ~candidate).sum())
    assert story.promoted[1].json["comparison"] == {
        "candidate_correct": int(candidate.sum()),
        "champion_correct": int(champion.sum()),
        "images": 360,
        "only_candidate": only_candidate,
        "only_champion": only_champion,
        "p": binomtest(only_candidate, only_candidate + only_champion).pvalue,
        "left_out": [],
    }


def test_verdict_names_both_models_and_the_policy(story: Story) -> None:
    result = story.promoted[1].json
    decision_run_id = result.pop("decision_run_id")
    assert result.pop("signer") == ""
    verdict = json.loads(Path(mlflow.artifacts.download_artifacts(f"runs:/{decision_run_id}/verdict.json")).read_text())
    assert result.items() <= verdict.items()
    assert verdict["policy"]["text"] == policy.POLICY_FILE.read_text()
    for role, version in (("candidate", 2), ("champion", 1)):
        record: dict[str, Any] = json.loads(story.find_evaluation_file(version, "evaluation.json").read_text())
        assert verdict[role]["run_id"] == story.run_ids[version - 1]
        for name in ("model_sha256", "accuracy", "parameters"):
            assert verdict[role][name] == record[name]


# --- what it checks -------------------------------------------------------------------------------------------------


def find_model_file(version: int) -> Path:
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}"))
    (file,) = folder.rglob("model.pt2")
    return file


def test_rollback_to_another_file_is_refused(story: Story) -> None:
    shutil.copy(find_model_file(2), find_model_file(1))
    assert "is not the model that its registration recorded" in story.promote("--rollback", "--reason", "x").error
    assert list_kinds() == ["promoted", "promoted"]


def test_rollback_to_an_empty_file_is_refused(story: Story) -> None:
    find_model_file(1).write_bytes(b"")
    assert story.promote("--rollback", "--reason", "x").code == 2
    assert list_kinds() == ["promoted", "promoted"]


def test_champion_is_evaluated_anew_with_equal_answers(story: Story) -> None:
    restore_first_version()
    story.find_evaluation_file(1, "evaluation.json").unlink()
    result = story.promote("--run-id", story.run_ids[1], "--dry-run")
    reason = f"run {story.run_ids[0]} has no recorded evaluation"
    assert result.json["champion"]["evidence"] == f"evaluated anew: {reason}"
    assert f"warning: version 1, in Production, is evaluated anew: {reason}\n" in result.stderr
    assert result.json["comparison"] == story.promoted[1].json["comparison"]


def test_champion_of_a_purged_run_is_evaluated_anew(story: Story) -> None:
    """After mlflow gc, the run and its evaluation are gone; the model is not."""
    restore_first_version()
    MlflowClient().delete_run(story.run_ids[0])
    purge = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", f"sqlite:///{story.folder}/mlflow.db"]
    subprocess.run(purge, cwd=story.folder, check=True, capture_output=True)
    result = story.promote("--run-id", story.run_ids[1])
    assert result.json["champion"]["evidence"].startswith("evaluated anew: there is no run")
    assert result.json["comparison"] == story.promoted[1].json["comparison"]
    assert story.promote("--rollback", "--reason", "x").json["version"] == 1
    assert call_main(lineage.main, "--json").json["run_id"] is None


def test_rollback_passes_over_a_lost_model(story: Story) -> None:
    lost = find_model_file(2).parent.parent
    first = registry.get_version(NAME, 1)
    third = register_once_more(str(first.source), str(first.run_id))
    MlflowClient().set_registered_model_alias(NAME, "champion", str(third))
    shutil.rmtree(lost)
    back = story.promote("--rollback", "--reason", "x")
    assert (back.json["version"], back.json["previous_version"]) == (1, third)
    _, passed_over = back.json["notices"]
    assert passed_over.startswith("passed over: version 2 (cannot get digits-classifier version 2 (")
    check_agreement(1)


def test_champion_is_evaluated_on_the_candidates_images(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    part = datasets.load_test_split("digits", Path()).subset(slice(100))
    monkeypatch.setattr(datasets, "load_test_split", lambda *_: part)
    labels = part.labels.numpy()
    record = record_evaluation(Evaluation(part.classes, labels, np.eye(10)[labels]), part)
    champion = gather_champion_evidence(registry.get_version(NAME, 1), record, Path()).version
    assert champion.source == "evaluated anew: its record is of other data"
    recorded = pd.read_csv(story.find_evaluation_file(1, "predictions.csv"))[:100]
    assert champion.require_evaluation().predictions.tolist() == recorded.prediction.tolist()


@pytest.mark.parametrize(("ceiling", "code"), [(100.0, 0), (0.001, 1)])
def test_latency_is_measured_if_the_policy_asks(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ceiling: float, code: int
) -> None:
    restore_first_version()
    file = tmp_path / "gates.toml"
    file.write_text(f"[digits]\nmax_latency_ratio = {ceiling}\nalpha = 1e-9\n")
    monkeypatch.setattr(policy, "POLICY_FILE", file)
    result = story.promote("--run-id", story.run_ids[1], "--dry-run")
    check = result.json["checks"][-1]
    assert (check["name"], result.code) == ("max_latency_ratio", code)
    latencies = [result.json[role]["latency"] for role in ("candidate", "champion")]
    assert check["value"] == pytest.approx(latencies[0] / latencies[1])
    assert all(1e-5 < latency < 1 for latency in latencies)


# --- the full data --------------------------------------------------------------------------------------------------


def test_mnist_reaches_production(mnist_pipeline: PipelineRun) -> None:
    assert mnist_pipeline.evaluated.json["samples"] == 10_000
    assert mnist_pipeline.evaluated.json["test_accuracy"] == mnist_pipeline.trained.json["test_accuracy"]
    assert mnist_pipeline.trained.json["test_accuracy"] >= 0.985
    assert mnist_pipeline.promoted.json["decision"] == "promoted"


def test_model_of_500_images_does_not_replace_it(mnist_pipeline: PipelineRun, real_data: Path) -> None:
    folder, data = mnist_pipeline.folder, ("--data-dir", real_data)
    trained = call_main(pytorch_demo.main, "--epochs", 20, "--limit", 500, *data, folder=folder)
    run = ("--run-id", trained.json["run_id"])
    assert call_main(evaluate.main, *run, "--log-mlflow", *data, folder=folder).code == 0
    refused = call_main(promote.main, *run, "--min-accuracy", 0.85, folder=folder)
    checks = {check["name"]: check["passed"] for check in refused.json["checks"]}
    assert (refused.json["decision"], refused.json["previous_version"]) == ("refused", 1)
    assert checks["min_accuracy_lower_end"]
    assert not checks["regression"]
    assert "significantly worse" in refused.json["reason"]
