"""Promotion on a real store with real records: what it believes, what it survives, and what it leaves behind."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from conftest import ROOT, Pipeline, Result, call, forked, once_for_all, own_copy, run_script, served
from mlflow import MlflowClient
from scipy.stats import binomtest

import evaluate
import promote
from pipeline import UserError, cli, data, promotion, registry

NAME = "digits-classifier"


def use(database: Path) -> None:
    """Make the SQLite file the store of this process and of those that it starts."""
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"


def registered_again(pipeline: Pipeline, database: Path) -> int:
    """Register the model of the pipeline's run, with its record, as one more version."""
    use(database)
    return registry.register(NAME, pipeline.trained.json["model_uri"], pipeline.run_id)


def check_agreement(number: int) -> None:
    """Exactly one version is in Production, and it is the one to which the alias points."""
    stages = {int(each.version): each.current_stage for each in MlflowClient().search_model_versions(f"name='{NAME}'")}
    assert [version for version, stage in stages.items() if stage == "Production"] == [number]
    assert int(MlflowClient().get_registered_model(NAME).aliases["champion"]) == number


def kinds() -> list[str]:
    return [decision.kind for decision in registry.decisions(NAME)]


# --- a story: a weak model, a better one, and back -----------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A store in which version 1, weak, was promoted, then version 2, better; and their runs."""

    folder: Path
    runs: tuple[str, ...]
    promoted: tuple[Result, ...]
    between: str  # a time at which version 1 was in Production

    def call(self, *arguments: object) -> Result:
        """Call promote.py, in this process: its imports take longer than its work."""
        try:
            return call(promote.main, *arguments)
        finally:
            use(self.folder / "mlflow.db")

    def artifact(self, run: int, name: str) -> Path:
        """Return the file of the run's recorded evaluation."""
        (path,) = (self.folder / "mlruns").glob(f"*/{self.runs[run]}/artifacts/evaluation/{name}")
        return path


def _tell(folder: Path) -> tuple[tuple[str, ...], tuple[Result, ...], str]:
    runs, promoted, between = [], [], ""
    for epochs, options in ((4, ["--min-accuracy", 0.8, "--reason", "the first one"]), (20, [])):
        run = run_script(folder, "pytorch_demo.py", "--dataset", "digits", "--epochs", epochs).json["run_id"]
        assert run_script(folder, "evaluate.py", "--run-id", run, "--log-mlflow").code == 0
        promoted.append(run_script(folder, "promote.py", "--run-id", run, *options))
        between = between or datetime.now(UTC).isoformat()
        runs.append(run)
    return tuple(runs), tuple(promoted), between


@pytest.fixture
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Return the story in files of its own, where the store is this process's too."""
    made, (runs, promoted, between) = once_for_all(tmp_path_factory, "story", _tell)
    folder = own_copy(tmp_path_factory, made)
    use(folder / "mlflow.db")
    return Story(folder, runs, promoted, between)


def put_back(story: Story) -> None:
    """Put version 1 in Production, as a person could."""
    MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    registry.settle(NAME)


