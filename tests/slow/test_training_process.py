"""pytorch_demo.py as a user runs it: in a terminal, stopped by a signal, over HTTP, on the full data, by mlflow run."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

from support.git import run_git
from support.pipelines import PipelineRun
from support.scripts import ROOT, run_script
from support.servers import run_mlflow_server
from support.stores import open_store, read_run_statuses

SCRIPT = str(ROOT / "pytorch_demo.py")


def read_terminal(terminal: int) -> str:
    """Return everything that a program wrote to a terminal until it closed it."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # Linux says so that the other end was closed
            return shown.decode()


def test_terminal_gets_a_progress_bar(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    command = [sys.executable, SCRIPT, "--dataset", "digits", "--epochs", "2", "--no-register"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = read_terminal(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(stdout)["dataset"] == "digits"
    assert "epoch 2/2: 100%" in shown
    assert "loss 0." in shown
    assert "accuracy 0." in shown


def test_closed_terminal_leaves_its_run_killed(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, SCRIPT, "--dataset", "digits", "--epochs", "100000"])
    termios.tcsetwinsize(terminal, (40, 120))
    shown = b""
    while b"epoch 3/" not in shown:
        shown += os.read(terminal, 65536)
    os.close(terminal)  # the system sends SIGHUP, and nobody reads stderr any more
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert read_run_statuses(tmp_path) == ["KILLED"]
    assert list(tmp_path.glob("checkpoints/*/last.pt"))


def test_stderr_that_nobody_reads_costs_nothing(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    command = f"'{sys.executable}' '{SCRIPT}' --dataset digits --epochs 3 2> >(head -n 1 > /dev/null)"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, json.loads(done.stdout)["dataset"]) == (0, "digits")
    assert read_run_statuses(tmp_path) == ["FINISHED"]


def test_system_metrics_are_logged_if_asked(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    fast = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1", "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1"}
    options = ("--dataset", "digits", "--epochs", 40, "--no-register", "--system-metrics")
    result = run_script(tmp_path, "pytorch_demo.py", *options, env=fast)
    metrics = open_store(tmp_path).get_run(result.json["run_id"]).data.metrics
    assert any(name.startswith("system/cpu") for name in metrics), result.stderr


def test_pipeline_works_over_http(tmp_path: Path, empty_store: Path) -> None:
    server_folder, folder = tmp_path / "server", tmp_path / "work"
    server_folder.mkdir()
    folder.mkdir()
    shutil.copy(empty_store, server_folder / "mlflow.db")
    with run_mlflow_server(server_folder) as uri:
        store = {"MLFLOW_TRACKING_URI": uri}
        trained = run_script(folder, "pytorch_demo.py", "--dataset", "digits", env=store)
        run = ("--run-id", trained.json["run_id"])
        evaluated = run_script(folder, "evaluate.py", *run, "--log-mlflow", env=store)
        promoted = run_script(folder, "promote.py", *run, env=store)
    assert trained.json["tracking_uri"] == uri
    assert evaluated.json["test_accuracy"] == trained.json["test_accuracy"]
    assert promoted.json["decision"] == "promoted"
    assert [path.name for path in folder.iterdir()] == ["evaluation"]  # everything else is on the server


def test_fashion_mnist_reaches_production(real_data: Path, tmp_path: Path) -> None:
    data = ("--data-dir", real_data)
    recipe = "--dataset fashion-mnist --model cnn --lr 0.01 --augment flip --epochs 6"  # the residual net takes minutes
    trained = run_script(tmp_path, "pytorch_demo.py", *recipe.split(), *data)
    run = ("--run-id", trained.json["run_id"])
    evaluated = run_script(tmp_path, "evaluate.py", *run, "--batch-size", 64, "--log-mlflow", *data)
    promoted = run_script(tmp_path, "promote.py", *run)
    assert evaluated.json["samples"] == 10_000
    assert evaluated.json["test_accuracy"] == trained.json["test_accuracy"] >= 0.90
    assert promoted.json["model_name"] == "fashion-mnist-classifier"
    assert promoted.json["decision"] == "promoted"


def test_same_seed_trains_the_same_weights(digits_pipeline: PipelineRun, tmp_path: Path) -> None:
    again = run_script(tmp_path, "pytorch_demo.py", "--dataset", "digits")
    hashes = []
    for folder, result in ((digits_pipeline.folder, digits_pipeline.trained), (tmp_path, again)):
        run = open_store(folder).get_run(result.json["run_id"])
        hashes.append(run.data.tags["result.weights_sha256"])
    assert hashes[0] == hashes[1]


def run_from_git(checkout: Path, folder: Path, *options: str) -> None:
    """Do what ``mlflow run`` does in an activated environment."""
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = [sys.executable, "-m", "mlflow", "run", f"file://{checkout}", "--env-manager", "local", *options]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_mlflow_run_goes_all_the_way(checkout: Path, tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    parameters = ("-P", "dataset=digits", "-P", "epochs=12", "-P", "lr=1e-2")
    run_from_git(checkout, tmp_path, "--experiment-name", "pytorch-demo", *parameters)
    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("pytorch-demo")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    commit = run_git(checkout, "rev-parse", "HEAD")
    assert run.info.status == "FINISHED"
    assert run.data.tags["code.commit"] == run.data.tags["mlflow.source.git.commit"] == commit
    assert run.data.tags["code.dirty"] == "false"
    params = run.data.params
    assert (params["dataset"], params["epochs"], params["lr"]) == ("digits", "12", "1e-2")
    assert run.data.metrics["test_accuracy"] > 0.9

    run_from_git(checkout, tmp_path, "-e", "evaluate", "-P", f"run-id={run.info.run_id}")
    run_from_git(checkout, tmp_path, "-e", "promote", "-P", f"run-id={run.info.run_id}")
    assert client.get_model_version("digits-classifier", "1").current_stage == "Production"
    assert run_script(tmp_path, "lineage.py", "--json").json["unanswered"] == []