def test_a_better_model_replaces_the_one_in_production_and_both_stand_in_the_record(story: Story) -> None:
    first, second = story.promoted
    assert (first.json["reason"], first.json["champion"]) == ("the first one", None)
    assert second.json["previous_version"] == 1
    comparison = second.json["comparison"]
    assert comparison["only_candidate"] > comparison["only_champion"]
    assert comparison["candidate_correct"] - comparison["champion_correct"] == (
        comparison["only_candidate"] - comparison["only_champion"]
    )
    tables = [pd.read_csv(story.artifact(run, "predictions.csv")) for run in (1, 0)]
    right = [(table.label == table.prediction).to_numpy() for table in tables]
    expected = [int(each.sum()) for each in (*right, right[0] & ~right[1], right[1] & ~right[0])]
    names = ("candidate_correct", "champion_correct", "only_candidate", "only_champion")
    assert [comparison[name] for name in names] == expected
    assert comparison["p"] == binomtest(expected[2], expected[2] + expected[3]).pvalue

    folder = Path(mlflow.artifacts.download_artifacts(run_id=second.json["decision_run_id"]))
    verdict = json.loads((folder / "verdict.json").read_text())
    assert second.json.items() <= (verdict | {"decision_run_id": second.json["decision_run_id"]}).items()
    policy = (ROOT / "gates.toml").read_text()
    assert verdict["policy"]["text"] == policy
    assert verdict["policy"]["sha256"] == hashlib.sha256(policy.encode()).hexdigest()
    assert verdict["user"] and verdict["host"] and verdict["time"] and verdict["job_url"] is None
    for role, run in (("candidate", 1), ("champion", 0)):
        recorded = json.loads(story.artifact(run, "evaluation.json").read_text())
        assert verdict[role]["run_id"] == story.runs[run]
        for name in ("model_sha256", "accuracy", "parameters"):
            assert verdict[role][name] == recorded[name]
    text = (folder / "verdict.md").read_text()
    assert text.startswith("# digits-classifier version 2: promoted")
    assert all(check["name"] in text for check in verdict["checks"])


def reigns(story: Story, *arguments: str) -> list[tuple[int, str, bool]]:
    rows = story.call("--history", "--json", *arguments).json["reigns"]
    return [(row["version"], row["decision"], row["until"] is None) for row in rows]


def test_history_and_rollback(story: Story) -> None:
    assert reigns(story) == [(1, "promoted", False), (2, "promoted", True)]
    assert reigns(story, "--at", story.between) == [(1, "promoted", False)]
    assert reigns(story, "--at", "2001-01-01") == []

    back = story.call("--rollback", "--reason", "it dreams of sheep")
    assert [back.json[key] for key in ("version", "previous_version", "decision")] == [1, 2, "rolled back"]
    check_agreement(1)
    assert reigns(story) == [(1, "promoted", False), (2, "promoted", False), (1, "rolled back", True)]
    assert reigns(story, "--at", story.between) == [(1, "promoted", False)]
    table = story.call("--history").stdout.splitlines()
    assert len(table) == 5
    assert table[1].split() == ["version", "from", "until", "decision", "decided_by", "reason", "accuracy"]
    assert "it dreams of sheep" in table[-1] and " now " in table[-1]

    assert "no earlier version" in story.call("--rollback", "--reason", "more").error
    assert story.call("--rollback", "--to", 2, "--reason", "it was right").code == 0
    check_agreement(2)


def test_a_rollback_to_a_file_that_is_not_the_one_promoted_is_refused(story: Story) -> None:
    before = kinds()
    model = MlflowClient().get_model_version(NAME, "1")
    folder = Path(mlflow.artifacts.download_artifacts(model.source, dst_path=None))
    (file,) = folder.rglob("model.pt2")
    other = next((story.folder / "mlruns").rglob("model.pt2"))
    other = other if other.read_bytes() != file.read_bytes() else [*(story.folder / "mlruns").rglob("model.pt2")][1]
    with changed(file, other.read_bytes()):
        assert "is not the one that was promoted" in story.call("--rollback", "--reason", "x").error
    with changed(file, b""):
        assert story.call("--rollback", "--reason", "x").code == 2
    assert kinds() == before


# --- what it believes -----------------------------------------------------------------------------------------------


@contextmanager
def changed(file: Path, content: bytes | None) -> Iterator[None]:
    """Change the file, or remove it, for a while."""
    before = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def test_a_record_that_was_altered_is_refused_and_what_does_not_match_is_named(story: Story) -> None:
    record, table = (story.artifact(1, name) for name in ("evaluation.json", "predictions.csv"))
    call = ("--run-id", story.runs[1], "--dry-run")
    better = json.loads(record.read_text()) | {"accuracy": 1.0}
    with changed(record, json.dumps(better).encode()):
        assert "says accuracy 1.0, its predictions give 0.99" in story.call(*call).error
    with changed(table, table.read_bytes().replace(b"\n1,", b"\n1,", 1) + b"\n"):
        assert "predictions.csv" in story.call(*call).error
    with changed(table, None):
        assert "predictions.csv" in story.call(*call).error
    with changed(record, record.read_bytes()[:100]):
        assert "is damaged" in story.call(*call).error
    other = json.loads(record.read_text()) | {"model_sha256": "0" * 64}
    with changed(record, json.dumps(other).encode()):
        assert "belongs to another model" in story.call(*call).error
    with changed(story.artifact(0, "evaluation.json"), b"{}"):  # also the champion's, where it is asked for
        put_back(story)
        assert "is damaged" in story.call(*call).error


def test_a_champion_without_a_record_is_evaluated_anew(story: Story) -> None:
    put_back(story)
    with changed(story.artifact(0, "evaluation.json"), None):
        result = story.call("--run-id", story.runs[1], "--dry-run")
    assert result.json["previous_version"] == 1
    assert result.json["champion"]["evidence"] == "evaluated anew: nothing was recorded"
    assert "is evaluated anew" in result.stderr
    assert result.json["comparison"] == story.promoted[1].json["comparison"]


def test_a_champion_recorded_on_other_data_is_evaluated_anew(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = MlflowClient().get_model_version(NAME, "1")
    part = data.load_test("digits", Path()).take(slice(100))
    monkeypatch.setattr(data, "load_test", lambda *_: part)
    party = promotion._beside(champion, {"dataset": "digits", "dataset_digest": part.digest}, Path())
    assert party.source == "evaluated anew: its record is of other data"
    assert party.evidence is not None and len(party.evidence.labels) == 100
    table = pd.read_csv(story.artifact(0, "predictions.csv"))[:100]
    assert (party.evidence.probabilities.argmax(1) == table.prediction).all()
    with pytest.raises(UserError, match="holds another digits than the candidate was evaluated on"):
        promotion._beside(champion, {"dataset": "digits", "dataset_digest": "f00d"}, Path())


def test_latency_is_measured_side_by_side_where_the_policy_asks_for_it(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_back(story)
    monkeypatch.setattr(cli, "POLICY", tmp_path / "gates.toml")
    for ceiling, passed in ((100.0, True), (0.001, False)):
        rule = f"[digits]\nmax_latency_ratio = {ceiling}\nalpha = 1e-9\n"
        (tmp_path / "gates.toml").write_text(rule)
        result = story.call("--run-id", story.runs[1], "--dry-run")
        (check,) = result.json["checks"]
        assert (check["name"], check["passed"], result.code) == ("max_latency_ratio", passed, 1 - passed)
        ours, theirs = (result.json[role]["latency"] for role in ("candidate", "champion"))
        assert check["value"] == pytest.approx(ours / theirs)
        assert 1e-5 < theirs < 1


def test_mnist_reaches_production_and_a_model_trained_on_500_images_does_not_replace_it(
    mnist: Pipeline, real_data: Path
) -> None:
    assert mnist.evaluated.json["samples"] == 10_000
    assert mnist.evaluated.json["test_accuracy"] == mnist.trained.json["test_accuracy"] >= 0.985
    data_dir = ("--data-dir", real_data)
    trained = run_script(mnist.folder, "pytorch_demo.py", "--epochs", 20, "--limit", 500, *data_dir)
    run = ("--run-id", trained.json["run_id"])
    assert call(evaluate.main, *run, "--log-mlflow", *data_dir, folder=mnist.folder).code == 0
    refused = call(promote.main, *run, "--min-accuracy", 0.85, folder=mnist.folder)
    assert [result.json["decision"] for result in (mnist.promoted, refused)] == ["promoted", "refused"]
    checks = {check["name"]: check for check in refused.json["checks"]}
    assert checks["min_accuracy_lower_end"]["passed"]
    assert not checks["regression"]["passed"]
    assert "McNemar p" in refused.json["reason"] and "significantly worse" in refused.json["reason"]
    use(mnist.folder / "mlflow.db")
    assert int(MlflowClient().get_registered_model("mnist-classifier").aliases["champion"]) == 1


# --- killed, and at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["promoted", "rolled back"])
def test_killed_at_every_step_and_called_again_nothing_is_lost_or_doubled(
    decision: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    if decision == "promoted":  # the first one of all
        database, before, after, nothing_to_do = pipeline.folder / "before.db", 0, 1, (0, ["unchanged"])
        arguments = ["--model-name", NAME, "--version", "1"]
    else:
        database, before, after, nothing_to_do = pipeline.folder / "mlflow.db", 2, 1, (2, [])
        number = str(registered_again(pipeline, database))
        assert run_script(pipeline.folder, "promote.py", "--model-name", NAME, "--version", number).code == 0
        arguments = ["--rollback", "--to", "1", "--reason", "test"]
    result = forked(tmp_path, "kill", database, tmp_path, *arguments)

    writes = [name for name, *_ in result]
    assert {"create_run", "log_batch", "set_registered_model_alias", "transition_model_version_stage"} <= set(writes)
    assert result[-1] == ["none", 0, nothing_to_do[0]]  # undisturbed, and once more
    for step, (name, killed, again) in enumerate(result[:-1], start=1):
        use(tmp_path / f"{step}.db")
        assert killed is None, name
        check_agreement(after)
        made = kinds()[before:]  # by the call that was killed and completed, or by the one after it
        assert (again, made) in [(0, [decision]), (nothing_to_do[0], [decision, *nothing_to_do[1]])], (step, name)
        experiment = MlflowClient().get_experiment_by_name(f"{NAME}-promotions")
        assert experiment is not None
        statuses = [run.info.status for run in MlflowClient().search_runs([experiment.experiment_id])]
        assert statuses.count("FINISHED") == before + len(made)
        assert set(statuses) <= {"FINISHED", "KILLED"}  # killed before it had decided


@pytest.mark.parametrize("over_http", [False, True], ids=["sqlite", "http"])
def test_twenty_at_once_leave_one_in_production_and_twenty_decisions(
    over_http: bool, pipeline: Pipeline, tmp_path: Path
) -> None:
    database = Path(shutil.copy(pipeline.folder / "before.db", tmp_path / "mlflow.db"))
    for _ in range(4):
        registered_again(pipeline, database)
    with served(tmp_path) if over_http else nullcontext(f"sqlite:///{database}") as uri:
        codes = forked(tmp_path, "race", "promote", 20, uri, tmp_path, "--model-name", NAME, "--version", "VERSION")
    for number, code in enumerate(codes):
        stderr = (tmp_path / f"{number}.stderr").read_text()
        assert (code, "Traceback" in stderr, "ERROR" in stderr) == (0, False, False), stderr
        assert json.loads((tmp_path / f"{number}.stdout").read_text())["decision"] in ("promoted", "unchanged")
    use(database)
    taken = registry.decisions(NAME)
    assert len(taken) == 20
    last = None  # each was decided beside what the one before had put in Production
    for decision in taken:
        assert decision.previous_version == last
        assert decision.kind == ("unchanged" if decision.version == last else "promoted")
        last = decision.version
    assert last is not None
    check_agreement(last)


def test_twelve_first_runs_on_an_empty_store_all_succeed(tmp_path: Path) -> None:
    first_run = (
        "from pipeline import tracking\n"
        "with tracking.connected(), tracking.run('demo', None) as run_id:\n"
        "    tracking.log_metrics(run_id, {'train_loss': 1.0}, step=1)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", first_run],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(12)
    ]
    ended = [(process.communicate(timeout=240)[1], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * 12, [stderr for stderr, code in ended if code]
    use(tmp_path / "mlflow.db")
    experiment = MlflowClient().get_experiment_by_name("demo")
    assert experiment is not None
    runs = MlflowClient().search_runs([experiment.experiment_id])
    assert [(run.info.status, run.data.metrics) for run in runs] == [("FINISHED", {"train_loss": 1.0})] * 12
